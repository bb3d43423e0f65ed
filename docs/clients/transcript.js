// The transcript of a call, assembled from the messages of Gemini Live; the rules are in docs/client.md.
//
// Pass all messages of all connections to `take`, and what the caller types to `typed`, in order. Then `turns` are the
// turns so far, of which the first `settled` ones can no longer change.

// Thai to Myanmar, Khmer, CJK with its punctuation, full-width forms: scripts that put no space between words.
const UNSPACED =
  "[\u0e00-\u109f\u1780-\u17ff\u3000-\u30ff\u3100-\u312f\u31a0-\ua4cf\uf900-\ufaff\uff00-\uff9f\u{20000}-\u{3ffff}]";
const ATTACHED_TO_THE_RIGHT = new RegExp(`(${UNSPACED}|[\\s\\p{Ps}\\p{Pi}¿¡])$`, "u");
const ATTACHED_TO_THE_LEFT = new RegExp(`^(${UNSPACED}|[\\s\\p{Pe}\\p{Pf}]|(?!["¿¡&@#*/\\\\])\\p{Po})`, "u");
const SENTENCE_END = /[.!?\u2026\u3002\uff01\uff1f\uff61\u061f\u0964]["')\u2019\u201d\u00bb\u300d\u300f]*\s*$/;

export class Transcript {
  #turns = []; // {role, pieces, start, end, isOpen, isHeard}: utterances of the caller, fragments of the agent
  #agents; // the agent's latest turn, which may still get late text
  #isCut = false;
  #isIdleTheEnd;
  #clock;

  // `clock` returns the milliseconds since the call began; without it, turns have no times.
  constructor(turnEndsAt = "turnComplete", clock) {
    this.#isIdleTheEnd = turnEndsAt === "idle";
    this.#clock = clock;
  }

  // The turns with text, as `POST /sessions/{session_id}/complete` takes them.
  get turns() {
    const times = ({ start, end }) => (this.#clock ? { start_ms: start, end_ms: end } : {});
    return this.#turns.filter(textOf).map((turn) => ({ role: turn.role, text: textOf(turn), ...times(turn) }));
  }

  // How many of `turns`, from the first on, can no longer change.
  get settled() {
    const open = this.#turns.findIndex((turn) => turn.isOpen || turn === this.#agents);
    return (open < 0 ? this.#turns : this.#turns.slice(0, open)).filter(textOf).length;
  }

  // Whether a turn of the agent has begun and not ended.
  get agentSpeaks() {
    return Boolean(this.#agents?.isOpen);
  }

  // Takes a message of Gemini; returns whether it ends a turn of the agent that was not interrupted.
  take(message) {
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

  // Adds what the caller types.
  typed(text) {
    if (!text.trim()) return;
    const last = this.#turns.at(-1);
    const turn = last?.role === "user" && last.isOpen ? last : this.#insert(this.#turns.length, "user");
    turn.pieces.push(text);
  }

  // Settles all turns, because the conversation cannot be resumed.
  close() {
    this.#agents = undefined;
    for (const turn of this.#turns) turn.isOpen = false;
  }

  // Adds an utterance: before the agent's turn if it has begun, because it is the one that the agent answers.
  #hear(text) {
    text = text.trim();
    if (!text) return;
    const at = this.agentSpeaks ? this.#turns.indexOf(this.#agents) : this.#turns.length;
    const limit = this.agentSpeaks ? this.#agents.start : this.#now();
    const before = this.#turns[at - 1];
    const turn = before?.role === "user" && before.isOpen ? before : this.#insert(at, "user");
    turn.isHeard = true;
    if (turn.pieces.includes(text)) return; // Gemini sometimes sends an utterance twice
    turn.pieces.push(text);
    turn.start = Math.min(turn.start, limit);
    turn.end = Math.min(this.#now(), limit);
  }

  #beginAgentsTurn() {
    this.#agents = this.#insert(this.#turns.length, "agent");
    this.#agents.pieces.push("");
    this.#isCut = false;
  }

  // Adds a fragment to the agent's last turn, unless the caller was heard after its last sentence.
  #say(text) {
    if (!text) return;
    const isAnswered = !this.agentSpeaks && this.#turns.at(-1)?.isHeard;
    if (!this.#agents || (isAnswered && SENTENCE_END.test(textOf(this.#agents)))) this.#beginAgentsTurn();
    this.#agents.pieces[this.#agents.pieces.length - 1] += text;
    if (this.#agents.isOpen) this.#agents.end = this.#now();
  }

  #isEnd(message, content) {
    const status = message.interactionStatus ?? content.interactionStatus ?? "";
    return this.#isIdleTheEnd ? /IDLE\W*$/.test(JSON.stringify(status)) : Boolean(content.turnComplete);
  }

  // Ends the agent's turn; without one, the caller's, who got no answer.
  #endTurn() {
    const isLate = this.#isCut; // the interruption has ended the turn already
    this.#isCut = false;
    if (this.agentSpeaks) this.#endAgentsTurn();
    else if (!isLate) for (const turn of this.#turns) turn.isOpen = false;
    return !isLate;
  }

  // Ends the agent's turn, and the caller's before it.
  #endAgentsTurn() {
    if (!this.agentSpeaks) return;
    this.#agents.end = this.#now();
    for (const turn of this.#turns.slice(0, this.#turns.indexOf(this.#agents) + 1)) turn.isOpen = false;
  }

  #insert(at, role) {
    const turn = { role, pieces: [], start: this.#now(), end: this.#now(), isOpen: true };
    this.#turns.splice(at, 0, turn);
    return turn;
  }

  #now() {
    return this.#clock ? Math.round(this.#clock()) : 0;
  }
}

const textOf = (turn) => turn.pieces.reduce(join, "").trim();

// Joins two utterances, with a space where the language puts one.
function join(left, right) {
  const isAttached = !left || !right || ATTACHED_TO_THE_RIGHT.test(left) || ATTACHED_TO_THE_LEFT.test(right);
  return isAttached ? left + right : `${left} ${right}`;
}
