// A reference client for the browser and the Gemini side of a session: it talks, saves the transcript and completes.
//
//     const state = await holdCall(session, baseUrl, reply, play);
//
// `session` is the `data` of the response of `POST /sessions`; its client token opens all routes that this client uses.
// `reply(turns)` is called when the agent has finished a turn, and returns what to send as `realtimeInput`: {text},
// {audio}, or null to hang up. `play(base64)` gets 24 kHz PCM, or null to drop the audio that is not played yet.
// `state` is the completed session, with its results. The LiveKit side is one call of livekit-client:
// `await new Room().connect(livekit.url, livekit.token)`.

const GREET = { text: "The caller is on the line." }; // the model does not speak first
const FINAL = [1007, 1008, 1011]; // refused, or the token is used up or expired: renew
const NOT_ACTIVE = "voice_session_not_active";
const PAUSES = [0, 1, 2, 4, 8, 16]; // seconds to wait before each try, the first included

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export async function holdCall(session, baseUrl, reply, play = () => {}) {
  const call = {
    url: `${baseUrl}/api/v1/voice/sessions/${session.session_id}`,
    clientToken: session.client_token,
    live: session.connection.gemini_live,
    turns: [],
    savedTurns: 0,
    reply,
    play,
  };
  const began = Date.now();
  const cap = session.max_duration_seconds;
  const outOfTime = new Promise((resolve) => cap && setTimeout(resolve, cap * 1000, "client_timer"));
  const leave = () => saveTurns(call, call.turns.length);
  addEventListener("pagehide", leave); // a tab that is closed sends its last turns
  try {
    const endReason = await Promise.race([hold(call), outOfTime]);
    return await complete(call, endReason, (Date.now() - began) / 1000);
  } finally {
    removeEventListener("pagehide", leave);
  }
}

// Talks over one connection after the other (each lasts about ten minutes); resolves with the end reason.
async function hold(call) {
  let code;
  for (let failures = 0; failures < PAUSES.length; ) {
    await sleep(PAUSES[failures]);
    if (call.isOver) return;
    const end = await talk(call);
    if (end.reason) return end.reason;
    code = end.code;
    failures = end.wasReady && call.handle ? 0 : failures + 1;
    if ((FINAL.includes(code) || !call.handle) && (await renew(call)) === NOT_ACTIVE) break;
  }
  if (!call.turns.length) throw new Error(`Gemini hung up with close code ${code}.`);
  return "disconnected";
}

// Talks over one connection; resolves with the end reason, or with the close code when the connection ends first.
function talk(call) {
  const socket = (call.socket = new WebSocket(`${call.live.url}?access_token=${call.live.token}`));
  socket.binaryType = "arraybuffer";
  const send = (message) => socket.send(JSON.stringify(message));
  const resumption = call.handle ? { handle: call.handle } : {};
  let wasReady = false;
  return new Promise((resolve) => {
    socket.onopen = () => {
      call.handle = undefined; // valid for one connection, which sends new ones
      send({ setup: { ...call.live.setup.setup, sessionResumption: resumption } });
    };
    socket.onclose = ({ code }) => resolve({ code, wasReady });
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(typeof data === "string" ? data : new TextDecoder().decode(data));
      if (message.setupComplete) {
        wasReady = true;
        if (!resumption.handle) send({ realtimeInput: GREET });
      }
      if (message.sessionResumptionUpdate?.resumable) call.handle = message.sessionResumptionUpdate.newHandle;
      if (message.goAway) return socket.close();
      const content = message.serverContent ?? {};
      if (content.interrupted) call.play(null);
      for (const part of content.modelTurn?.parts ?? []) if (part.inlineData) call.play(part.inlineData.data);
      stitch(call.turns, "user", content.inputTranscription?.text);
      stitch(call.turns, "agent", content.outputTranscription?.text);
      if (!content.turnComplete) return;
      const answer = call.reply(call.turns);
      if (!answer) return resolve({ reason: "completed" });
      stitch(call.turns, "user", answer.text); // Gemini does not transcribe typed text
      send({ realtimeInput: answer });
      if (!call.isSaving) saveTurns(call, call.turns.length - 1); // the last one may still grow; not awaited
    };
  });
}

// Sends the turns that are not saved yet. Turns of a failed request are sent again with the next one; after a gap
// the response says where to continue.
async function saveTurns(call, end) {
  const turns = call.turns.slice(call.savedTurns, end).slice(0, 500);
  if (!turns.length) return;
  call.isSaving = true;
  const answer = await ask(call, "POST", "/transcript", { from: call.savedTurns, turns }, { keepalive: true });
  call.savedTurns = (answer.data ?? answer.error).next ?? call.savedTurns;
  call.isSaving = false;
}

// Gets new tokens for the same call; resolves with the error code, if there is one.
async function renew(call) {
  const { data, error } = await ask(call, "POST", "/renew", { has_resumption_handle: Boolean(call.handle) });
  if (data) Object.assign(call, { clientToken: data.client_token, live: data.connection.gemini_live });
  return error?.code;
}

// Completes the session; retries under one Idempotency-Key complete it once.
async function complete(call, endReason, seconds) {
  call.isOver = true;
  call.socket.close();
  const request = structuredClone({ transcript: call.turns, duration_seconds: seconds, end_reason: endReason });
  const headers = { "Idempotency-Key": crypto.randomUUID() };
  let answer;
  for (const pause of PAUSES) {
    await sleep(pause);
    answer = await ask(call, "POST", "/complete", request, { headers });
    if (!answer.error?.retryable) break;
  }
  // If another request completed it, get the session.
  if (answer.error?.code === NOT_ACTIVE) answer = (await ask(call, "GET", "")).data ?? answer;
  if (answer.error) throw new Error(`The call could not be completed: ${answer.error.code}.`);
  return answer;
}

// Calls one of the session's routes; a failure without an error code of the API is retryable.
async function ask(call, method, action, body, { headers, keepalive } = {}) {
  try {
    const response = await fetch(call.url + action, {
      method,
      headers: { Authorization: `Bearer ${call.clientToken}`, "Content-Type": "application/json", ...headers },
      body: body && JSON.stringify(body),
      keepalive,
      signal: AbortSignal.timeout(40_000),
    });
    const answer = await response.json();
    if (!answer.message) return answer;
  } catch {}
  return { error: { code: "no_answer", retryable: true } };
}

// Appends a fragment to the last turn if the speaker is the same, or starts a new turn.
export function stitch(turns, role, fragment) {
  const last = turns.at(-1);
  if (last?.role === role) last.text += fragment ?? "";
  else if (fragment) turns.push({ role, text: fragment });
}
