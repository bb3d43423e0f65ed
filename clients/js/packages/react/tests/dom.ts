/** A page by jsdom, with Node's own network: jsdom's AbortSignal and fetch do not go together. */

import { JSDOM } from "jsdom";
import { WebSocket } from "ws";

const { window } = new JSDOM("<!doctype html><div id=root></div>", { url: "http://localhost" });

/** A WebSocket as in a browser, where an error that nobody listens to ends nothing. */
class BrowserSocket extends WebSocket {
  constructor(url: string) {
    super(url);
    this.on("error", () => {});
  }
}

Object.assign(globalThis, {
  window,
  document: window.document,
  sessionStorage: window.sessionStorage,
  addEventListener: window.addEventListener.bind(window),
  removeEventListener: window.removeEventListener.bind(window),
  WebSocket: BrowserSocket,
  IS_REACT_ACT_ENVIRONMENT: true,
});
