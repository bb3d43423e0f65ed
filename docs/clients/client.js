// A reference client for the browser: holds the Gemini side of a session, keeps what is said safe, and completes it.
//
//     const state = await holdCall(session, baseUrl, reply, play);
//
// `session` is the `data` of session create; its client token is all that this needs of the API. `reply(turns)` is called
// whenever the agent has finished a turn, and returns what to send as `realtimeInput`: {text}, {audio}, or null to hang up.
// `play(base64)` gets 24 kHz PCM, and null when what is not played yet should be dropped. `state` is the completed session,
// with its results. The LiveKit side is one call of livekit-client: `await new Room().connect(livekit.url, livekit.token)`.

const GREET = { text: "The caller is on the line." }; // the model does not speak first
const FINAL = [1007, 1008, 1011]; // refused, or the token is used up or expired: only other tokens help
const OVER = "voice_session_not_active";
const PAUSES = [0, 1, 2, 4, 8, 16]; // seconds before something is tried once more, and how often it is

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export async function holdCall(session, baseUrl, reply, play = () => {}) {
  const call = {
    url: `${baseUrl}/api/v1/voice/sessions/${session.session_id}`,
    clientToken: session.client_token,
    live: session.connection.gemini_live,
    turns: [],
    kept: 0,
    reply,
    play,
  };
  const began = Date.now();
  const cap = session.max_duration_seconds;
  const outOfTime = new Promise((resolve) => cap && setTimeout(resolve, cap * 1000, "client_timer"));
  const leave = () => keep(call, call.turns.length);
  addEventListener("pagehide", leave); // a tab that is closed sends its last words
  try {
    const endReason = await Promise.race([hold(call), outOfTime]);
    return await complete(call, endReason, (Date.now() - began) / 1000);
  } finally {
    removeEventListener("pagehide", leave);
  }
}

// Talks over as many connections as it takes, each about ten minutes long; resolves with why the call is over.
async function hold(call) {
  let code;
  for (let failures = 0; failures < PAUSES.length; ) {
    await sleep(PAUSES[failures]);
    if (call.isOver) return;
    const end = await talk(call);
    if (end.reason) return end.reason;
    code = end.code;
    failures = end.wasReady && call.handle ? 0 : failures + 1;
    if ((FINAL.includes(code) || !call.handle) && (await renew(call)) === OVER) break;
  }
  if (!call.turns.length) throw new Error(`Gemini hung up with close code ${code}.`);
  return "disconnected";
}

// Talks over one connection; resolves with why the call is over, or with how the connection ended.
function talk(call) {
  const socket = (call.socket = new WebSocket(`${call.live.url}?access_token=${call.live.token}`));
  socket.binaryType = "arraybuffer";
  const send = (message) => socket.send(JSON.stringify(message));
  const resumption = call.handle ? { handle: call.handle } : {};
  let wasReady = false;
  return new Promise((resolve) => {
    socket.onopen = () => {
      call.handle = undefined; // good for one connection, which gives others
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
      stitch(call.turns, "user", answer.text); // what is typed comes back in no transcription
      send({ realtimeInput: answer });
      if (!call.isKeeping) keep(call, call.turns.length - 1); // the last one may still grow; nobody waits for this
    };
  });
}

// Sends the turns that are not kept yet. Whatever fails is sent again with the next; where turns are missing, the
// answer says from where on.
async function keep(call, end) {
  const turns = call.turns.slice(call.kept, end).slice(0, 500);
  if (!turns.length) return;
  call.isKeeping = true;
  const answer = await ask(call, "POST", "/transcript", { from: call.kept, turns }, { keepalive: true });
  call.kept = (answer.data ?? answer.error).next ?? call.kept;
  call.isKeeping = false;
}

// Gets other tokens for the same call; resolves with the code of the error if there are none.
async function renew(call) {
  const { data, error } = await ask(call, "POST", "/renew", { has_resumption_handle: Boolean(call.handle) });
  if (data) Object.assign(call, { clientToken: data.client_token, live: data.connection.gemini_live });
  return error?.code;
}

// Completes the session, as often as it takes: under one key it is done once.
async function complete(call, endReason, seconds) {
  call.isOver = true;
  call.socket.close();
  const ending = structuredClone({ transcript: call.turns, duration_seconds: seconds, end_reason: endReason });
  const headers = { "Idempotency-Key": crypto.randomUUID() };
  let answer;
  for (const pause of PAUSES) {
    await sleep(pause);
    answer = await ask(call, "POST", "/complete", ending, { headers });
    if (!answer.error?.retryable) break;
  }
  if (answer.error?.code === OVER) answer = (await ask(call, "GET", "")).data ?? answer; // somebody else completed it
  if (answer.error) throw new Error(`The call could not be completed: ${answer.error.code}.`);
  return answer;
}

// Calls one of the session's own routes; without an answer of the API's own it can be tried again.
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

// Adds a fragment of a transcription: to the speaker's turn, or as a new one when the other had spoken.
export function stitch(turns, role, fragment) {
  const last = turns.at(-1);
  if (last?.role === role) last.text += fragment ?? "";
  else if (fragment) turns.push({ role, text: fragment });
}
