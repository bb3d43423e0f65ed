/** Debian's Chromium with a page of the tests. */

import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { expect } from "vitest";
import { type Json, PATIENCE_MS, until, type World } from "./world.js";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-gpu", "--disable-quic"];
/** A microphone that may be used, without a question to the user. */
const MAY_RECORD = ["--use-fake-ui-for-media-stream"];
const FAKE_DEVICES = ["--use-fake-device-for-media-stream"];
const MAY_PLAY = ["--autoplay-policy=no-user-gesture-required"];

export interface ChromiumOptions {
  /** The WAV file that the microphone plays once; a beep every second without one. */
  wav?: string;
  /** Whether the user allows the microphone, refuses it, or has none. */
  microphone?: "allowed" | "refused" | "missing";
  /** Whether pages may play sound only after a click. */
  needsGesture?: boolean;
}

export function openChromium({
  wav,
  microphone = "allowed",
  needsGesture = false,
}: ChromiumOptions = {}): Promise<Browser> {
  return chromium.launch({
    executablePath: EXECUTABLE,
    chromiumSandbox: process.getuid?.() !== 0,
    timeout: PATIENCE_MS,
    env: { ...process.env, ...(microphone === "missing" ? NO_DEVICES : {}) } as Record<string, string>,
    args: [
      ...QUIET,
      ...(microphone === "refused" ? ["--deny-permission-prompts"] : MAY_RECORD),
      ...(microphone === "missing" ? [] : FAKE_DEVICES),
      ...(needsGesture ? ["--autoplay-policy=document-user-activation-required"] : MAY_PLAY),
      ...(wav ? [`--use-file-for-fake-audio-capture=${wav}%noloop`] : []),
    ],
  });
}

/** Hides the sound devices of the machine. */
const NO_DEVICES = { ALSA_CONFIG_PATH: "/dev/null", PULSE_SERVER: "unix:/dev/null" };

/** What a page has seen of its call. */
export interface Seen {
  states: string[];
  errors: Json[];
  devices: number;
  cancelled: string[];
  loudest: { mic: number; speaker: number };
  failure: Json;
  results: Json;
  violations: string[];
}

/** The page of a test. */
export class CallPage {
  /** Errors that the page has reported, and what its policy has refused. */
  readonly complaints: string[] = [];
  /** The errors that a test expects. */
  expected = /^$/;

  private constructor(readonly page: Page) {
    page.setDefaultTimeout(PATIENCE_MS);
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("console", (message) => {
      if (/Content Security Policy|TrustedScript/.test(message.text())) this.complaints.push(message.text());
    });
  }

  /** Open the page; `context` shares its storage between tabs. */
  static async open(context: Browser | BrowserContext, world: World): Promise<CallPage> {
    const opened = new CallPage(await context.newPage());
    await opened.page.goto(world.site.url);
    await opened.isReady();
    return opened;
  }

  /** Open the page, and let it start a call without any click; a command of the test would count as one. */
  static async openAndCall(browser: Browser, world: World, options: Json, until: string): Promise<CallPage> {
    const opened = new CallPage(await browser.newPage());
    await opened.page.addInitScript((given) => Object.assign(window, { callAtOnce: given }), options);
    const seen = opened.page.waitForEvent("console", { predicate: (message) => message.text() === until });
    await opened.page.goto(world.site.url);
    await seen;
    return opened;
  }

  /** Close the page; fails if it had errors that nothing handled, or did what its policy refuses. */
  async [Symbol.asyncDispose](): Promise<void> {
    const violations = this.page.isClosed() ? [] : (await this.seen()).violations;
    await this.page.close();
    expect([...this.complaints, ...violations].filter((complaint) => !this.expected.test(complaint))).toEqual([]);
  }

  /** Start a call by a click, and wait until there is one, or an error. */
  async start(options: Json, says: string[] = []): Promise<"call" | "failed" | "none"> {
    await this.prepare(options, says);
    await this.page.click("#start");
    return this.opened();
  }

  /** Go on with the call of this tab. */
  async resume(options: Json, says: string[] = []): Promise<"call" | "failed" | "none"> {
    await this.prepare(options, says);
    await this.page.click("#resume");
    return this.opened();
  }

  async prepare(options: Json, says: string[] = []): Promise<void> {
    await this.page.evaluate((given) => Object.assign(window.test, given), { options, says });
  }

  async opened(): Promise<"call" | "failed" | "none"> {
    const opened = await until("the call is open", () => this.page.evaluate(() => window.test.opened));
    return opened as "call" | "failed" | "none";
  }

  async reload(): Promise<void> {
    await this.page.reload();
    await this.isReady();
  }

  async isReady(): Promise<void> {
    await until("the page is loaded", () => this.page.evaluate(() => "test" in window));
  }

  seen(): Promise<Seen> {
    return this.page.evaluate(() => window.test.seen);
  }

  /** Read something of the call. */
  call<Value>(read: (call: Json) => Value): Promise<Value> {
    return this.page.evaluate(`(${read})(window.test.call)`) as Promise<Value>;
  }

  /** Wait until the call is in a state. */
  async in(...states: string[]): Promise<string> {
    return until(`the call is ${states.join(" or ")}`, async () => {
      const state = await this.call((call) => call?.state ?? "");
      return states.includes(state) ? state : "";
    });
  }

  /** Wait for the end of the call, and return the completed session that the page got. */
  async results(): Promise<Json> {
    const ended = async () => {
      const now = await this.seen();
      return now.results || now.failure ? now : null;
    };
    const seen = await until("the call has results", ended).catch(async (error) => {
      const call = await this.call(({ state, turns, toolCalls }) => ({ state, turns, toolCalls }));
      throw new Error(`${error.message}: ${JSON.stringify({ ...call, ...(await this.seen()) })}`);
    });
    if (seen.failure) throw new Error(`The call failed: ${JSON.stringify(seen)}`);
    return seen.results;
  }
}

declare global {
  interface Window {
    test: {
      options: Json;
      says: string[];
      seen: Seen;
      call: Json;
      opened: string | null;
      checkDevices: () => Promise<Json>;
    };
  }
}
