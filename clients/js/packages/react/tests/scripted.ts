/** An API and a Gemini on loopback that play a short call: the agent greets, and answers each line with "Yes?". */

import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { type WebSocket, WebSocketServer } from "ws";

// biome-ignore lint/suspicious/noExplicitAny: documents of which a test reads what it needs
type Json = any;

const ID = "0190a1b2-0000-7000-8000-000000000001";
const RESULTS = { guest_name: "Ana Torres" };

export class Scripted {
  /** What the page has sent to the API, as `complete`. */
  readonly asked: { action: string; body: Json }[] = [];
  /** What the page has sent to Gemini. */
  readonly sent: Json[] = [];
  /** Whether Gemini refuses each connection. */
  isRefused = false;
  /** Whether Gemini is silent, so that no connection is set up. */
  isSilent = false;
  /** Whether the session is active, so that a page can go on with its call. */
  isActive = false;
  /** What the API waits for before it completes a session. */
  completing: Promise<void> = Promise.resolve();
  sockets: WebSocket[] = [];
  readonly #api: Server;
  readonly #gemini = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  #transcript: Json[] = [];

  private constructor() {
    this.#api = createServer(async (request, response) => {
      const action = request.url?.split("/").at(-1) ?? "";
      const content = await text(request);
      const body = content ? JSON.parse(content) : undefined;
      if (request.method !== "GET") this.asked.push({ action, body });
      if (action === "complete") await this.completing;
      const answer = this.#answer(action, body);
      response.writeHead(answer.error ? 409 : 200, { "Content-Type": "application/json" }).end(JSON.stringify(answer));
    });
    this.#gemini.on("connection", (socket) => this.#talk(socket));
  }

  static async start(): Promise<Scripted> {
    const scripted = new Scripted();
    scripted.#api.listen(0, "127.0.0.1");
    await Promise.all([once(scripted.#api, "listening"), once(scripted.#gemini, "listening")]);
    return scripted;
  }

  get apiUrl(): string {
    return `http://127.0.0.1:${(this.#api.address() as AddressInfo).port}`;
  }

  /** The `data` of the response of POST /sessions. */
  get session(): Json {
    const url = `ws://127.0.0.1:${(this.#gemini.address() as AddressInfo).port}`;
    return {
      session_id: ID,
      status: "active",
      client_token: "pi_sess_test",
      max_duration_seconds: 60,
      expires_at: Math.floor(Date.now() / 1000) + 900,
      connection: {
        livekit: { url: "ws://127.0.0.1:9", token: "none" },
        gemini_live: {
          url,
          token: "auth_tokens/test",
          setup: { setup: { model: "models/test" } },
          turn_ends_at: "turnComplete",
        },
      },
    };
  }

  completions(): Json[] {
    return this.asked.filter(({ action }) => action === "complete");
  }

  /** Let the agent call a tool. */
  callTool(name: string): void {
    this.#send(this.sockets.at(-1), {
      toolCall: { functionCalls: [{ id: "call-1", name, args: { area: "terrace" } }] },
    });
  }

  get toolResponses(): Json[] {
    return this.sent.flatMap((message) => message.toolResponse?.functionResponses ?? []);
  }

  async stop(): Promise<void> {
    for (const socket of this.#gemini.clients) socket.terminate();
    this.#gemini.close();
    this.#api.closeAllConnections();
    this.#api.close();
    await Promise.all([once(this.#gemini, "close"), once(this.#api, "close")]);
  }

  #answer(action: string, body: Json): Json {
    switch (action) {
      case "transcript":
        this.#transcript = [...this.#transcript.slice(0, body.from), ...body.turns];
        return { data: { session_id: ID, next: this.#transcript.length, hung_up_at: null } };
      case "complete":
        this.#transcript = body?.transcript ?? this.#transcript;
        return this.#completed(body?.end_reason);
      case "renew":
        if (this.isActive) return { data: this.session };
        return { error: { code: "voice_session_not_active", message: "The call is over.", retryable: false } };
      case ID:
        return { data: this.isActive ? { status: "active", hung_up_at: null } : this.#completed("completed") };
      default:
        return { data: {} };
    }
  }

  #completed(endReason: string): Json {
    return {
      session_id: ID,
      status: "completed",
      end_reason: endReason,
      transcript: this.#transcript,
      results: RESULTS,
      extraction: { status: "succeeded" },
    };
  }

  #talk(socket: WebSocket): void {
    this.sockets.push(socket);
    if (this.isRefused) {
      socket.close(1007, "API key not valid.");
      return;
    }
    socket.on("message", (data) => {
      const message = JSON.parse(String(data));
      this.sent.push(message);
      if (message.setup && !this.isSilent) this.#send(socket, { setupComplete: {} });
      if (message.realtimeInput?.text)
        this.#speak(socket, message.realtimeInput.text.includes("on the line") ? "Hello." : "Yes?");
    });
  }

  #speak(socket: WebSocket, words: string): void {
    this.#send(socket, { serverContent: { modelTurn: { parts: [] } } });
    this.#send(socket, { serverContent: { outputTranscription: { text: words } } });
    this.#send(socket, { serverContent: { turnComplete: true } });
    this.#send(socket, { sessionResumptionUpdate: { newHandle: "handle", resumable: true } });
  }

  #send(socket: WebSocket | undefined, message: Json): void {
    socket?.send(Buffer.from(JSON.stringify(message)));
  }
}
