import { act, type ReactElement, StrictMode, useEffect } from "react";
import { createRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Call, type CallControls, type StartCallOptions, useCall } from "../src/index.js";
import "./dom.js";
import { Scripted } from "./scripted.js";

let gemini: Scripted;
let leave: () => void = () => {};
/** The calls of a test, which are completed before its servers end. */
const calls = new Set<Call>();

beforeEach(async () => {
  gemini = await Scripted.start();
});
afterEach(async () => {
  act(() => leave());
  leave = () => {};
  await Promise.all([...calls].map((call) => call.results.catch(() => {})));
  calls.clear();
  sessionStorage.clear();
  await gemini.stop();
});

/** What a component shows, and the states in the order in which it has shown them. */
interface Shown {
  call?: CallControls;
  states: string[];
}

type Options = { [Name in keyof StartCallOptions]?: StartCallOptions[Name] | undefined };

interface PageProps {
  options: Options;
  shown: Shown;
  /** Whether the component goes on with the call of its tab, as after a reload. */
  resumes?: boolean;
}

/** A component with a typed call. */
function Page({ options, shown, resumes = false }: PageProps) {
  const given = { session: gemini.session, apiUrl: gemini.apiUrl, audio: false, ...options };
  const call = useCall(given as StartCallOptions);
  shown.call = call;
  if (shown.states.at(-1) !== call.state) shown.states.push(call.state);
  if (call.call) calls.add(call.call);
  const { resume } = call;
  useEffect(() => {
    if (resumes) void resume();
  }, [resumes, resume]);
  return <p>{call.state}</p>;
}

interface Mounted {
  /** What the hook returned last. */
  readonly call: CallControls;
  readonly states: string[];
  /** Render again with other options. */
  render(options: Options): void;
  unmount(): void;
}

const inStrictMode = (element: ReactElement) => <StrictMode>{element}</StrictMode>;

function mount(options: Options = {}, wrap = (element: ReactElement) => element, resumes = false): Mounted {
  const root = createRoot(document.body.appendChild(document.createElement("div")));
  const shown: Shown = { states: [] };
  const render = (given: Options) =>
    act(() => root.render(wrap(<Page options={given} shown={shown} resumes={resumes} />)));
  let isMounted = true;
  const unmount = () => {
    if (isMounted) act(() => root.unmount());
    isMounted = false;
  };
  render(options);
  leave = unmount;
  return {
    get call() {
      if (!shown.call) throw new Error("The component was not rendered.");
      return shown.call;
    },
    states: shown.states,
    render,
    unmount,
  };
}

/** Wait until a condition holds, while the component renders. */
async function until(isSo: () => boolean): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!isSo()) {
    if (Date.now() > deadline) throw new Error(`It did not happen: ${isSo}`);
    await act(() => new Promise((resolve) => setTimeout(resolve, 10)));
  }
}

const words = ({ call }: Mounted) => call.turns.map(({ role, text }) => `${role}: ${text}`);

/** Start a call as a click does, and wait for the greeting. */
async function greeted(page: Mounted): Promise<void> {
  act(() => void page.call.start());
  await until(() => words(page).includes("agent: Hello."));
}

test("nothing happens before a call is started", () => {
  const page = mount();

  expect(page.call).toMatchObject({ call: null, state: "idle", reason: null, error: null, turns: [], toolCalls: [] });
  expect(page.call.mic.level()).toBe(0);
  expect(gemini.sockets).toEqual([]);
});

test("a call is shown from the click to its results", async () => {
  const page = mount();

  await greeted(page);
  expect(page.call.secondsLeft).toBeGreaterThan(0);
  act(() => page.call.say("Six of us."));
  await until(() => words(page).length === 3);
  await act(() => page.call.hangUp());
  await until(() => page.call.results !== null);

  expect(words(page)).toEqual(["agent: Hello.", "user: Six of us.", "agent: Yes?"]);
  expect(page.states.slice(0, 2)).toEqual(["idle", "connecting"]);
  expect(page.call).toMatchObject({
    state: "ended",
    reason: "completed",
    error: null,
    results: { results: { guest_name: "Ana Torres" } },
  });
  expect(gemini.completions()).toHaveLength(1);
});

test("two clicks start one call", async () => {
  const page = mount();

  const [first, second] = await act(() => Promise.all([page.call.start(), page.call.start()]));
  await greeted(page);

  expect(first).toBe(second);
  expect(first).toBe(page.call.call);
  expect(await page.call.start()).toBe(first);
  expect(gemini.sockets).toHaveLength(1);
});

test("another call can follow the first one", async () => {
  const page = mount();
  await greeted(page);
  const first = page.call.call;
  await act(() => page.call.hangUp());
  await until(() => page.call.results !== null);

  await greeted(page);

  expect(page.call.call).not.toBe(first);
  expect(page.call).toMatchObject({ reason: null, results: null });
  expect(words(page)).toEqual(["agent: Hello."]);
});

