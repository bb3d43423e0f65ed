// A reference client for the browser: holds the Gemini side of a session and resolves with its transcript.
//
//     const {turns, endReason} = await holdCall(session, reply, play);
//
// `session` is the `data` of session create. `reply(turns)` is called whenever the agent has finished a turn, and returns
// what to send as `realtimeInput`: {text}, {audio}, or null to hang up. `play(base64)` gets 24 kHz PCM, and null when
// what is not played yet should be dropped. The LiveKit side is one call of livekit-client:
// `await new Room().connect(livekit.url, livekit.token)`.

const GREET = { text: "The caller is on the line." }; // the model does not speak first
const FINAL = [1007, 1008, 1011]; // refused, or the token is used up or expired: another connection fares no better

export async function holdCall(session, reply, play = () => {}) {
  const call = { live: session.connection.gemini_live, turns: [], handle: undefined, reply, play };
  const cap = session.max_duration_seconds;
  const outOfTime = new Promise((resolve) => cap && setTimeout(resolve, cap * 1000, "client_timer"));
  let endReason;
  while (!endReason) endReason = await Promise.race([talk(call), outOfTime]); // a connection lives about ten minutes
  call.socket.close();
  return { turns: call.turns, endReason };
}

// Talks over one connection; resolves with why the call ended, or with undefined when it has to be resumed.
function talk(call) {
  const socket = (call.socket = new WebSocket(`${call.live.url}?access_token=${call.live.token}`));
  socket.binaryType = "arraybuffer";
  const send = (message) => socket.send(JSON.stringify(message));
  return new Promise((resolve, reject) => {
    socket.onopen = () =>
      send({ setup: { ...call.live.setup.setup, sessionResumption: call.handle ? { handle: call.handle } : {} } });
    socket.onclose = ({ code }) => {
      if (call.handle && !FINAL.includes(code)) setTimeout(resolve, call.leaving ? 0 : 1000);
      else if (call.turns.length) resolve("disconnected");
      else reject(new Error(`Gemini hung up with close code ${code}.`));
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(typeof data === "string" ? data : new TextDecoder().decode(data));
      if (message.setupComplete && !call.turns.length) send({ realtimeInput: GREET });
      if (message.sessionResumptionUpdate?.resumable) call.handle = message.sessionResumptionUpdate.newHandle;
      call.leaving = Boolean(message.goAway);
      if (call.leaving) return socket.close();
      const content = message.serverContent ?? {};
      if (content.interrupted) call.play(null);
      for (const part of content.modelTurn?.parts ?? []) if (part.inlineData) call.play(part.inlineData.data);
      stitch(call.turns, "user", content.inputTranscription?.text);
      stitch(call.turns, "agent", content.outputTranscription?.text);
      if (!content.turnComplete) return;
      const answer = call.reply(call.turns);
      if (!answer) return resolve("completed");
      stitch(call.turns, "user", answer.text); // what is typed comes back in no transcription
      send({ realtimeInput: answer });
    };
  });
}

// Adds a fragment of a transcription: to the speaker's turn, or as a new one when the other had spoken.
export function stitch(turns, role, fragment) {
  const last = turns.at(-1);
  if (last?.role === role) last.text += fragment ?? "";
  else if (fragment) turns.push({ role, text: fragment });
}
