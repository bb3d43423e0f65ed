import { Connection, type End } from "./connection.js";
import { CallError } from "./errors.js";
import { HEARD_RATE } from "./pcm.js";
import type { SpokenAudio } from "./spoken-audio.js";
import { isOffline, online, PAUSES, sleep } from "./timing.js";
import type { Transcript } from "./transcript.js";
import type { ClientMessage, GeminiLiveConnection, ServerMessage } from "./types.js";

// The model does not speak first. A text that is no instruction is sometimes not answered.
const GREET = "The caller is on the line. Open the call now.";
const BACK = "The connection was interrupted and is back.";
const GO_ON = "Go on with the call now, from where it broke off.";
const PROMPT_SECONDS = 4; // without an answer, these texts are sent once more
const PROMPT_WAITS = 5; // at most this often in a row, while the caller seems to speak
const OFFLINE_SECONDS = 60; // to wait for a network before a try
const TOLD_LETTERS = 2_000;
const REFUSED = [1007, 1008]; // a bad token or handle, or an unknown model
const FINAL = [...REFUSED, 1011]; // or the token is used up or expired: renew
const MODEL_GONE = 1008;

/** Gets new tokens for the call; resolves with null if the call is over. */
export type Renew = (hasHandle: boolean) => Promise<GeminiLiveConnection | null>;

/** What a conversation tells its call. */
export interface Listener {
  /** A message, after the transcript has it; `isTurnEnd`: it ends a turn of the agent that was not interrupted. */
  onMessage(message: ServerMessage, isTurnEnd: boolean): void;
  /** A connection was set up; a conversation that is not resumed begins anew, from the saved turns. */
  onSetUp(isResumed: boolean): void;
  onLost(): void;
}

interface Pending {
  message: ClientMessage;
  kind: "text" | "prompt" | "note" | "answer";
}

/** Talks to Gemini over one connection after the other; each lasts about ten minutes. */
export class Conversation {
  readonly #transcript: Transcript;
  readonly #renew: Renew;
  readonly #listener: Listener;
  readonly #over = new AbortController();
  readonly #audio: SpokenAudio;
  #live: GeminiLiveConnection;
  #connection: Connection | undefined;
  #open: Connection | undefined; // set up, so that it takes input
  #handle: string | undefined;
  #unanswered: Pending[] = []; // since Gemini's last content
  #saidSince: string[] = []; // the caller's words that the latest handle may not know
  #knownUntil = 0; // what was recorded before needs not be sent again
  #wasSetUp = false;

  constructor(
    live: GeminiLiveConnection,
    transcript: Transcript,
    audio: SpokenAudio,
    renew: Renew,
    listener: Listener,
  ) {
    this.#live = live;
    this.#audio = audio;
    this.#transcript = transcript;
    this.#renew = renew;
    this.#listener = listener;
  }

