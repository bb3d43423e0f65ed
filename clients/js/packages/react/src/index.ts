/** The call of a React component: `const { state, turns, start, hangUp } = useCall({ fetchSession, apiUrl })`. */

import {
  type Call,
  type CallError,
  type CallState,
  type CompletedSession,
  resumeCall,
  type StartCallOptions,
  startCall,
  type ToolCall,
  type Turn,
} from "@pi-voice/client";
import { useEffect, useMemo, useState, useSyncExternalStore } from "react";

/** What a component shows of a call; a new object after each change. */
export interface CallView {
  /** The call from the moment it can be used; it has devices, too. */
  call: Call | null;
  /** The state of the call, and `idle` before the first one. */
  state: CallState | "idle";
  /** Why the call ended or failed. */
  reason: string | null;
  /** The latest error, also one that the call survives. */
  error: CallError | null;
  turns: readonly Turn[];
  toolCalls: readonly ToolCall[];
  /** The completed session, once it has its results. */
  results: CompletedSession | null;
  /** Whole seconds until the time limit of the call; null without a limit. */
  secondsLeft: number | null;
}

/** The call of a component, and what the component can do with it. */
export interface CallControls extends CallView {
  /** Start a call; call it in a click. Resolves with null if there is none: `state`, `reason` and `error` say why. */
  start: () => Promise<Call | null>;
  /** Go on with the call of this tab after a reload. Resolves with null if there is none to go on with. */
  resume: () => Promise<Call | null>;
  /** End the call and complete its session. */
  hangUp: (reason?: string) => Promise<void>;
  /** Send typed words of the caller, which the agent answers. */
  say: (text: string) => void;
  /** Send context that the agent does not answer. */
  tell: (text: string) => void;
  /** Let the browser play the agent; call it in a click while the state is `needs_gesture`. */
  resumeAudio: () => Promise<void>;
  mic: { muted: boolean; setMuted: (muted: boolean) => void; level: () => number };
  speaker: {
    muted: boolean;
    setMuted: (muted: boolean) => void;
    volume: number;
    setVolume: (volume: number) => void;
    level: () => number;
  };
}

interface Snapshot extends CallView {
  micMuted: boolean;
  speakerMuted: boolean;
  volume: number;
}

const IDLE: Snapshot = {
  call: null,
  state: "idle",
  reason: null,
  error: null,
  turns: [],
  toolCalls: [],
  results: null,
  secondsLeft: null,
  micMuted: false,
  speakerMuted: false,
  volume: 1,
};
const OVER: readonly string[] = ["idle", "ended", "failed"];

/** Hold at most one call at a time for a component; unmounting it hangs up. */
export function useCall(options: StartCallOptions): CallControls {
  const [store] = useState(() => new CallStore(options));
  const view = useSyncExternalStore(store.subscribe, store.snapshot, () => IDLE);
  useEffect(() => {
    store.options = options;
  });
  useEffect(() => store.mount(), [store]);
  return useMemo(() => {
    const { micMuted, speakerMuted, volume, ...shown } = view;
    const { start, resume, hangUp, setMicMuted, setSpeakerMuted, setVolume } = store;
    return {
      ...shown,
      start,
      resume,
      hangUp,
      say: (text: string) => shown.call?.say(text),
      tell: (text: string) => shown.call?.tell(text),
      resumeAudio: async () => shown.call?.resumeAudio(),
      mic: { muted: micMuted, setMuted: setMicMuted, level: () => shown.call?.mic.level() ?? 0 },
      speaker: {
        muted: speakerMuted,
        setMuted: setSpeakerMuted,
        volume,
        setVolume,
        level: () => shown.call?.speaker.level() ?? 0,
      },
    };
  }, [store, view]);
}

/** The calls of one component, one after the other. */
class CallStore {
  options: StartCallOptions;
  #view = IDLE;
  #listeners = new Set<() => void>();
  #opening: Promise<Call | null> | null = null;
  #leaving = new AbortController();
  #unmounting: ReturnType<typeof setTimeout> | undefined;

  constructor(options: StartCallOptions) {
    this.options = options;
  }

