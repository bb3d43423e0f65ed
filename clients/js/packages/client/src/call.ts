import type { SessionApi } from "./api.js";
import type { CallAudio } from "./audio.js";
import { complete, newKey } from "./completion.js";
import { Conversation } from "./conversation.js";
import { Emitter } from "./emitter.js";
import { CallError, callError } from "./errors.js";
import type { LiveKitModule } from "./livekit.js";
import { forget, type StoredCall, store } from "./persistence.js";
import { Saver } from "./saver.js";
import { SpeechEnd } from "./speech-end.js";
import { SpokenAudio } from "./spoken-audio.js";
import { atMost, sleep } from "./timing.js";
import { type Run, Tools } from "./tools.js";
import { Transcript } from "./transcript.js";
import type {
  CallEvents,
  CallState,
  CompletedSession,
  GeminiLiveConnection,
  MicrophoneControl,
  RenewedSession,
  ResumeCallOptions,
  ServerMessage,
  SessionConnection,
  SpeakerControl,
  ToolCall,
  Turn,
} from "./types.js";
import { addUsage, type Usage } from "./usage.js";

const TOOL_SECONDS = 20;
const THINKING_SECONDS = 10; // the longest time that the state is `thinking` without a function that runs
const GESTURE_SECONDS = 1; // a browser that may play sound begins within this time
const LATE_SECONDS = 1; // text may arrive this long after the end of the call
const GOODBYE_SECONDS = 4; // the agent may still begin to speak this long after it has called hang_up
const RECORD_SECONDS = 3; // before a conversation begins anew, for functions and their records
const FINISH_SECONDS = 10; // at the end of the call, for functions, records and usage
const RENEW_SECONDS = 45;
const USAGE_SECONDS = 30;
const REASON = /^[a-z][a-z0-9_.-]{0,79}$/;

/** What a call is made of. */
export interface CallParts {
  sessionId: string;
  api: SessionApi;
  connection: SessionConnection;
  options: ResumeCallOptions;
  audio: CallAudio | undefined;
  /** Whether to store what `resumeCall` needs. */
  isStored: boolean;
  /** Whether to complete the session if the call fails, because nobody else knows of it. */
  isOwner: boolean;
  /** Gives the call back to other pages. */
  release: () => void;
  /** When the call began, and when its time is over, in milliseconds since 1970; `beganAt` may be yet to come. */
  beganAt: number | null;
  endsAt: number | null;
  maxSeconds: number | null;
  /** What was said before a reload of the page, and how many turns of it the API has. */
  turns: readonly Turn[];
  savedTurns: number;
  usage: Usage;
  /** Why the call has ended already, and the request that completes it. */
  endReason?: string | undefined;
  ending?: StoredCall["ending"];
}

/** A call between the person in front of the page and an agent. */
export class Call {
  readonly sessionId: string;
  /** The completed session with its `results`; rejects with a CallError. */
  readonly results: Promise<CompletedSession>;
  readonly mic: MicrophoneControl;
  readonly speaker: SpeakerControl;

  readonly #parts: CallParts;
  readonly #api: SessionApi;
  readonly #audio: CallAudio | undefined;
  readonly #transcript: Transcript;
  readonly #conversation: Conversation;
  readonly #tools: Tools;
  readonly #saver: Saver;
  readonly #usage: Usage;
  readonly #emitter = new Emitter<CallEvents>();
  readonly #speechEnd = new SpeechEnd();
  readonly #over = new AbortController();
  readonly #ready = deferred<void>();
  readonly #completed = deferred<CompletedSession>();
  #live: GeminiLiveConnection;
  #state: CallState = "connecting";
  #reason: string | null = null;
  #error: CallError | null = null;
  #turns: readonly Turn[];
  #toolCalls: readonly ToolCall[] = [];
  #agentTurns = 0;
  #beganAt: number;
  #offset = 0; // from the page's clock to the call's
  #storedTurns = -1;
  #endsAt: number | null;
  #ending: StoredCall["ending"];
  #wasSetUp = false;
  #thinking: ReturnType<typeof setTimeout> | undefined;
  #goodbye: AbortController | undefined;
  #usageAt = performance.now();
  #leaveRoom: (() => Promise<void>) | undefined;