  /** Whether there is a connection that is set up. */
  get isConnected(): boolean {
    return Boolean(this.#open) || Boolean(this.#connection?.isLeaving);
  }

  /** The tools of the call. */
  get tools(): NonNullable<GeminiLiveConnection["tools"]> {
    return this.#live.tools ?? [];
  }

  /** Talks until `close`, or until there is no next connection; rejects if nobody has said a word. */
  async run(): Promise<void> {
    let refusals = 0;
    let end: End = { code: 0, wasSetUp: false };
    for (let failures = 0; failures < PAUSES.length; ) {
      await sleep(PAUSES[failures] ?? 0, this.#over.signal);
      await online(OFFLINE_SECONDS, this.#over.signal);
      if (this.#isOver) return;
      end = await this.#connect();
      if (this.#isOver) return;
      const isRefused = !end.wasSetUp && FINAL.includes(end.code);
      refusals = isRefused ? refusals + 1 : 0;
      if (isRefused && (REFUSED.includes(end.code) || refusals > 1)) this.#handle = undefined;
      if (!this.#wasSetUp && end.code === MODEL_GONE && refusals > 1) break;
      failures = end.wasSetUp && this.#handle ? 0 : failures + 1;
      if (FINAL.includes(end.code) || !this.#handle) {
        const live = await this.#renew(Boolean(this.#handle));
        if (!live) break;
        this.#live = live;
      }
    }
    if (this.#isOver || this.#transcript.turns.length) return;
    throw new CallError(codeOf(end), { retryable: end.code !== MODEL_GONE });
  }

  /** Sends typed words of the caller, as soon as there is a connection. */
  say(text: string): void {
    this.#transcript.typed(text); // Gemini does not transcribe it
    this.#saidSince.push(text);
    this.#sendText({ message: { realtimeInput: { text } }, kind: "text" });
  }

  /** Sends words that the agent should know and not answer. */
  tell(text: string): void {
    // This model takes no other content than realtimeInput during a call, and answers it.
    const isTextAnswered = /gemini-3\.1-/.test(this.#live.model);
    const note = `For your information only. Do not answer this and do not mention it: ${text}`;
    const message = isTextAnswered
      ? { realtimeInput: { text: note } }
      : { clientContent: { turns: [{ role: "user", parts: [{ text }] }], turnComplete: false } };
    this.#sendText({ message, kind: "note" });
  }

  /** Sends what the microphone has recorded, if there is a connection. */
  speak(): void {
    if (this.#open) this.#sendAudio(this.#open);
  }

  /** Says that the microphone pauses. */
  pause(): void {
    this.#open?.send({ realtimeInput: { audioStreamEnd: true } });
  }

  /** Answers a function call; without a connection, as soon as the conversation is resumed. */
  answer(functionResponse: { id: string; name: string; response: object }): void {
    const speaks = this.tools.find(({ name }) => name === functionResponse.name)?.speaks;
    const scheduling = speaks ? { scheduling: speaks.toUpperCase() } : {};
    const message = { toolResponse: { functionResponses: [{ ...functionResponse, ...scheduling }] } };
    this.#sendText({ message, kind: "answer" });
  }

  /** Ends the conversation. */
  close(): void {
    this.#over.abort();
    this.#connection?.close();
  }

  get #isOver(): boolean {
    return this.#over.signal.aborted;
  }

  async #connect(): Promise<End> {
    const handle = this.#handle;
    const prompting = new AbortController();
    const connection: Connection = new Connection(this.#live, handle, (message) => {
      if (message.setupComplete) void this.#begin(connection, Boolean(handle), prompting.signal);
      else this.#take(connection, message);
    });
    this.#connection = connection;
    const end = await connection.ended;
    prompting.abort();
    this.#connection = this.#open = undefined;
    this.#audio.rewind(this.#knownUntil);
    this.#listener.onLost();
    return end;
  }

  // Makes the agent speak if it is its turn, and sends what was held back.
  async #begin(connection: Connection, isResumed: boolean, signal: AbortSignal): Promise<void> {
    const { turns, agentSpeaks } = this.#transcript;
    const isAgentsTurn = agentSpeaks || turns.at(-1)?.role === "user";
    this.#transcript.take({ setupComplete: {} });
    this.#handle = undefined; // a handle is valid for one connection
    this.#wasSetUp = true;
    if (!isResumed) this.#unanswered = this.#unanswered.filter(({ kind }) => kind !== "answer");
    const isPrompted = this.#unanswered.some(({ kind }) => kind === "text" || kind === "prompt");
    if (!isPrompted && (isAgentsTurn || !isResumed)) {
      const text = turns.length ? this.#goOn(isResumed) : GREET;
      this.#unanswered.push({ message: { realtimeInput: { text } }, kind: "prompt" });
    }
    const isSpokenTo = this.#audio.hasSpeech; // then the agent answers this, and needs no prompt
    for (const { message, kind } of this.#unanswered) if (kind !== "prompt" || !isSpokenTo) connection.send(message);
    this.#open = connection;
    this.#sendAudio(connection);
    this.#listener.onSetUp(isResumed);
    for (let wait = 0; wait < PROMPT_WAITS; wait++) {
      const since = performance.now();
      await sleep(PROMPT_SECONDS, signal);
      if (!this.#audio.wasLoudAfter(since)) break; // a prompt would cut off what the caller says
    }
    if (signal.aborted || connection !== this.#open) return;
    for (const { message, kind } of this.#unanswered) if (kind === "prompt") connection.send(message);
  }

  // The state of a handle ends before the turn that was cut off, so the model may not know what it was answering.
  #goOn(isResumed: boolean): string {
    const said = isResumed ? this.#saidSince.join(" ").slice(-TOLD_LETTERS) : "";
    return [BACK, said && `Meanwhile the caller has said: ${JSON.stringify(said)}.`, GO_ON].filter(Boolean).join(" ");
  }

  #take(connection: Connection, message: ServerMessage): void {
    const update = message.sessionResumptionUpdate;
    if (update?.resumable && update.newHandle) {
      this.#handle = update.newHandle; // otherwise the latest handle stays the best one
      this.#saidSince = [];
      this.#knownUntil = performance.now();
    }
    const heard = message.serverContent?.inputTranscription?.text;
    if (heard) {
      this.#saidSince.push(heard);
      this.#knownUntil = performance.now();
    }
    // Without an open connection, this is no answer to what is held back. Some models send an empty content first.
    if (this.#open && Object.keys(message.serverContent ?? {}).length) this.#unanswered = [];
    const isTurnEnd = this.#transcript.take(message);
    if (isTurnEnd && connection.isLeaving) {
      this.#open = undefined; // what the caller says from now on is for the next one
      connection.leave();
    }
    this.#listener.onMessage(message, isTurnEnd);
  }

  #sendText(pending: Pending): void {
    this.#unanswered.push(pending);
    this.#open?.send(pending.message);
  }

  #sendAudio(connection: Connection): void {
    const mimeType = `audio/pcm;rate=${HEARD_RATE}`;
    for (const data of this.#audio.take()) connection.send({ realtimeInput: { audio: { data, mimeType } } });
  }
}

function codeOf({ code, wasSetUp }: End): string {
  if (isOffline()) return "offline";
  if (code === MODEL_GONE && !wasSetUp) return "model_unavailable";
  return FINAL.includes(code) ? "session_expired" : "gemini_unreachable";
}
