/** What a test needs around its page: relays to the API and to Gemini, the site, and sessions of the example agent. */

import { readFileSync } from "node:fs";
import { inject } from "vitest";
import { ApiRelay } from "./api_relay.js";
import { ROOT } from "./process.js";
import { Relay } from "./relay.js";
import { Site } from "./site.js";
import { type Faults, MODELS, type Model } from "./stand_ins.js";

// biome-ignore lint/suspicious/noExplicitAny: documents of the API, of which a test reads what it needs
export type Json = any;

/** Longer than any step takes on a busy machine. */
export const PATIENCE_MS = 90_000;

const read = (name: string): Json => JSON.parse(readFileSync(`${ROOT}examples/${name}`, "utf8"));
const CALLER = read("booking.caller.json");
const BOOKING = read("booking.json");
/** The agent of the example, with the tools of its page only. */
export const AGENT: Json = {
  ...BOOKING,
  tools: BOOKING.tools.filter(({ run }: Json) => run.where === "client"),
};
/** The caller's lines. */
export const SAYS: string[] = CALLER.says.map((line: string | { text: string }) =>
  typeof line === "string" ? line : line.text,
);
export const CLOSING: string = AGENT.behaviors.closing_message;

export class World {
  private constructor(
    readonly gemini: Relay,
    readonly api: ApiRelay,
    readonly site: Site,
    private readonly model: Model,
  ) {}

  /** Serve everything for one test, with a Gemini that has faults. */
  static async with(faults: Faults = "", model: Model = MODELS[0]): Promise<World> {
    const urls = inject("gemini");
    const gemini = await Relay.to(urls[faults] ?? "");
    // The API names the first stand-in; the page reaches the one with faults, by the relay.
    const named = (urls[""] ?? "").replace("http", "ws");
    const api = await ApiRelay.to(inject("apis")[model].url, new Map([[named, gemini.url]]));
    return new World(gemini, api, await Site.for(api.url, gemini.url), model);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.gemini.close(), this.api.close(), this.site.close()]);
  }

  /** Return the agent of the example with all its tools, those on a server at a webhook endpoint. */
  static booking(endpointId: string): Json {
    const tools = BOOKING.tools.map((tool: Json) =>
      tool.run.where === "server" ? { ...tool, run: { ...tool.run, endpoint_id: endpointId } } : tool,
    );
    return { ...BOOKING, tools };
  }

  /** Create a session of the example agent, as a backend does; it is given to the page as it is. */
  async session(fields: Json = {}, agent: Json = AGENT): Promise<Json> {
    const { agent_id } = await this.ask("/agents", agent);
    const order = { agent_id, participant: { identity: "guest-17" }, ttl_seconds: 900, variables: CALLER.variables };
    return this.ask("/sessions", { ...order, ...fields });
  }

  /** Read a session. */
  state(session: Json): Promise<Json> {
    return this.ask(`/sessions/${session.session_id}`);
  }

  /** Call a route as the backend does. The API answers 504 on a machine that stands still, so this is repeated. */
  async ask(path: string, body?: Json): Promise<Json> {
    const { key } = inject("apis")[this.model];
    for (;;) {
      const response = await fetch(`${this.api.url}/api/v1/voice${path}`, {
        headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
        signal: AbortSignal.timeout(PATIENCE_MS),
        ...(body === undefined ? {} : { method: "POST", body: JSON.stringify(body) }),
      });
      const document = (await response.json()) as Json;
      if (response.status === 504) continue;
      if (!response.ok) throw new Error(`${path}: ${response.status} ${JSON.stringify(document)}`);
      return document.data ?? document;
    }
  }
}

type Found<Value> = Exclude<Value, false | 0 | "" | null | undefined>;

/** Wait until a condition holds; fails with its name and the last value. */
export async function until<Value>(what: string, value: () => Value | Promise<Value>): Promise<Found<Value>> {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await value();
    if (found) return found as Found<Value>;
    if (Date.now() > deadline) throw new Error(`It did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The turns of a transcript as lines. */
export function lines(turns: readonly Json[]): string[] {
  return turns.map((turn) => `${turn.role}: ${turn.text}`);
}

/** Tool calls with the hang-up last: the API has them in the order in which they were recorded. */
export function inOrder(calls: readonly Json[]): Json[] {
  return [...calls.filter(({ name }) => name !== "hang_up"), ...calls.filter(({ name }) => name === "hang_up")];
}

/** The words of one side of a transcript. */
export function wordsOf(role: "agent" | "user", turns: readonly Json[]): string[] {
  return turns.filter((turn) => turn.role === role).map((turn) => turn.text);
}
