// A reference client for the browser and the Gemini side of a session: it talks, saves the transcript and completes.
//
//     const state = await holdCall(session, baseUrl, reply, play);
//
// `session` is the `data` of the response of `POST /sessions`; its client token opens all routes that this client uses.
// `reply(turns)` is called when the agent has finished a turn, and returns what to send as `realtimeInput`: {text},
// {audio}, or null to hang up. `play(base64)` gets 24 kHz PCM, or null to drop the audio that is not played yet.
// `state` is the completed session, with its results. For a microphone use Call, as `holdCall` does. The LiveKit side is
// one call of livekit-client: `await new Room().connect(livekit.url, livekit.token)`.

import { Transcript } from "./transcript.js";

// The model does not speak first. A text that is no instruction is sometimes not answered.
const GREET = { text: "The caller is on the line. Open the call now." };
const GO_ON = { text: "The connection was interrupted and is back. Go on with the call now, from where it broke off." };
const PROMPT_SECONDS = 4; // without an answer, these texts are sent once more
const LATE_SECONDS = 1; // text may arrive this long after the end of the call
const MOVE_SECONDS = 5; // before Gemini closes a connection, move to the next one
const OPENING_SECONDS = 20;
const CLOSING_SECONDS = 2;
const HELD_AUDIO = 1000; // pieces of microphone audio to hold back while there is no connection: 40 s of 40 ms each
const REFUSED = [1007, 1008]; // a bad token or handle
const FINAL = [...REFUSED, 1011]; // or the token is used up or expired: renew
const NOT_ACTIVE = "voice_session_not_active";
const PAUSES = [0, 1, 2, 4, 8, 16]; // seconds to wait before each try, the first included

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export async function holdCall(session, baseUrl, reply, play = () => {}) {
  const call = new Call(session, baseUrl);
  call.onMessage = ({ serverContent: content = {} }) => {
    if (content.interrupted) play(null);
    for (const part of content.modelTurn?.parts ?? []) if (part.inlineData) play(part.inlineData.data);
  };
  call.onTurn = () => {
    const realtimeInput = reply(call.transcript.turns);
    if (realtimeInput) call.send(realtimeInput);
    else call.hangUp("completed");
  };
  const leave = () => call.saveAll();
  addEventListener("pagehide", leave); // a tab that is closed sends its last turns
  try {
    return await call.complete(await call.hold(session.max_duration_seconds));
  } finally {
    removeEventListener("pagehide", leave);
  }
}

// One call: its transcript, its connections one after the other, and how many turns the API has saved.
export class Call {
  onMessage = () => {}; // called with each message of Gemini
  onTurn = () => {}; // called when the agent has finished a turn that was not interrupted
  savedTurns = 0;
  seconds = 0;
  #began = performance.now();
  #url;
  #clientToken;
  #live;
  #saving;
  #socket; // set up, so that it takes input
  #handle;
  #isLeaving = false; // Gemini closes the connection soon
  #unanswered = []; // texts since Gemini's last content
  #heldAudio = [];
  #endReason;
  #hungUp = Promise.withResolvers();
  #isOver = new AbortController();

