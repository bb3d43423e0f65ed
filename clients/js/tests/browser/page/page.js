// The page of the tests: it starts a call as `window.test.options` says, and records what happens in `window.test.seen`.

import { checkDevices, resumeCall, startCall } from "/client/index.js";

const seen = {
  states: [],
  errors: [],
  devices: 0,
  cancelled: [],
  loudest: { mic: 0, speaker: 0 },
  failure: null,
  results: null,
  violations: [],
};

// The sounds of the tests are no human voices, so the browser's processing would take them for noise.
const getUserMedia = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
const unprocessed = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
navigator.mediaDevices.getUserMedia = (wanted) =>
  getUserMedia({ ...wanted, audio: { ...wanted.audio, ...unprocessed } });

document.addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI }) => {
  seen.violations.push(`${effectiveDirective} ${blockedURI}`);
});

// What a tool does, by the name that the options give it.
const handlers = {
  answers: async ({ area }) => ({ table: `T12 on the ${area}` }),
  throws: async () => {
    throw new Error("The floor plan is missing.");
  },
  hangs: (_, { signal, callId }) =>
    new Promise((_resolve, reject) => {
      signal.addEventListener("abort", () => {
        seen.cancelled.push(callId);
        reject(signal.reason);
      });
    }),
  text: async () => "T12",
};

const failure = ({ name, code, retryable, advice, message }) => ({ name, code, retryable, advice, message });

function optionsOf({ tools = {}, ...options }) {
  const chosen = Object.entries(tools).map(([name, what]) => [name, handlers[what]]);
  return { ...options, ...(chosen.length ? { tools: Object.fromEntries(chosen) } : {}) };
}

// Follows a call; types `says`, a line after each question of the agent.
function follow(call, says) {
  window.test.call = call;
  let answered = 0;
  const answer = () => {
    const { turns, state } = call;
    const { role, text } = turns.at(-1) ?? {};
    if (state !== "listening" || role !== "agent" || !text.endsWith("?")) return;
    if (turns.length <= answered || !says.length) return;
    answered = turns.length;
    call.say(says.shift());
  };
  const state = () => {
    seen.states.push(call.state);
    console.info(`state ${call.state}`);
    answer();
  };
  call.on("state", state);
  call.on("turns", answer);
  call.on("error", (error) => seen.errors.push(failure(error)));
  call.on("devices", () => seen.devices++);
  call.results.then(
    (results) => {
      seen.results = results;
    },
    (error) => {
      seen.failure = failure(error);
    },
  );
  state();
  setInterval(() => {
    seen.loudest.mic = Math.max(seen.loudest.mic, call.mic.level());
    seen.loudest.speaker = Math.max(seen.loudest.speaker, call.speaker.level());
  }, 20);
}

async function open(starting) {
  try {
    const call = await starting(optionsOf(window.test.options));
    if (call) follow(call, [...window.test.says]);
    window.test.opened = call ? "call" : "none";
  } catch (error) {
    seen.failure = failure(error);
    window.test.opened = "failed";
  }
}

window.test = { options: {}, says: [], seen, call: null, opened: null, checkDevices };
document.querySelector("#start").addEventListener("click", () => open(startCall));
document.querySelector("#resume").addEventListener("click", () => open(resumeCall));
document.querySelector("#sound").addEventListener("click", () => window.test.call.resumeAudio());
if (window.callAtOnce) {
  window.test.options = window.callAtOnce;
  open(startCall);
}
