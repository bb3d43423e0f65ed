// The API of one session, which answers as a test wants.

import { vi } from "vitest";
import { sleep } from "../../src/timing.js";
import type { Turn } from "../../src/types.js";

type Json = Record<string, unknown>;

/** A request that the client has sent. */
export interface SeenRequest {
  method: string;
  action: string;
  body: Json;
  headers: Record<string, string>;
  keepalive: boolean;
}

/** Answers a request with a status and a body, after some seconds if it is `late`, or fails like a network. */
export type Answer = { status?: number; body: unknown; headers?: Record<string, string>; late?: number } | "no network";

export const API_URL = "https://api.example.com";
export const LIVE = {
  url: "wss://live.example.com/ws",
  token: "auth_tokens/secret",
  model: "models/gemini-3.1-flash-live-preview",
  setup: { setup: { model: "models/gemini-3.1-flash-live-preview" } },
  turn_ends_at: "turnComplete" as const,
  tools: [] as { name: string; where: string; speaks?: string | null }[],
};
export const SESSION = {
  session_id: "0199a",
  client_token: "pi_sess_first",
  max_duration_seconds: 600 as number | null,
  connection: { gemini_live: LIVE, livekit: { url: "wss://livekit.example.com", token: "jwt", room: "r" } },
};

/** An error as the API sends it. */
export const apiError = (status: number, code: string, more: Json = {}): Answer => ({
  status,
  body: { error: { code, message: `${code}.`, request_id: "req-1", retryable: status >= 500, ...more } },
});

/** Stands in for the API in one test. */
export class ScriptedApi {
  readonly seen: SeenRequest[] = [];
  saved: Turn[] = [];
  status = "active";
  hungUpAt: number | null = null;
  usage: Json | null = null;
  /** Answers that a test sets for an action, used up one by one before the usual one. */
  readonly next = new Map<string, Answer[]>();

  constructor() {
    vi.stubGlobal("fetch", (url: string, init: RequestInit) => this.#fetch(url, init));
  }

  /** Lets the next requests of an action have these answers. */
  answers(action: string, ...answers: Answer[]): void {
    this.next.set(action, [...(this.next.get(action) ?? []), ...answers]);
  }

  /** The requests of one action so far. */
  of(action: string): SeenRequest[] {
    return this.seen.filter((request) => request.action === action);
  }

  /** The body of the first request of an action. */
  body(action: string): Json {
    const [request] = this.of(action);
    if (!request) throw new Error(`There was no request of ${action}.`);
    return request.body;
  }

  async #fetch(
    url: string,
    { method = "GET", body, headers, keepalive = false, signal }: RequestInit,
  ): Promise<Response> {
    const action = url.replace(`${API_URL}/api/v1/voice/sessions/${SESSION.session_id}`, "");
    const request = {
      method,
      action,
      body: body ? JSON.parse(String(body)) : {},
      headers: headers as Record<string, string>,
      keepalive,
    };
    this.seen.push(request);
    const scripted = this.next.get(action)?.shift();
    if (typeof scripted === "object" && scripted.late) await sleep(scripted.late, signal ?? undefined);
    if (signal?.aborted || scripted === "no network") throw new TypeError("Failed to fetch");
    const { status = 200, body: answer, headers: more } = scripted ?? this.#usual(request);
    return new Response(JSON.stringify(answer), { status, headers: { "x-request-id": "req-1", ...more } });
  }

  #usual({ action, body }: SeenRequest): { status?: number; body: unknown; headers?: Record<string, string> } {
    switch (action) {
      case "/transcript":
        this.saved = [...this.saved.slice(0, body.from as number), ...(body.turns as Turn[])];
        return { body: { data: { next: this.saved.length, hung_up_at: this.hungUpAt } } };
      case "/renew":
        return { body: { data: { client_token: "pi_sess_renewed", connection: { gemini_live: LIVE } } } };
      case "/complete":
        this.status = "completed";
        return { body: this.#session({ ...body, results: { guests: 6 } }) };
      case "":
        return { body: { data: this.#session({ end_reason: "completed" }) } };
      default:
        return { body: { data: {} } };
    }
  }

  #session(more: Json): Json {
    return {
      session_id: SESSION.session_id,
      status: this.status,
      hung_up_at: this.hungUpAt,
      checkpoint_turns: this.saved.length,
      usage: this.usage,
      ...more,
    };
  }
}