  constructor(session, baseUrl) {
    this.#url = `${baseUrl}/api/v1/voice/sessions/${session.session_id}`;
    this.#clientToken = session.client_token;
    this.#live = session.connection.gemini_live;
    this.transcript = new Transcript(this.#live.turn_ends_at, () => performance.now() - this.#began);
  }

  // Talks until someone hangs up or the time is over, and waits for late text; resolves with the end reason.
  async hold(seconds) {
    const timer = seconds && setTimeout(() => this.hangUp("client_timer"), seconds * 1000);
    const talking = this.#talk();
    try {
      const endReason = await Promise.race([talking, this.#hungUp.promise]);
      this.seconds = (performance.now() - this.#began) / 1000;
      if (this.#endReason) await Promise.race([talking.catch(() => {}), sleep(LATE_SECONDS)]);
      return this.#endReason ?? endReason;
    } finally {
      clearTimeout(timer);
      this.#isOver.abort(); // closes the connection
    }
  }

  // Ends the call; the first reason counts.
  hangUp(endReason) {
    this.#endReason ??= endReason;
    this.#hungUp.resolve();
  }

  // Sends audio or text of the caller. Without a connection, text is sent as soon as there is one, and the latest
  // pieces of audio.
  send(realtimeInput) {
    if (realtimeInput.text) {
      this.transcript.typed(realtimeInput.text); // Gemini does not transcribe it
      this.#unanswered.push(realtimeInput);
    }
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ realtimeInput }));
    else if (!realtimeInput.text) this.#heldAudio = [...this.#heldAudio, realtimeInput].slice(-HELD_AUDIO);
  }

  // ---- Connections ----

  // Talks over one connection after the other (each lasts about ten minutes), until there is no next one.
  async #talk() {
    let refusals = 0;
    let code;
    for (let failures = 0; failures < PAUSES.length; ) {
      await sleep(PAUSES[failures]);
      if (this.#isOver.signal.aborted) return;
      const end = await this.#connect();
      code = end.code;
      refusals = end.wasSetUp ? 0 : refusals + FINAL.includes(code);
      // A refused handle: start anew, with the saved turns.
      if (!end.wasSetUp && (REFUSED.includes(code) || refusals > 1)) this.#handle = undefined;
      failures = end.wasSetUp && this.#handle ? 0 : failures + 1;
      if (this.#isOver.signal.aborted) return;
      if ((FINAL.includes(code) || !this.#handle) && (await this.#renew()) === NOT_ACTIVE) break;
    }
    if (!this.transcript.turns.length) throw new Error(`There is no connection to Gemini (close code ${code}).`);
    return "disconnected";
  }

  // Talks over one connection; resolves once it is closed, with Gemini's close code and whether it was set up.
  async #connect() {
    const socket = new WebSocket(`${this.#live.url}?access_token=${this.#live.token}`);
    const resumption = this.#handle ? { handle: this.#handle } : {};
    const ended = Promise.withResolvers();
    let wasSetUp = false;
    this.#isLeaving = false;
    const timers = [];
    const after = (seconds, work) => timers.push(setTimeout(work, seconds * 1000));
    const close = () => {
      socket.close();
      after(CLOSING_SECONDS, () => ended.resolve({})); // a lost connection does not answer
    };
    after(OPENING_SECONDS, () => wasSetUp || close());
    this.#isOver.signal.addEventListener("abort", close);

    const take = (message) => {
      if (message.setupComplete) {
        wasSetUp = true;
        this.#begin(socket, Boolean(resumption.handle));
        after(PROMPT_SECONDS, () => this.#repeatPrompt());
      }
      if (message.goAway) {
        this.#isLeaving = true;
        after((parseFloat(message.goAway.timeLeft) || 0) - MOVE_SECONDS, close);
      }
      if (this.#take(message) && this.#isLeaving) after(LATE_SECONDS, close); // its late text and a handle will follow
    };

    socket.binaryType = "arraybuffer";
    socket.onopen = () =>
      socket.send(JSON.stringify({ setup: { ...this.#live.setup.setup, sessionResumption: resumption } }));
    socket.onclose = ended.resolve;
    socket.onmessage = ({ data }) => {
      try {
        const message = JSON.parse(typeof data === "string" ? data : new TextDecoder().decode(data));
        if (socket.readyState === WebSocket.OPEN) take(message);
      } catch (error) {
        ended.reject(error); // of onMessage or onTurn
      }
    };
    try {
      const { code = 0 } = await ended.promise;
      return { code, wasSetUp };
    } finally {
      this.#socket = undefined;
      this.#isOver.signal.removeEventListener("abort", close);
      timers.forEach(clearTimeout);
      socket.close();
    }
  }

  // Makes the agent speak if it is its turn, and sends what was held back.
  #begin(socket, isResumed) {
    this.#handle = undefined; // a handle is valid for one connection
    const { turns, agentSpeaks } = this.transcript;
    const isAgentsTurn = agentSpeaks || turns.at(-1)?.role === "user";
    if (!this.#unanswered.length && (isAgentsTurn || !isResumed)) this.#unanswered.push(turns.length ? GO_ON : GREET);
    const held = [...this.#unanswered, ...this.#heldAudio.splice(0)];
    for (const realtimeInput of held) socket.send(JSON.stringify({ realtimeInput }));
    this.#socket = socket;
  }

  #repeatPrompt() {
    for (const realtimeInput of this.#unanswered)
      if ([GREET, GO_ON].includes(realtimeInput)) this.#socket?.send(JSON.stringify({ realtimeInput }));
  }

  // Handles a message; returns whether it ends a turn of the agent.
  #take(message) {
    const update = message.sessionResumptionUpdate;
    if (update?.resumable) this.#handle = update.newHandle; // otherwise the latest handle stays the best one
    if (message.serverContent) this.#unanswered = [];
    const { settled } = this.transcript;
    const isEnd = this.transcript.take(message);
    if (this.transcript.settled > settled)
      this.#saving ??= this.#saveTurns().finally(() => (this.#saving = undefined)); // the conversation never waits
    for (const { id, name } of message.toolCall?.functionCalls ?? []) this.#refuse(id, name);
    if (isEnd && this.#isLeaving) this.#socket = undefined; // what the caller says from now on is for the next one
    this.onMessage(message);
    if (isEnd && !this.#endReason) this.onTurn();
    return isEnd;
  }

  // This client has no functions. The agent waits for an answer.
  #refuse(id, name) {
    const functionResponses = [{ id, name, response: { error: "This page cannot do that." } }];
    this.#socket?.send(JSON.stringify({ toolResponse: { functionResponses } }));
  }

  // ---- The API ----

  // Sends the turns that are not saved yet and can no longer change. Turns of a failed request are sent again with the
  // next ones; after a gap the response says where to continue.
  async #saveTurns() {
    for (;;) {
      const turns = this.transcript.turns.slice(this.savedTurns, this.transcript.settled).slice(0, 500);
      if (!turns.length) return;
      const answer = await this.#ask("POST", "/transcript", { from: this.savedTurns, turns });
      this.savedTurns = (answer.data ?? answer.error).next ?? this.savedTurns;
      if (answer.error) return;
    }
  }

  // Saves all turns, because nothing will be added to them.
  async saveAll() {
    this.transcript.close();
    await this.#saveTurns();
  }

  // Gets new tokens for the same call; resolves with the error code, if there is one.
  async #renew() {
    if (!this.#handle) {
      await this.#saving;
      await this.saveAll(); // the agent continues from the saved turns
    }
    const { data, error } = await this.#ask("POST", "/renew", { has_resumption_handle: Boolean(this.#handle) });
    if (data) [this.#clientToken, this.#live] = [data.client_token, data.connection.gemini_live];
    return error?.code;
  }

  // Completes the session; retries under one Idempotency-Key complete it once.
  async complete(endReason) {
    const request = { transcript: this.transcript.turns, duration_seconds: this.seconds, end_reason: endReason };
    const headers = { "Idempotency-Key": crypto.randomUUID() };
    let answer;
    for (const pause of PAUSES) {
      await sleep(pause);
      answer = await this.#ask("POST", "/complete", request, headers);
      if (!answer.error?.retryable) break;
    }
    // If another request completed it, get the session.
    if (answer.error?.code === NOT_ACTIVE) answer = (await this.#ask("GET", "")).data ?? answer;
    if (answer.error) throw new Error(`The call could not be completed: ${answer.error.code}.`);
    return answer;
  }

  // Calls one of the session's routes; a failure without an error code of the API is retryable.
  async #ask(method, action, body, headers) {
    const text = body && JSON.stringify(body);
    try {
      const response = await fetch(this.#url + action, {
        method,
        headers: { Authorization: `Bearer ${this.#clientToken}`, "Content-Type": "application/json", ...headers },
        body: text,
        keepalive: text?.length < 16_000, // outlives the page; browsers allow this for up to 64 KB
        signal: AbortSignal.timeout(40_000),
      });
      const answer = await response.json();
      if (!answer.message) return answer;
    } catch {}
    return { error: { code: "no_answer", retryable: true } };
  }
}