test("unmounting the component hangs up, and completes the session", async () => {
  const page = mount();
  await greeted(page);
  const { call } = page.call;

  page.unmount();
  await until(() => gemini.completions().length > 0);

  expect(call?.state).toBe("ended");
  expect(gemini.completions()[0].body.transcript).toMatchObject([{ role: "agent", text: "Hello." }]);
});

test("unmounting the component before the call is set up leaves no connection open", async () => {
  gemini.isSilent = true;
  const page = mount();
  act(() => void page.call.start());
  await until(() => gemini.sockets.length > 0);

  page.unmount();

  await until(() => gemini.sockets.every((socket) => socket.readyState === socket.CLOSED));
});

test("hanging up before the call is set up ends it", async () => {
  gemini.isSilent = true;
  const page = mount();
  act(() => void page.call.start());
  await until(() => gemini.sockets.length > 0);

  await act(() => page.call.hangUp());
  await until(() => page.call.state === "ended");

  expect(page.call).toMatchObject({ call: null, reason: "aborted", error: null });
});

test("strict mode starts one call, and does not end it", async () => {
  const page = mount({}, inStrictMode);

  await greeted(page);
  act(() => page.call.say("Six of us."));
  await until(() => words(page).length === 3);

  expect(gemini.sockets).toHaveLength(1);
  expect(gemini.completions()).toEqual([]);
});

test("strict mode goes on with one call after a reload, and does not end it", async () => {
  gemini.isActive = true;
  const turns = [{ role: "agent", text: "Hello." }];
  const stored = { sessionId: gemini.session.session_id, clientToken: "pi_sess_test", beganAt: Date.now(), turns };
  sessionStorage.setItem("pi-voice-call", JSON.stringify({ ...stored, endsAt: null }));

  const page = mount({}, inStrictMode, true);
  await until(() => words(page).includes("agent: Yes?"));

  expect(words(page)).toEqual(["agent: Hello.", "agent: Yes?"]);
  expect(gemini.sockets).toHaveLength(1);
  expect(gemini.completions()).toEqual([]);
});

test("a call does not show the results of the call before it", async () => {
  const page = mount();
  await greeted(page);
  const first = page.call.call;
  let complete = () => {};
  gemini.completing = new Promise((resolve) => {
    complete = resolve;
  });
  act(() => void page.call.hangUp());
  await greeted(page);

  complete();
  await act(() => first?.results);

  expect(page.call).toMatchObject({ reason: null, results: null });
  expect(page.call.call).not.toBe(first);
});

test("a call that cannot be set up is shown as failed, and can be tried again", async () => {
  gemini.isRefused = true;
  const page = mount();

  const call = await act(() => page.call.start());
  expect(call).toBeNull();
  expect(page.call.state).toBe("failed");
  expect(page.call.error?.code).toBe(page.call.reason);
  expect(page.call.error?.advice).not.toBe("");

  gemini.isRefused = false;
  await greeted(page);
  expect(page.call.error).toBeNull();
});

test("an error of the application's own backend is shown", async () => {
  const page = mount({ session: undefined, fetchSession: () => Promise.reject(new Error("No more calls today.")) });

  expect(await act(() => page.call.start())).toBeNull();

  expect(page.call.state).toBe("failed");
  expect(page.call.error).toBeInstanceOf(Error);
});

test("the signal of the options ends the call", async () => {
  const leaving = new AbortController();
  const page = mount({ signal: leaving.signal });
  await greeted(page);

  act(() => leaving.abort());
  await until(() => page.call.state === "ended");

  await until(() => gemini.completions().length === 1);
});

test("a tool runs the handler of the latest render", async () => {
  const showing = (table: string) => ({ tools: { show_table: async () => ({ table }) } });
  const page = mount(showing("T1"));
  await greeted(page);
  page.render(showing("T2"));

  gemini.callTool("show_table");
  await until(() => gemini.toolResponses.length === 1);

  expect(gemini.toolResponses[0]).toMatchObject({ name: "show_table", response: { table: "T2" } });
  await until(() => page.call.toolCalls[0]?.status === "succeeded");
});

test("muting does nothing without a call, and is shown in one", async () => {
  const page = mount();
  act(() => page.call.mic.setMuted(true));
  expect(page.call.mic.muted).toBe(false);

  await greeted(page);
  act(() => {
    page.call.mic.setMuted(true);
    page.call.speaker.setMuted(true);
    page.call.speaker.setVolume(0.5);
  });

  expect(page.call.mic.muted).toBe(true);
  expect(page.call.speaker).toMatchObject({ muted: true, volume: 0.5 });
});

test("context is sent and is no turn", async () => {
  const page = mount();
  await greeted(page);

  act(() => page.call.tell("The caller looks at the menu."));
  await until(() => JSON.stringify(gemini.sent).includes("the menu"));

  expect(words(page).filter((turn) => turn.startsWith("user"))).toEqual([]);
});

test("without a call of this tab there is nothing to go on with", async () => {
  const page = mount();

  expect(await act(() => page.call.resume())).toBeNull();

  expect(page.call.state).toBe("idle");
});

test("the hook renders on a server", () => {
  expect(renderToString(<Page options={{}} shown={{ states: [] }} />)).toBe("<p>idle</p>");
});