  /** Returns how to unmount. It ends the call a moment later, because strict mode mounts again at once. */
  mount(): () => void {
    clearTimeout(this.#unmounting);
    return () => {
      this.#unmounting = setTimeout(this.leave);
    };
  }

  subscribe = (listener: () => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  snapshot = () => this.#view;

  start = () => this.#open(startCall);

  resume = () => this.#open(resumeCall);

  hangUp = async (reason?: string) => {
    if (this.#view.call) await this.#view.call.hangUp(reason);
    else this.leave();
  };

  /** Ends the call, or what is about to become one. */
  leave = () => this.#leaving.abort();

  setMicMuted = (muted: boolean) => this.#set((call) => (call.mic.muted = muted));

  setSpeakerMuted = (muted: boolean) => this.#set((call) => (call.speaker.muted = muted));

  setVolume = (volume: number) => this.#set((call) => (call.speaker.volume = volume));

  #set(change: (call: Call) => void): void {
    if (!this.#view.call) return;
    change(this.#view.call);
    this.#show({});
  }

  #open(open: (options: StartCallOptions) => Promise<Call | null>): Promise<Call | null> {
    if (!OVER.includes(this.#view.state)) return this.#opening ?? Promise.resolve(this.#view.call);
    this.#leaving = new AbortController();
    this.#view = { ...IDLE, state: "connecting" };
    this.#announce();
    // Without a pause before it, so that the browser still counts the click.
    this.#opening = this.#follow(open({ ...this.options, ...this.#latestTools(), signal: this.#signal() }));
    return this.#opening;
  }

  async #follow(opening: Promise<Call | null>): Promise<Call | null> {
    try {
      const call = await opening;
      if (call) this.#listen(call);
      else this.#show(IDLE);
      return call;
    } catch (thrown) {
      const error = thrown as CallError;
      const isOver = this.#leaving.signal.aborted;
      this.#show({
        state: isOver ? "ended" : "failed",
        reason: error.code ?? "internal_error",
        error: isOver ? null : error,
      });
      return null;
    } finally {
      this.#opening = null;
    }
  }

  #listen(call: Call): void {
    const seconds = setInterval(() => show(), 1_000);
    const show = (change: Partial<Snapshot> = {}) => {
      if (this.#view.call === call) this.#show(change); // the results of a call may arrive during the next one
      if (OVER.includes(call.state)) clearInterval(seconds);
    };
    call.on("state", () => show());
    call.on("turns", () => show());
    call.on("toolCalls", () => show());
    call.on("error", (error) => show({ error }));
    call.on("results", (results) => show({ results }));
    this.#view = { ...this.#view, call };
    show();
  }

  /** Shows what has changed, and the call as it is now. */
  #show(change: Partial<Snapshot>): void {
    const shown = { ...this.#view, ...change };
    const { call } = shown;
    if (call) {
      shown.state = call.state;
      shown.reason = call.reason;
      shown.error = call.error ?? shown.error;
      shown.turns = call.turns;
      shown.toolCalls = call.toolCalls;
      shown.secondsLeft = call.secondsLeft === null ? null : Math.ceil(call.secondsLeft);
      shown.micMuted = call.mic.muted;
      shown.speakerMuted = call.speaker.muted;
      shown.volume = call.speaker.volume;
    }
    const names = Object.keys(shown) as (keyof Snapshot)[];
    if (names.every((name) => Object.is(shown[name], this.#view[name]))) return;
    this.#view = shown;
    this.#announce();
  }

  #announce(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Returns a signal that ends the call when the component leaves, or when the signal of its options does. */
  #signal(): AbortSignal {
    const { signal } = this.options;
    const { signal: mine } = this.#leaving;
    const leave = this.#leaving;
    if (signal?.aborted) leave.abort();
    signal?.addEventListener("abort", () => leave.abort(), { once: true, signal: mine });
    return mine;
  }

  /** Returns tools that run the handlers of the latest render, not those of the render that started the call. */
  #latestTools(): Pick<StartCallOptions, "tools"> {
    const names = Object.keys(this.options.tools ?? {});
    type Handler = NonNullable<StartCallOptions["tools"]>[string];
    const latest =
      (name: string): Handler =>
      (args, context) => {
        const handler = this.options.tools?.[name];
        if (!handler) throw new Error(`There is no tool ${name} any more.`);
        return handler(args, context);
      };
    return names.length ? { tools: Object.fromEntries(names.map((name) => [name, latest(name)])) } : {};
  }
}

export type { Call, CallError, CallState, CompletedSession, StartCallOptions, ToolCall, Turn } from "@pi-voice/client";
