/** A relay between a page and the API that records requests, can be away, and names the relay to Gemini in sessions. */

import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";

export interface ApiRequest {
  method: string;
  /** The last part of the path, as `complete`. */
  action: string;
  // biome-ignore lint/suspicious/noExplicitAny: bodies of requests, of which a test reads what it needs
  body: any;
  idempotencyKey: string | undefined;
  /** The status of the response; 0 if the API was away. */
  status: number;
}

export class ApiRelay {
  /** The page's requests in the order of their responses. */
  readonly requests: ApiRequest[] = [];
  /** What the page got as responses. */
  readonly texts: string[] = [];
  /** Whether the response to a request is lost on its way to the page. */
  losesResponse: (request: ApiRequest) => boolean = () => false;
  /** Whether requests are dropped without a response. Preflights are not, so that the requests are seen. */
  isAway = false;
  readonly #server: Server;

  private constructor(
    private readonly target: string,
    /** Texts to replace in responses. */
    private readonly replaced: Map<string, string>,
  ) {
    this.#server = createServer((request, response) => {
      this.#pass(request, response).catch((error) => response.destroy(error as Error));
    });
  }

  static async to(target: string, replaced: Map<string, string>): Promise<ApiRelay> {
    const relay = new ApiRelay(target, replaced);
    relay.#server.listen(0, "127.0.0.1");
    await once(relay.#server, "listening");
    return relay;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The page's requests of an action, without preflights. */
  of(action: string): ApiRequest[] {
    return this.requests.filter((request) => request.action === action);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  async #pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await buffer(request);
    const method = request.method ?? "GET";
    const isPreflight = method === "OPTIONS";
    const seen: ApiRequest = {
      method,
      action: request.url?.split("/").at(-1) ?? "",
      body: body.length ? JSON.parse(String(body)) : undefined,
      idempotencyKey: request.headers["idempotency-key"]?.toString(),
      status: 0,
    };
    const record = (status: number) => {
      if (!isPreflight) this.requests.push({ ...seen, status });
    };
    if (this.isAway && !isPreflight) {
      record(0);
      request.socket.destroy();
      return;
    }
    const headers = new Headers();
    for (const name of ["authorization", "content-type", "idempotency-key", "origin"]) {
      const value = request.headers[name];
      if (value) headers.set(name, String(value));
    }
    for (const name of ["access-control-request-method", "access-control-request-headers"]) {
      const value = request.headers[name];
      if (value) headers.set(name, String(value));
    }
    const answer = await fetch(this.target + request.url, { method, headers, ...(body.length ? { body } : {}) });
    let text = await answer.text();
    for (const [before, after] of this.replaced) text = text.replaceAll(before, after);
    if (this.losesResponse(seen)) {
      record(0);
      request.socket.destroy();
      return;
    }
    if (headers.get("authorization")?.startsWith("Bearer pi_sess_")) this.texts.push(text);
    const passed = [...answer.headers].filter(
      ([name]) => !["content-length", "connection", "transfer-encoding", "content-encoding"].includes(name),
    );
    response.writeHead(answer.status, Object.fromEntries(passed)).end(text);
    record(answer.status);
  }
}
