// The functions of a call: runs what the agent calls, answers Gemini, and records it; see docs/tools.md.

import type { SessionApi } from "./api.js";
import { type CallError, callError } from "./errors.js";
import { atMost } from "./timing.js";
import type { JsonObject, ServerMessage, ToolCall } from "./types.js";

const HANG_UP = "hang_up"; // the built-in function with which the agent ends the call
const FAILURE = "This did not work.";
const RECORDING_SECONDS = 60;
const SERVER_SECONDS = 28; // for a tool on a server, with all that the API does for it
const SERVER_PAUSE = 1; // before the API is asked again for the same answer, because the caller waits

/** A function of the page, with what it needs already bound. */
export type Run = (args: JsonObject, callId: string, signal: AbortSignal) => object | Promise<object>;

/** What the tools need of their call. */
export interface ToolsHost {
  api: SessionApi;
  /** The functions of the page, by name. */
  handlers: ReadonlyMap<string, Run>;
  seconds: number;
  /** Whether the API runs a tool, and not the page. */
  runsOnServer(name: string): boolean;
  answer(response: { id: string; name: string; response: object }): void;
  onChange(calls: readonly ToolCall[]): void;
  onError(error: CallError): void;
}

interface Outcome {
  status: "succeeded" | "failed" | "timeout";
  response: JsonObject;
}

/** The tool calls of one call. */
export class Tools {
  /** Id of the call by which the agent wants to end the call, unless it was interrupted since. */
  hangUp = "";
  readonly #host: ToolsHost;
  readonly #running = new Map<string, AbortController>();
  readonly #recording = new Map<string, Promise<void>>();
  readonly #awaited = new Set<string>(); // the calls whose answer Gemini still wants
  #calls: readonly ToolCall[] = [];

  constructor(host: ToolsHost) {
    this.#host = host;
  }

  /** Whether a function runs whose answer the agent awaits. */
  get isRunning(): boolean {
    return this.#awaited.size > 0;
  }

  /** Starts the functions that a message calls, and stops those that it cancels. */
  take(message: ServerMessage): void {
    for (const { id, name = "", args } of message.toolCall?.functionCalls ?? []) {
      if (!id || this.#calls.some(({ callId }) => callId === id)) continue;
      this.#awaited.add(id);
      if (name === HANG_UP) this.hangUp = id;
      this.#change({ callId: id, name, arguments: args ?? {}, status: "running" });
      this.#recording.set(id, this.#run(id, name, args ?? {}));
    }
    const cancelled = message.toolCallCancellation?.ids ?? [];
    for (const id of cancelled) {
      this.#awaited.delete(id);
      this.#running.get(id)?.abort();
    }
    // The caller goes on talking.
    if (cancelled.includes(this.hangUp) || message.serverContent?.interrupted) this.hangUp = "";
  }

  /** Sends no answer to the calls so far, because the conversation has begun anew and does not know them. */
  forget(): void {
    this.#awaited.clear();
    this.hangUp = "";
  }

  /** Waits for all functions and records, at most some seconds. */
  recorded(seconds: number): Promise<void> {
    return atMost(seconds, Promise.all(this.#recording.values()));
  }

  /** Waits as `recorded`, and then cancels what still runs. */
  async finish(seconds: number): Promise<void> {
    await this.recorded(seconds);
    for (const running of this.#running.values()) running.abort();
  }

  // Runs a function; it gets an answer in any case, because the agent waits for it.
  async #run(callId: string, name: string, args: JsonObject): Promise<void> {
    const began = performance.now();
    const isOnServer = this.#host.runsOnServer(name);
    const seconds = isOnServer ? SERVER_SECONDS : this.#host.seconds;
    const controller = new AbortController();
    const { signal } = controller;
    this.#running.set(callId, controller);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stopped = new Promise<Outcome>((resolve) => {
      signal.addEventListener("abort", () => resolve(failed("The call was canceled.")));
      timer = setTimeout(() => {
        resolve({ status: "timeout", response: { error: "This takes too long." } });
        controller.abort();
      }, seconds * 1000);
    });
    const call = { call_id: callId, name, arguments: args };
    const work = isOnServer ? this.#relay(seconds, call, signal) : this.#runHere(callId, name, args, signal);
    const { status, response } = await Promise.race([work, stopped]);
    clearTimeout(timer);
    const isCancelled = signal.aborted && status === "failed";
    this.#running.delete(callId);
    const isAwaited = this.#awaited.delete(callId);
    this.#change({ callId, name, arguments: args, status: isCancelled ? "cancelled" : status, response });
    if (isAwaited) this.#host.answer({ id: callId, name, response });
    const record = { ...call, response, status, milliseconds: Math.round(performance.now() - began) };
    try {
      // The API has recorded what it ran.
      if (!isOnServer) await this.#host.api.insist(RECORDING_SECONDS, "POST", "/tool-calls", record);
    } catch (error) {
      this.#onError(error);
    }
    this.#recording.delete(callId);
  }

  async #runHere(callId: string, name: string, args: JsonObject, signal: AbortSignal): Promise<Outcome> {
    if (name === HANG_UP) return { status: "succeeded", response: { result: "The call ends after your sentence." } };
    const run = this.#host.handlers.get(name);
    if (!run) return failed(`This page has no function ${name}.`);
    try {
      return { status: "succeeded", response: jsonObject(await run(args, callId, signal)) };
    } catch (error) {
      if (!signal.aborted) reportError(error); // for the page's developer; Gemini does not get to know the reason
      return failed(FAILURE);
    }
  }

  // Lets the API call the server. It runs a call once, so asking again is safe, and returns the same answer.
  async #relay(seconds: number, call: object, signal: AbortSignal): Promise<Outcome> {
    try {
      const details = { signal, pause: SERVER_PAUSE };
      const { data } = await this.#host.api.insist<{ data: Outcome }>(seconds, "POST", "/tool-calls", call, details);
      return data;
    } catch (error) {
      if (!signal.aborted) this.#onError(error);
      return failed(FAILURE);
    }
  }

  #onError(error: unknown): void {
    this.#host.onError(callError(error, "api_unavailable", true));
  }

  #change(call: ToolCall): void {
    const isKnown = this.#calls.some(({ callId }) => callId === call.callId);
    this.#calls = isKnown
      ? this.#calls.map((each) => (each.callId === call.callId ? call : each))
      : [...this.#calls, call];
    this.#host.onChange(this.#calls);
  }
}

const failed = (error: string): Outcome => ({ status: "failed", response: { error } });

// Returns an answer as JSON has it; Gemini closes the connection if it is no object.
function jsonObject(answer: unknown): JsonObject {
  const copy: unknown = JSON.parse(JSON.stringify(answer) ?? "null");
  if (typeof copy !== "object" || copy === null || Array.isArray(copy))
    throw new TypeError("A function of the page has to return an object.");
  return copy as JsonObject;
}
