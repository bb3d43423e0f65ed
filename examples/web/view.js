// Shows a call on index.html. Nothing here is specific to Pi Voice except the names of the states.
//
// The last news of a call may arrive when the visitor has started the next one, so they are compared with the call.

const STATES = {
  connecting: "Connecting …",
  needs_gesture: "The browser waits for you to turn on the sound",
  listening: "Mia is listening",
  thinking: "Mia is thinking …",
  speaking: "Mia is speaking",
  reconnecting: "The connection is lost. Reconnecting …",
  ended: "The call has ended",
  failed: "The call has failed",
};
const REASONS = {
  agent_hung_up: "Mia has hung up",
  client_timer: "The time of the call is over",
};

const $ = (id) => document.getElementById(id);
let call = null;
let hangUp = new AbortController();

/** Starts a call when the visitor wants one, and shows it; the signal is aborted when they hang up. */
export function onStart(start) {
  const startWith = async (audio) => {
    hangUp = new AbortController();
    const { signal } = hangUp;
    call = null;
    $("error").textContent = "";
    $("results").hidden = true;
    fillTurns([]);
    fillToolCalls([]);
    fillState("connecting");
    try {
      showCall(await start({ signal, audio }));
    } catch (error) {
      fillState(signal.aborted ? "ended" : "failed");
      if (!signal.aborted) showError(error);
    }
  };
  $("start").addEventListener("click", () => startWith({}));
  $("type").addEventListener("click", () => startWith({ microphone: false }));
}

/** What the backend says to a visitor who gets no session. */
class Refusal extends Error {}

/** Returns the JSON of a response; throws what an error of the backend says. */
export async function answerOf(response) {
  const answer = await response.json();
  if (!response.ok) throw new Refusal(answer.error.message);
  $("scripted").hidden = !answer.connection.gemini_live.url.startsWith("ws:");
  return answer;
}

export function showState({ state, reason }) {
  if (state === call?.state) fillState(state, reason);
}

export function showTurns(turns) {
  if (turns === call?.turns) fillTurns(turns);
}

function fillState(state, reason) {
  document.body.dataset.state = state;
  $("state").textContent = (state === "ended" && REASONS[reason]) || STATES[state];
}

// Changes only what is new, because screen readers read the changes.
function fillTurns(turns) {
  const items = $("turns").children;
  while (items.length > turns.length) items[items.length - 1].remove();
  for (const [place, { role, text }] of turns.entries()) {
    if (items[place]?.className !== role || items[place].lastChild.data !== text) {
      const item = element("li", text, role);
      item.prepend(element("span", role === "agent" ? "Mia" : "You", "who"));
      if (items[place]) items[place].replaceWith(item);
      else $("turns").append(item);
    }
  }
  items[items.length - 1]?.scrollIntoView({ block: "nearest" });
}

function showToolCalls(toolCalls) {
  if (toolCalls === call?.toolCalls) fillToolCalls(toolCalls);
}

// The functions that the agent calls, on this page and on the server.
function fillToolCalls(toolCalls) {
  $("tools").hidden = toolCalls.length === 0;
  $("calls").replaceChildren(
    ...toolCalls.map(({ name, status, response }) => {
      return element("li", `${name}: ${response ? JSON.stringify(response) : "…"}`, status);
    }),
  );
}

/** Shows a table, and returns what the agent gets to know. */
export function showTable({ table, area }) {
  $("fields").replaceChildren(...field("Your table", `${table}, ${area}`));
  $("results").hidden = false;
  return { table, view: "the lake" };
}

export function showResults({ session_id, results, extraction }) {
  if (session_id !== call?.sessionId) return;
  $("error").textContent = ""; // the call has survived it
  const fields = Object.entries(results ?? { results: extraction?.status ?? "none" });
  $("fields").replaceChildren(...fields.flatMap(([name, value]) => field(name.replaceAll("_", " "), value)));
  $("results").hidden = false;
}

/** Connects the buttons, the text field and the orb with a call. */
function showCall(started) {
  call = started;
  call.on("error", showError);
  call.on("toolCalls", showToolCalls);
  showTurns(call.turns);
  showToolCalls(call.toolCalls);
  showState(call);
  showMuted();
  showLevel();
}

function showError(error) {
  const isRefused = error.cause instanceof Refusal;
  $("error").textContent = isRefused ? error.cause.message : `${error.message} ${error.advice}`;
}

function showMuted() {
  $("mute").setAttribute("aria-pressed", String(call.mic.muted));
}

function showLevel() {
  const level = call.state === "speaking" ? call.speaker.level() : call.mic.level();
  $("orb").style.setProperty("--level", level.toFixed(3));
  if (call.state !== "ended" && call.state !== "failed") requestAnimationFrame(showLevel);
}

function field(name, value) {
  return [element("dt", name), element("dd", typeof value === "string" ? value : JSON.stringify(value))];
}

function element(tag, text, className = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className });
}

$("hang-up").addEventListener("click", () => hangUp.abort());
$("sound").addEventListener("click", () => call?.resumeAudio());
$("mute").addEventListener("click", () => {
  call.mic.muted = !call.mic.muted;
  showMuted();
});
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  call?.say($("text").value);
  $("say").reset();
});
