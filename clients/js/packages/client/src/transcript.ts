// The transcript of a call, assembled from the messages of Gemini Live; the rules are in docs/client.md.
//
// Pass all messages of all connections to `take`, and what the caller types to `typed`, in order. Then `turns` are the
// turns so far, of which the first `settled` ones can no longer change.

import type { ServerContent, ServerMessage, Turn } from "./types.js";

// Thai to Myanmar, Khmer, CJK with its punctuation, full-width forms: scripts that put no space between words.
const UNSPACED =
  "[\u0e00-\u109f\u1780-\u17ff\u3000-\u30ff\u3100-\u312f\u31a0-\ua4cf\uf900-\ufaff\uff00-\uff9f\u{20000}-\u{3ffff}]";
const ATTACHED_TO_THE_RIGHT = new RegExp(`(${UNSPACED}|[\\s\\p{Ps}\\p{Pi}¿¡])$`, "u");
const ATTACHED_TO_THE_LEFT = new RegExp(`^(${UNSPACED}|[\\s\\p{Pe}\\p{Pf}]|(?!["¿¡&@#*/\\\\])\\p{Po})`, "u");
const SENTENCE_END = /[.!?\u2026\u3002\uff01\uff1f\uff61\u061f\u0964]["')\u2019\u201d\u00bb\u300d\u300f]*\s*$/;
const REST_OF_WORD = new RegExp(`^(?:(?!${UNSPACED})\\S)*`, "u");
const LONGEST_TURN = 20_000; // the API's limit

interface Part {
  role: Turn["role"];
  pieces: string[]; // utterances of the caller, fragments of the agent
  start: number;
  end: number;
  isOpen: boolean;
  isHeard: boolean; // a caller's turn with an utterance
  share: number; // of an agent's turn that was heard
  text: string | undefined; // of the pieces, once it was asked for
}

/** Assembles the turns of a call. */
export class Transcript {
  readonly #earlier: readonly Turn[];
  readonly #parts: Part[] = [];
  readonly #isIdleTheEnd: boolean;
  readonly #clock: (() => number) | undefined;
  #agents: Part | undefined; // the agent's latest turn, which may still get late text
  #agentTurns = 0;
  #isCut = false;
  #turns: readonly Turn[] | undefined;

  /**
   * @param clock returns the milliseconds since the call began; without it, turns have no times
   * @param earlier the turns before a reload of the page
   */
  constructor(turnEndsAt = "turnComplete", clock?: () => number, earlier: readonly Turn[] = []) {
    this.#isIdleTheEnd = turnEndsAt === "idle";
    this.#clock = clock;
    this.#earlier = earlier;
  }

  /** The turns with text, as the API takes them; a new array after each change. */
  get turns(): readonly Turn[] {
    this.#turns ??= [...this.#earlier, ...this.#parts.filter(textOf).map((part) => this.#turnOf(part))];
    return this.#turns;
  }

  /** How many of `turns`, from the first on, can no longer change. */
  get settled(): number {
    const open = this.#parts.findIndex((part) => part.isOpen || part === this.#agents);
    const settled = open < 0 ? this.#parts : this.#parts.slice(0, open);
    return this.#earlier.length + settled.filter(textOf).length;
  }

  /** Whether a turn of the agent has begun and not ended. */
  get agentSpeaks(): boolean {
    return Boolean(this.#agents?.isOpen);
  }

  /** How many turns of the agent have begun. */
  get agentTurns(): number {
    return this.#agentTurns;
  }

  /** Takes a message of Gemini; returns whether it ends a turn of the agent that was not interrupted. */
  take(message: ServerMessage): boolean {
    const content = message.serverContent ?? {};
    const heard = content.inputTranscription?.text ?? "";
    if (message.setupComplete) {
      this.#endAgentsTurn(); // a new connection: nothing of the last turn can follow
      this.#agents = undefined;
    }
    if (content.modelTurn && !this.agentSpeaks) this.#beginAgentsTurn();
    if (!content.interrupted) this.#hear(heard);
    this.#say(content.outputTranscription?.text ?? "");
    if (content.interrupted) {
      this.#endAgentsTurn();
      this.#isCut = true;
      this.#hear(heard);
    }
    if (this.#isEnd(message, content)) return this.#endTurn();
    if (content.turnComplete) this.#agents?.pieces.push(""); // the turn goes on, after thinking
    return false;
  }

  /** Adds what the caller types. */
  typed(text: string): void {
    if (!text.trim()) return;
    const last = this.#parts.at(-1);
    const part = last?.role === "user" && last.isOpen ? last : this.#insert(this.#parts.length, "user");
    part.pieces.push(text);
    this.#change(part);
  }

  /** Shortens the agent's latest turn to the share of its sound that was heard; late text counts to the whole. */
  cutAgentsTurn(share: number): void {
    if (!this.#agents) return;
    this.#agents.share = share;
    this.#change(this.#agents);
  }

  /** Settles all turns, because the conversation cannot be resumed. */
  close(): void {
    this.#agents = undefined;
    for (const part of this.#parts) part.isOpen = false;
  }

  // Adds an utterance: before the agent's turn if it has begun, because it is the one that the agent answers.
  #hear(words: string): void {
    const text = words.trim();
    if (!text) return;
    const agents = this.agentSpeaks ? this.#agents : undefined;
    const at = agents ? this.#parts.indexOf(agents) : this.#parts.length;
    const limit = agents ? agents.start : this.#now();
    const before = this.#parts[at - 1];
    const part = before?.role === "user" && before.isOpen ? before : this.#insert(at, "user");
    part.isHeard = true;
    if (part.pieces.includes(text)) return; // Gemini sometimes sends an utterance twice
    part.pieces.push(text);
    part.start = Math.min(part.start, limit);
    part.end = Math.min(this.#now(), limit);
    this.#change(part);
  }

  #beginAgentsTurn(): Part {
    const part = this.#insert(this.#parts.length, "agent");
    part.pieces.push("");
    this.#agents = part;
    this.#agentTurns++;
    this.#isCut = false;
    return part;
  }

  // Adds a fragment to the agent's last turn, unless the caller was heard after its last sentence.
  #say(text: string): void {
    if (!text) return;
    const isAnswered = !this.agentSpeaks && this.#parts.at(-1)?.isHeard;
    const isNext = !this.#agents || (isAnswered && SENTENCE_END.test(wholeTextOf(this.#agents)));
    const part = isNext || !this.#agents ? this.#beginAgentsTurn() : this.#agents;
    part.pieces[part.pieces.length - 1] += text;
    if (part.isOpen) part.end = this.#now();
    this.#change(part);
  }

  #change(part: Part): void {
    part.text = undefined;
    this.#turns = undefined;
  }

  #isEnd(message: ServerMessage, content: ServerContent): boolean {
    const status = message.interactionStatus ?? content.interactionStatus ?? "";
    return this.#isIdleTheEnd ? /IDLE\W*$/.test(JSON.stringify(status)) : Boolean(content.turnComplete);
  }

  // Ends the agent's turn; without one, the caller's, who got no answer.
  #endTurn(): boolean {
    const isLate = this.#isCut; // the interruption has ended the turn already
    this.#isCut = false;
    if (this.agentSpeaks) this.#endAgentsTurn();
    else if (!isLate) for (const part of this.#parts) part.isOpen = false;
    return !isLate;
  }

  // Ends the agent's turn, and the caller's before it.
  #endAgentsTurn(): void {
    if (!this.#agents?.isOpen) return;
    this.#agents.end = this.#now();
    for (const part of this.#parts.slice(0, this.#parts.indexOf(this.#agents) + 1)) part.isOpen = false;
    this.#turns = undefined;
  }

  #insert(at: number, role: Turn["role"]): Part {
    const now = this.#now();
    const part = { role, pieces: [], start: now, end: now, isOpen: true, isHeard: false, share: 1, text: undefined };
    this.#parts.splice(at, 0, part);
    return part;
  }

  #turnOf(part: Part): Turn {
    const times = this.#clock ? { start_ms: part.start, end_ms: part.end } : {};
    return { role: part.role, text: textOf(part).slice(0, LONGEST_TURN), ...times };
  }

  #now(): number {
    return this.#clock ? Math.round(this.#clock()) : 0;
  }
}

const wholeTextOf = (part: Part): string => part.pieces.reduce(join, "").trim();

// A message of audio changes no text, and there are many of them.
const textOf = (part: Part): string => {
  part.text ??= heardTextOf(part);
  return part.text;
};

// The text of a turn, as far as it was heard; a word counts if it was begun.
function heardTextOf(part: Part): string {
  const text = wholeTextOf(part);
  if (part.share >= 1) return text;
  const end = Math.round(text.length * part.share);
  const heard = text.slice(0, end);
  const rest = /\S$/.test(heard) ? REST_OF_WORD.exec(text.slice(end))?.[0] : "";
  return (heard + rest).trim();
}

// Joins two utterances, with a space where the language puts one.
function join(left: string, right: string): string {
  const isAttached = !left || !right || ATTACHED_TO_THE_RIGHT.test(left) || ATTACHED_TO_THE_LEFT.test(right);
  return isAttached ? left + right : `${left} ${right}`;
}
