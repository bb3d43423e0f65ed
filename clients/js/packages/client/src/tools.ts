// The functions of a call: runs what the agent calls, answers Gemini, and records it; see docs/tools.md.

import type { SessionApi } from "./api.js";
import { type CallError, callError } from "./errors.js";
import { atMost, sleep } from "./timing.js";
import type { JsonObject, ServerMessage, ToolCall } from "./types.js";

const HANG_UP = "hang_up"; // the built-in function with which the agent ends the call
const RECORDING_SECONDS = 60;

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

  /** Waits for the records of the functions that have ended. */
  recorded(seconds: number): Promise<void> {
    const ended = [...this.#recording].filter(([id]) => !this.#running.has(id)).map(([, record]) => record);
    return atMost(seconds, Promise.all(ended));
  }

  /** Waits for all functions and records, and then cancels what still runs. */
  async finish(seconds: number): Promise<void> {
    await atMost(seconds, Promise.all(this.#recording.values()));
    for (const running of this.#running.values()) running.abort();
  }

  async #run(callId: string, name: string, args: JsonObject): Promise<void> {
    const began = performance.now();
    const { status, response, isCancelled, isRecorded } = await this.#outcome(callId, name, args);
    const milliseconds = Math.round(performance.now() - began);
    this.#running.delete(callId);
    const isAwaited = this.#awaited.delete(callId);
    this.#change({ callId, name, arguments: args, status: isCancelled ? "cancelled" : status, response });
    if (isAwaited) this.#host.answer({ id: callId, name, response });
    const record = { call_id: callId, name, arguments: args, response, status, milliseconds };
    try {
      if (!isRecorded) await this.#host.api.insist(RECORDING_SECONDS, "POST", "/tool-calls", record);
    } catch (error) {
      this.#host.onError(callError(error, "api_unavailable", true));
    } finally {
      this.#recording.delete(callId);
    }
  }

  // Runs a function; it gets an answer in any case, because the agent waits for it.
  async #outcome(callId: string, name: string, args: JsonObject) {
    const controller = new AbortController();
    const { signal } = controller;
    const isOnServer = this.#host.runsOnServer(name);
    const run = isOnServer ? undefined : this.#host.handlers.get(name);
    this.#running.set(callId, controller);
    const late = new AbortController();
    const stopped = new Promise<Outcome>((resolve) => {
      signal.addEventListener("abort", () => resolve(failed("The call was canceled.")));
      void sleep(this.#host.seconds, late.signal).then(() => {
        if (late.signal.aborted) return;
        resolve({ status: "timeout", response: { error: "This takes too long." } });
        controller.abort();
      });
    });
    const work = isOnServer
      ? this.#runOnServer(callId, name, args, signal)
      : this.#runHere(run, callId, name, args, signal);
    const outcome = await Promise.race([work, stopped]);
    late.abort();
    const isCancelled = signal.aborted && outcome.status === "failed";
    return { ...outcome, isCancelled, isRecorded: isOnServer };
  }

  async #runHere(
    run: Run | undefined,
    callId: string,
    name: string,
    args: JsonObject,
    signal: AbortSignal,
  ): Promise<Outcome> {
    if (name === HANG_UP) return { status: "succeeded", response: { result: "The call ends after your sentence." } };
    if (!run) return failed(`This page has no function ${name}.`);
    try {
      return { status: "succeeded", response: jsonObject(await run(args, callId, signal)) };
    } catch (error) {
      if (!signal.aborted) reportError(error); // for the page's developer; Gemini does not get to know the reason
      return failed("This did not work.");
    }
  }

  async #runOnServer(callId: string, name: string, args: JsonObject, signal: AbortSignal): Promise<Outcome> {
    const request = { call_id: callId, name, arguments: args };
    try {
      const { data } = await this.#host.api.insist<{ data: Outcome }>(
        this.#host.seconds,
        "POST",
        "/tool-calls",
        request,
        { signal },
      );
      return { status: data.status, response: jsonObject(data.response) };
    } catch (error) {
      if (!signal.aborted) this.#host.onError(callError(error, "api_unavailable", true));
      return failed("This did not work.");
    }
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
