import { useCall } from "@pi-voice/react";
import { StrictMode, useEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";

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

const apiUrl = document.body.dataset.apiUrl;

/** What the backend says to a visitor who gets no session. */
class Refusal extends Error {}

async function fetchSession(signal) {
  const response = await fetch("/session", { method: "POST", signal });
  const answer = await response.json();
  if (!response.ok) throw new Refusal(answer.error.message);
  return answer;
}

function Page() {
  const [table, setTable] = useState(null);
  const [isScripted, setIsScripted] = useState(false);
  const tools = {
    show_table: ({ area }) => {
      setTable(`T12, ${area}`);
      return { table: "T12", view: "the lake" };
    },
  };
  const { call, state, error, turns, toolCalls, results, start, hangUp, say, resumeAudio, mic } = useCall({
    apiUrl,
    fetchSession: async (signal) => {
      const session = await fetchSession(signal);
      setIsScripted(session.connection.gemini_live.url.startsWith("ws:"));
      return session;
    },
    tools,
  });
  const log = useRef(null);
  // biome-ignore lint/correctness/useExhaustiveDependencies: it scrolls when there is another turn
  useEffect(() => {
    log.current.scrollTop = log.current.scrollHeight;
  }, [turns]);
  const begin = () => {
    setTable(null);
    start();
  };
  const fields = results
    ? (results.results ?? { results: results.extraction?.status ?? "none" })
    : { "your table": table };
  const isOver = !(state in STATES) || state === "ended" || state === "failed";

  return (
    <main>
      <h1>Restaurant Linden</h1>
      <p className="intro">Reserve a table by voice. Mia, our agent, takes your call.</p>

      <section className="call" aria-label="Call">
        <p className="state" role="status">
          {STATES[state] ?? "Ready for your call"}
        </p>
        <p className="error" role="alert">
          {error && !results && said(error)}
        </p>
        <div className="buttons">
          {isOver && (
            <button type="button" className="primary" onClick={begin}>
              Start the call
            </button>
          )}
          {state === "needs_gesture" && (
            <button type="button" className="primary" onClick={resumeAudio}>
              Turn on the sound
            </button>
          )}
          {!isOver && call && (
            <button type="button" aria-pressed={mic.muted} onClick={() => mic.setMuted(!mic.muted)}>
              Mute
            </button>
          )}
          {!isOver && (
            <button type="button" className="danger" onClick={() => hangUp()}>
              Hang up
            </button>
          )}
        </div>
        {isScripted && (
          <p className="note">
            This call is with a stand-in for Gemini, which recognizes no speech: when you have spoken, the next line of
            a script counts as what you said. What you type is taken as it is.
          </p>
        )}
      </section>

      <section className="turns" aria-labelledby="turns-title">
        <h2 id="turns-title">Conversation</h2>
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: who has no mouse scrolls it by keys */}
        <div ref={log} className="log" role="log" tabIndex={0} aria-labelledby="turns-title">
          <ol>
            {turns.map(({ role, text }, number) => (
              // biome-ignore lint/suspicious/noArrayIndexKey: a turn has no other name than its place
              <li key={number} className={role}>
                <span className="who">{role === "agent" ? "Mia" : "You"}</span>
                {text}
              </li>
            ))}
          </ol>
        </div>
        {!isOver && call && <Keyboard say={say} />}
      </section>

      {toolCalls.length > 0 && (
        <section className="tools" aria-labelledby="tools-title" aria-live="polite">
          <h2 id="tools-title">What Mia does</h2>
          <ol>
            {toolCalls.map(({ callId, name, status, response }) => (
              <li key={callId} className={status}>
                {name}: {response ? JSON.stringify(response) : "…"}
              </li>
            ))}
          </ol>
        </section>
      )}

      {(table || results) && (
        <section className="results" aria-labelledby="results-title" aria-live="polite">
          <h2 id="results-title">Results</h2>
          <dl>
            {Object.entries(fields).map(([name, value]) => (
              <Field key={name} name={name} value={value} />
            ))}
          </dl>
        </section>
      )}
    </main>
  );
}

function said(error) {
  return error.cause instanceof Refusal ? error.cause.message : `${error.message} ${error.advice}`;
}

function Keyboard({ say }) {
  const send = (event) => {
    event.preventDefault();
    say(new FormData(event.currentTarget).get("text"));
    event.currentTarget.reset();
  };
  return (
    <form onSubmit={send}>
      <label htmlFor="text">Type instead of speaking</label>
      <input id="text" name="text" autoComplete="off" maxLength={500} required />
      <button type="submit">Send</button>
    </form>
  );
}

function Field({ name, value }) {
  return (
    <>
      <dt>{name.replaceAll("_", " ")}</dt>
      <dd>{typeof value === "string" ? value : JSON.stringify(value)}</dd>
    </>
  );
}

createRoot(document.getElementById("root")).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