  /** @internal */
  constructor(parts: CallParts) {
    this.#parts = parts;
    this.sessionId = parts.sessionId;
    this.#api = parts.api;
    this.#audio = parts.audio;
    this.#live = parts.connection.gemini_live;
    this.#beganAt = parts.beganAt ?? Date.now();
    this.#endsAt = parts.endsAt;
    this.#usage = parts.usage;
    this.#turns = parts.turns;
    this.#ending = parts.ending;
    this.#offset = Date.now() - this.#beganAt - performance.now();
    const clock = () => Math.max(performance.now() + this.#offset, 0);
    this.#transcript = new Transcript(this.#live.turn_ends_at, clock, parts.turns);
    const spoken = this.#audio?.spoken ?? new SpokenAudio();
    this.#conversation = new Conversation(this.#live, this.#transcript, spoken, (hasHandle) => this.#renew(hasHandle), {
      onSetUp: (isResumed) => this.#onSetUp(isResumed),
      onLost: () => this.#update(),
      onMessage: (message, isTurnEnd) => this.#onMessage(message, isTurnEnd),
    });
    this.#saver = new Saver(
      this.#api,
      this.#transcript,
      parts.savedTurns,
      () => this.#end("stopped"),
      (error) => (error.code === "transcript_taken_over" ? this.#fail(error) : this.#survive(error)),
    );
    this.#tools = new Tools({
      api: this.#api,
      handlers: this.#handlers(),
      seconds: parts.options.toolTimeoutSeconds ?? TOOL_SECONDS,
      runsOnServer: (name) => this.#conversation.tools.some((tool) => tool.name === name && tool.where === "server"),
      answer: (response) => this.#conversation.answer(response),
      onChange: (calls) => {
        this.#toolCalls = calls;
        this.#emitter.emit("toolCalls", calls);
        this.#update();
      },
      onError: (error) => this.#survive(error),
    });
    this.results = this.#completed.promise;
    this.results.catch(() => {}); // also an event, so that nobody has to wait for it
    this.#ready.promise.catch(() => {});
    this.mic = this.#audio?.microphone ?? { ...NO_AUDIO };
    this.speaker = this.#audio?.playback ?? { ...NO_AUDIO };
    if (this.#audio)
      this.#audio.listener = {
        onSpoken: (level) => this.#onSpoken(level),
        onMuted: (isMuted) => isMuted && this.#conversation.pause(),
        onError: (error) => this.#survive(error),
        onChange: () => this.#update(),
        onDevices: (devices) => this.#emitter.emit("devices", devices),
      };
    globalThis.addEventListener?.("pagehide", this.#onPageHide);
    parts.options.signal?.addEventListener("abort", this.#onAbort);
  }

  get state(): CallState {
    return this.#state;
  }

  /** Why the call has ended or failed: the API's `end_reason`, or the code of the error. */
  get reason(): string | null {
    return this.#reason;
  }

  /** The latest error. */
  get error(): CallError | null {
    return this.#error;
  }

  /** The conversation so far; a new array after each change. */
  get turns(): readonly Turn[] {
    return this.#turns;
  }

  /** The functions that the agent has called; a new array after each change. */
  get toolCalls(): readonly ToolCall[] {
    return this.#toolCalls;
  }

  /** Seconds until the call's time limit; null: it has none. */
  get secondsLeft(): number | null {
    if (this.#endsAt === null) return this.#parts.maxSeconds; // it begins with the first connection
    return Math.max(0, (this.#endsAt - Date.now()) / 1000);
  }

  /** Calls a listener at each event; returns how to stop that. */
  on<E extends keyof CallEvents>(event: E, listener: (value: CallEvents[E]) => void): () => void {
    return this.#emitter.on(event, listener);
  }

  /** Says typed words of the caller to the agent, who answers them. */
  say(text: string): void {
    if (this.#isOver || !text.trim()) return;
    this.#conversation.say(text);
    this.#think(true);
    this.#update();
  }

  /** Tells the agent something that it should know and not answer; it is not in the transcript. */
  tell(text: string): void {
    if (!this.#isOver && text.trim()) this.#conversation.tell(text);
  }

  /** Ends the call, and saves and completes it; resolves once that is done, also if it has failed. */
  async hangUp(reason?: string): Promise<void> {
    const why = typeof reason === "string" ? reason : "completed"; // a page may pass an event of a click
    if (!REASON.test(why)) throw new CallError("invalid_options", { message: `"${why}" is no reason of the API.` });
    this.#end(why);
    await this.results.catch(() => {});
  }

  /** Lets the browser play sound; call it in a gesture, when the state is `needs_gesture`. */
  async resumeAudio(): Promise<void> {
    await this.#audio?.unlock();
    this.#update();
  }

  // ---- The course of the call ----

  /**
   * Begins the call; resolves once it is set up, or once the browser waits for a gesture.
   * @internal
   */
  async begin(): Promise<void> {
    const { endReason, options } = this.#parts;
    if (endReason) return this.#end(endReason);
    if (options.signal?.aborted) this.#end("completed");
    else void this.#hold();
    await this.#ready.promise;
  }

  async #hold(): Promise<void> {
    try {
      await this.#gesture();
      if (this.#isOver) return;
      const { maxSeconds, beganAt, options } = this.#parts;
      if (beganAt === null && !this.#turns.length) {
        this.#beganAt = Date.now();
        this.#offset = -performance.now();
      }
      if (maxSeconds !== null) this.#endsAt ??= Date.now() + maxSeconds * 1000;
      if (this.#endsAt !== null) void this.#limit(this.#endsAt);
      this.#store();
      if (options.livekit === "required") await this.#join();
      else void this.#join();
      if (!this.#isOver) await this.#conversation.run();
      this.#end("disconnected");
    } catch (error) {
      this.#fail(callError(error, "gemini_unreachable"));
    }
  }

  // Waits until the browser plays sound: an agent that greets nobody would have to greet twice.
  async #gesture(): Promise<void> {
    const allowed = async () => {
      while (this.#audio?.isBlocked && !this.#isOver) await this.#changed();
    };
    const waiting = allowed();
    await atMost(GESTURE_SECONDS, waiting);
    if (this.#audio?.isBlocked) {
      this.#isBlocked = true;
      this.#update();
      this.#ready.resolve();
      await waiting;
    }
  }

  async #limit(endsAt: number): Promise<void> {
    await sleep((endsAt - Date.now()) / 1000, this.#over.signal);
    this.#end("client_timer");
  }

  #onSetUp(isResumed: boolean): void {
    if (!isResumed) this.#tools.forget();
    if (!this.#wasSetUp) this.#think(true);
    this.#wasSetUp = true;
    this.#ready.resolve();
    this.#update();
  }

  #onMessage(message: ServerMessage, isTurnEnd: boolean): void {
    if (this.#transcript.agentTurns > this.#agentTurns) this.#audio?.playback?.beginTurn();
    this.#agentTurns = this.#transcript.agentTurns;
    const content = message.serverContent ?? {};
    if (content.interrupted) {
      const share = this.#audio?.playback?.clear() ?? 1;
      if (share < 1) this.#transcript.cutAgentsTurn(share);
    }
    if (!this.#isOver)
      for (const { inlineData } of content.modelTurn?.parts ?? [])
        if (inlineData?.data) this.#audio?.playback?.play(inlineData.data);
    if (content.modelTurn || isTurnEnd) this.#think(false);
    else if (content.inputTranscription?.text && !this.#transcript.agentSpeaks) this.#think(!content.interrupted);
    if (addUsage(this.#usage, message) && performance.now() - this.#usageAt >= USAGE_SECONDS * 1000)
      this.#reportUsage();
    if (!this.#isOver) this.#takeToolCalls(message, isTurnEnd);
    this.#saver.save();
    if (this.#transcript.settled > this.#storedTurns) this.#store();
    this.#update();
  }

  #onSpoken(level: number): void {
    this.#conversation.speak();
    const heard = this.#speechEnd.take(level);
    if (!heard || this.#state === "speaking") return;
    this.#think(heard === "ended");
    this.#update();
  }

  // Runs the functions that the agent calls; after `hang_up` its sentence may go on, or begin.
  #takeToolCalls(message: ServerMessage, isTurnEnd: boolean): void {
    const before = this.#tools.hangUp;
    this.#tools.take(message);
    const { hangUp } = this.#tools;
    if (!hangUp || (!isTurnEnd && hangUp === before)) return;
    this.#goodbye?.abort();
    this.#goodbye = new AbortController();
    void this.#hangUpAfter(isTurnEnd ? 0 : GOODBYE_SECONDS, this.#goodbye.signal);
  }

  // Hangs up after the agent's sentence was played, unless the agent speaks or was interrupted by then.
  async #hangUpAfter(seconds: number, signal: AbortSignal): Promise<void> {
    await sleep(seconds, signal);
    if (!signal.aborted) await this.#audio?.playback?.finished();
    if (!signal.aborted && this.#tools.hangUp && !this.#transcript.agentSpeaks) this.#end("agent_hung_up");
  }

  #handlers(): ReadonlyMap<string, Run> {
    const handlers = Object.entries(this.#parts.options.tools ?? {});
    return new Map(
      handlers.map(([name, handler]) => [
        name,
        (args, callId, signal) => handler(args, { signal, callId, call: this }),
      ]),
    );
  }

  // ---- LiveKit ----

  async #join(): Promise<void> {
    const { options, connection } = this.#parts;
    if (!options.livekit) return;
    try {
      if (!connection.livekit) throw new CallError("livekit_failed", { message: "The session has no LiveKit room." });
      const tracks = { caller: this.#audio?.microphone.track, agent: this.#audio?.playback?.track };
      const [module, { joinRoom }] = await Promise.all([loaded(options.livekit), import("./livekit.js")]);
      const leave = await joinRoom(module, connection.livekit, tracks, {
        onStopped: () => this.#end("stopped"),
        onLost: (reason) => {
          this.#survive(livekitError(`reason ${reason}`));
          if (options.livekit === "required") this.#end("disconnected");
        },
      });
      if (this.#isOver) await leave();
      else this.#leaveRoom = leave;
    } catch (error) {
      // LiveKit's own error may name the URL with its token.
      const failure = error instanceof CallError ? error : livekitError((error as Error).name);
      if (options.livekit === "required") throw failure;
      this.#survive(failure);
    }
  }

  // ---- The API ----

  async #renew(hasHandle: boolean): Promise<GeminiLiveConnection | null> {
    if (!hasHandle) {
      await this.#saver.saveAll(); // the agent continues from the saved turns and the recorded calls
      await this.#tools.recorded(RECORD_SECONDS);
    }
    try {
      const body = { has_resumption_handle: hasHandle };
      const { data } = await this.#api.insist<{ data: RenewedSession }>(RENEW_SECONDS, "POST", "/renew", body, {
        signal: this.#over.signal,
      });
      this.#api.token = data.client_token;
      this.#live = data.connection.gemini_live;
      this.#store();
    } catch (error) {
      const failure = callError(error, "api_unavailable", true);
      if (failure.code !== "aborted") this.#survive(failure);
      if (!failure.retryable) return null;
    }
    return this.#live;
  }

  #reportUsage(): void {
    this.#usageAt = performance.now();
    this.#api.ask("POST", "/usage", this.#usage).catch((error) => this.#survive(error));
  }

  #store(): void {
    if (!this.#parts.isStored) return;
    this.#storedTurns = this.#transcript.settled;
    store({
      sessionId: this.sessionId,
      clientToken: this.#api.token,
      beganAt: this.#beganAt,
      endsAt: this.#endsAt,
      turns: this.#transcript.turns,
      ...(this.#isOver && this.#reason && { endReason: this.#reason }),
      ...(this.#ending && { ending: this.#ending }),
    });
  }

  readonly #onPageHide = (event: PageTransitionEvent): void => {
    if (this.#isOver) return;
    this.#saver.leave();
    this.#store();
    const { turns } = this.#transcript;
    const keepalive = { keepalive: true };
    // The page is gone, so there is nobody to hear of an error.
    if (Object.keys(this.#usage).length) this.#api.ask("POST", "/usage", this.#usage, keepalive).catch(() => {});
    if (this.#parts.isStored || event.persisted || !this.#saver.isWhole) return;
    const request = { transcript: turns, duration_seconds: this.#seconds, end_reason: "page_closed" };
    this.#api.ask("POST", "/complete", request, { ...keepalive, key: newKey() }).catch(() => {});
  };

  readonly #onAbort = (): void => this.#end("completed");

  // ---- The end ----

  get #isOver(): boolean {
    return this.#over.signal.aborted;
  }

  get #seconds(): number {
    return (Date.now() - this.#beganAt) / 1000;
  }

  // Ends the call; the first reason counts.
  #end(reason: string): void {
    if (this.#isOver) return;
    this.#reason = reason;
    const isConnected = this.#conversation.isConnected;
    this.#close();
    this.#store();
    void this.#finish(reason, isConnected).then(
      (session) => {
        this.#reason = session.end_reason ?? reason;
        this.#emitter.emit("results", session);
        this.#completed.resolve(session);
        this.#update();
      },
      (error) => {
        const failure = callError(error, "api_unavailable");
        if (!failure.retryable) this.#release(); // after a reload it would fail again
        this.#survive(failure);
        this.#completed.reject(failure);
      },
    );
  }

  async #finish(reason: string, isConnected: boolean): Promise<CompletedSession> {
    const seconds = this.#seconds;
    if (isConnected) await sleep(LATE_SECONDS); // for late text
    this.#conversation.close();
    const hasUsage = Object.keys(this.#usage).length > 0;
    const report = hasUsage && !this.#ending && this.#api.insist(FINISH_SECONDS, "POST", "/usage", this.#usage);
    await Promise.all([
      this.#tools.finish(FINISH_SECONDS),
      atMost(FINISH_SECONDS, Promise.resolve(report)),
      atMost(FINISH_SECONDS, this.#saver.isWhole ? this.#saver.saved() : this.#saver.saveAll()),
    ]);
    this.#transcript.close();
    this.#update();
    const transcript = this.#saver.isWhole ? { transcript: this.#transcript.turns } : {};
    this.#ending ??= {
      key: newKey(),
      request: { ...transcript, duration_seconds: seconds, end_reason: reason },
    };
    this.#store();
    const session = await complete(this.#api, this.#ending);
    this.#release();
    return session;
  }

  // Ends the call without completing it, unless nobody else can.
  #fail(error: CallError): void {
    if (this.#isOver) return;
    this.#reason = error.code;
    this.#hasFailed = true;
    this.#ready.reject(error);
    this.#close();
    this.#conversation.close();
    this.#release();
    if (this.#parts.isOwner && error.code !== "transcript_taken_over") {
      const request = { transcript: this.#transcript.turns, end_reason: error.code };
      // The call has failed for another reason, which the page gets to know.
      complete(this.#api, { key: newKey(), request }).catch(() => {});
    }
    this.#survive(error);
    this.#completed.reject(error);
  }

  #release(): void {
    if (this.#parts.isStored) forget(this.sessionId);
    this.#parts.release();
  }

  #close(): void {
    this.#over.abort();
    this.#goodbye?.abort();
    this.#think(false);
    this.#audio?.close();
    void this.#leaveRoom?.();
    globalThis.removeEventListener?.("pagehide", this.#onPageHide);
    this.#parts.options.signal?.removeEventListener("abort", this.#onAbort);
    this.#update();
    this.#ready.reject(new CallError("aborted"));
  }

  #survive(error: CallError): void {
    this.#error = error;
    this.#emitter.emit("error", error);
  }

  // ---- The state ----

  #hasFailed = false;
  #isBlocked = false; // the browser has not begun to play sound in time
  readonly #waiting = new Set<() => void>();

  #changed(): Promise<void> {
    return new Promise((resolve) => this.#waiting.add(resolve));
  }

  #think(isThinking: boolean): void {
    clearTimeout(this.#thinking);
    this.#thinking = undefined;
    if (!isThinking) return;
    this.#thinking = setTimeout(() => {
      this.#thinking = undefined;
      this.#update();
    }, THINKING_SECONDS * 1000);
  }

  // Tells the page what has changed.
  #update(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
    if (this.#transcript.turns !== this.#turns) {
      this.#turns = this.#transcript.turns;
      this.#emitter.emit("turns", this.#turns);
    }
    const state = this.#stateNow();
    const isNews = state !== this.#state || (this.#isOver && this.#reason !== this.#toldReason);
    if (!isNews) return;
    this.#state = state;
    this.#toldReason = this.#reason;
    this.#emitter.emit("state", { state, reason: this.#reason });
  }

  #toldReason: string | null = null;

  #stateNow(): CallState {
    if (this.#isOver) return this.#hasFailed ? "failed" : "ended";
    if (this.#audio?.isBlocked && (this.#isBlocked || this.#wasSetUp)) return "needs_gesture";
    if (!this.#wasSetUp) return "connecting";
    if (!this.#conversation.isConnected) return "reconnecting";
    if (this.#transcript.agentSpeaks || this.#audio?.playback?.isPlaying) return "speaking";
    return this.#thinking !== undefined || this.#tools.isRunning ? "thinking" : "listening";
  }
}

const NO_AUDIO = {
  muted: false,
  volume: 1,
  level: () => 0,
  devices: async () => [],
  use: async () => {
    throw new CallError("invalid_options", { message: "This call has no audio." });
  },
};

async function loaded(livekit: NonNullable<ResumeCallOptions["livekit"]>): Promise<LiveKitModule> {
  try {
    // Bundlers let it be missing only where the import itself is awaited within `try`.
    return typeof livekit === "function" ? await livekit() : await import("livekit-client");
  } catch (cause) {
    throw new CallError("livekit_missing", { cause });
  }
}

const livekitError = (why: string): CallError =>
  new CallError("livekit_failed", { message: `The LiveKit room cannot be used (${why}).`, retryable: true });

interface Deferred<T> {
  promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

function deferred<T>(): Deferred<T> {
  let resolve: (value: T) => void = () => {};
  let reject: (error: unknown) => void = () => {};
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
