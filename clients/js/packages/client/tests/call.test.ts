import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Call } from "../src/call.js";
import type { CallError } from "../src/errors.js";
import { resumeCall, startCall } from "../src/start.js";
import type { CreatedSession, StartCallOptions, Turn } from "../src/types.js";
import { API_URL, apiError, LIVE, ScriptedApi, SESSION } from "./support/api.js";
import { Tab } from "./support/browser.js";
import {
  agentSays,
  agentText,
  callerText,
  handle,
  ScriptedSocket,
  scriptSockets,
  spoken,
  toolCall,
  turnComplete,
} from "./support/socket.js";

let server: ScriptedApi;
let tab: Tab;

beforeEach(() => {
  vi.useFakeTimers({ now: 1_790_000_000_000 });
  server = new ScriptedApi();
  tab = new Tab().show();
  scriptSockets();
});

afterEach(() => {
  vi.clearAllTimers();
});

const seconds = (count: number) => vi.advanceTimersByTimeAsync(count * 1_000);
const OPTIONS = { session: SESSION as CreatedSession, apiUrl: API_URL, audio: false } as const;

async function started(options: Partial<StartCallOptions> = {}): Promise<Call> {
  const starting = startCall({ ...OPTIONS, ...options } as StartCallOptions);
  await seconds(0);
  ScriptedSocket.latest.setUp();
  return await starting;
}

const failureOf = (work: Promise<unknown>): Promise<CallError> =>
  work.then(
    () => Promise.reject(new Error("It did not fail.")),
    (error) => error,
  );

function statesOf(call: Call): string[] {
  const states: string[] = [];
  call.on("state", ({ state }) => states.push(state));
  return states;
}

const says = (...messages: Parameters<ScriptedSocket["says"]>) => ScriptedSocket.latest.says(...messages);

async function hungUp(call: Call): Promise<void> {
  void call.hangUp();
  await seconds(2);
}

describe("a call", () => {
  test("in writing goes from the greeting to its results", async () => {
    const call = await started();
    const states = statesOf(call);

    says(...agentSays("For how many?"));
    call.say("Six.");
    says(...agentSays("Thank you."));
    await hungUp(call);

    expect(await call.results).toMatchObject({ status: "completed", results: { guests: 6 } });
    expect(server.of("/complete")[0]?.body).toMatchObject({
      transcript: [
        { role: "agent", text: "For how many?" },
        { role: "user", text: "Six." },
        { role: "agent", text: "Thank you." },
      ],
      end_reason: "completed",
      duration_seconds: 0,
    });
    expect(states).toEqual(["speaking", "listening", "thinking", "speaking", "listening", "ended"]);
    expect(call.reason).toBe("completed");
  });

  test("tells its turns with a new array after each change", async () => {
    const call = await started();
    const seen: (readonly Turn[])[] = [];
    const stop = call.on("turns", (turns) => seen.push(turns));

    says(spoken(), agentText("Hel"), spoken(), agentText("lo."));
    stop();
    says(turnComplete, callerText("Hi."));

    expect(seen.map(([turn]) => turn?.text)).toEqual(["Hel", "Hello."]);
    expect(call.turns.map(({ text }) => text)).toEqual(["Hello.", "Hi."]);
  });

  test("saves what can no longer change, while it goes on", async () => {
    await started();
    says(...agentSays("For how many?"), callerText("Six."), ...agentSays("Thank you."));
    await seconds(0);

    expect(server.saved.map(({ text }) => text)).toEqual(["For how many?", "Six."]);
  });

  test("waits for late text at its end", async () => {
    const call = await started();
    says(spoken(), agentText("See you"), turnComplete);

    void call.hangUp();
    await seconds(0.5);
    says(agentText(" soon!"));
    await seconds(1);

    expect(await call.results).toMatchObject({ transcript: [{ text: "See you soon!" }] });
  });

  test("ends at its time limit", async () => {
    const call = await started();
    expect(call.secondsLeft).toBe(600);

    await seconds(300);
    expect(call.secondsLeft).toBe(300);
    await seconds(302);

    expect(await call.results).toMatchObject({ end_reason: "client_timer" });
    expect(call.state).toBe("ended");
    expect(call.secondsLeft).toBe(0);
  });

  test("without a time limit has no seconds left", async () => {
    const call = await started({ session: { ...SESSION, max_duration_seconds: null } as CreatedSession });

    expect(call.secondsLeft).toBeNull();
  });

  test("is stopped when the API says that it was hung up", async () => {
    const call = await started();
    server.hungUpAt = 1_790_000_000;

    says(...agentSays("One?"), callerText("One."), ...agentSays("Two?"));
    await seconds(3);

    expect(await call.results).toMatchObject({ end_reason: "stopped" });
    expect(call.reason).toBe("stopped");
  });

  test("is completed under one idempotency key until the API answers", async () => {
    const call = await started();
    server.answers("/complete", "no network", "no network", apiError(503, "internal_error"));

    void call.hangUp();
    await seconds(30);

    expect(await call.results).toMatchObject({ status: "completed" });
    expect(new Set(server.of("/complete").map(({ headers }) => headers["Idempotency-Key"])).size).toBe(1);
  });

  test("that someone else has completed has these results", async () => {
    const call = await started();
    server.status = "completed";
    server.answers("/complete", apiError(409, "voice_session_not_active"));

    await hungUp(call);

    expect(await call.results).toMatchObject({ status: "completed", session_id: SESSION.session_id });
  });

  test("that cannot be completed says why", async () => {
    const call = await started();
    const errors: string[] = [];
    call.on("error", ({ code }) => errors.push(code));
    server.answers("/complete", apiError(400, "invalid_request"));

    await hungUp(call);

    expect(await failureOf(call.results)).toMatchObject({ code: "invalid_request" });
    expect(errors).toEqual(["invalid_request"]);
    expect(call.state).toBe("ended");
  });

  test("that was hung up twice ends once, with the first reason", async () => {
    const call = await started();

    void call.hangUp("guest_left");
    void call.hangUp("completed");
    await seconds(2);

    expect(server.of("/complete").map(({ body }) => body.end_reason)).toEqual(["guest_left"]);
  });

  test("can be hung up by a click's own event", async () => {
    const call = await started();

    void call.hangUp({ type: "click" } as never);
    await seconds(2);

    expect(await call.results).toMatchObject({ end_reason: "completed" });
  });

  test("refuses a reason that the API would refuse", async () => {
    const call = await started();

    expect(await failureOf(call.hangUp("Guest left!"))).toMatchObject({ code: "invalid_options" });
  });

  test("is hung up by its signal", async () => {
    const controller = new AbortController();
    const call = await started({ signal: controller.signal });

    controller.abort();
    await seconds(2);

    expect(await call.results).toMatchObject({ end_reason: "completed" });
  });

  test("says nothing after its end", async () => {
    const call = await started();
    await hungUp(call);
    const { sent } = ScriptedSocket.latest;

    call.say("Hello?");
    call.tell("Hello?");

    expect(ScriptedSocket.latest.sent).toBe(sent);
    expect(call.turns).toEqual([]);
  });

  test("survives the API, and says so", async () => {
    const call = await started();
    const errors: [string, boolean][] = [];
    call.on("error", ({ code, retryable }) => errors.push([code, retryable]));
    server.answers("/transcript", "no network");

    says(...agentSays("One?"), callerText("One."), ...agentSays("Two?"));
    await seconds(0);

    expect(errors).toEqual([["api_unavailable", true]]);
    expect(call.state).toBe("listening");
  });

  test("ends where another page writes its transcript", async () => {
    const call = await started();
    server.answers("/transcript", apiError(409, "voice_transcript_conflict"));

    says(...agentSays("One?"), callerText("One."), ...agentSays("Two?"));
    await seconds(2);

    expect([call.state, call.reason]).toEqual(["failed", "transcript_taken_over"]);
    expect(await failureOf(call.results)).toMatchObject({ code: "transcript_taken_over" });
    expect(server.of("/complete")).toEqual([]);
    expect(ScriptedSocket.latest.readyState).toBeGreaterThan(ScriptedSocket.OPEN);
  });

  test("a listener that throws stops nothing", async () => {
    const call = await started();
    call.on("turns", () => {
      throw new Error("mine");
    });

    says(...agentSays("Hello."));

    expect(call.turns).toHaveLength(1);
  });
});

describe("a connection that is lost", () => {
  test("is shown, and the call goes on", async () => {
    const call = await started();
    const states = statesOf(call);
    says(...agentSays("For how many?"), handle("h-1"));
    ScriptedSocket.latest.ends(1006);
    await seconds(0);

    says();
    ScriptedSocket.latest.setUp();
    says(...agentSays("Still there?"));

    expect(states).toEqual(["speaking", "listening", "reconnecting", "listening", "speaking", "listening"]);
  });

  test("with 1011 is renewed, with a new client token", async () => {
    await started();
    says(...agentSays("For how many?"), handle("h-1"));
    ScriptedSocket.latest.ends(1011);
    await seconds(0);
    ScriptedSocket.latest.setUp();
    says(...agentSays("One?"), callerText("One."), ...agentSays("Two?"));
    await seconds(0);

    expect(server.of("/renew").map(({ body }) => body)).toEqual([{ has_resumption_handle: true }]);
    expect(server.of("/transcript").at(-1)?.headers.Authorization).toBe("Bearer pi_sess_renewed");
  });

  test("is renewed once the API is back", async () => {
    const call = await started();
    says(...agentSays("For how many?"), handle("h-1"));
    server.answers("/renew", ...Array(4).fill("no network"));
    ScriptedSocket.latest.ends(1011);
    await seconds(20);

    ScriptedSocket.latest.setUp();

    expect(call.state).toBe("listening");
    expect(ScriptedSocket.all).toHaveLength(2);
  });

  test("without a handle saves all turns before it begins anew", async () => {
    await started();
    says(...agentSays("For how many?"), callerText("Six."));
    ScriptedSocket.latest.ends(1006);
    await seconds(0);

    expect(server.seen.map(({ action }) => action)).toEqual(["/transcript", "/renew"]);
    expect(server.saved.map(({ text }) => text)).toEqual(["For how many?", "Six."]);
  });

  test("ends the call where it cannot be renewed", async () => {
    const call = await started();
    says(...agentSays("For how many?"));
    server.answers("/renew", apiError(409, "voice_session_not_active"));
    ScriptedSocket.latest.ends(1011);
    await seconds(2);

    expect(await call.results).toMatchObject({ end_reason: "disconnected" });
    expect(call.state).toBe("ended");
  });
});

describe("functions of the page", () => {
  test("get their call, and are shown", async () => {
    let callOfContext: Call | undefined;
    const call = await started({
      tools: {
        show_table: async ({ guests }, { call: own, callId, signal }) => {
          callOfContext = own;
          return { table: "T12", guests, callId, isAborted: signal.aborted };
        },
      },
    });

    says(toolCall("c-1", "show_table", { guests: 6 }));
    expect(call.state).toBe("thinking");
    await seconds(0);

    expect(callOfContext).toBe(call);
    expect(call.toolCalls).toEqual([
      {
        callId: "c-1",
        name: "show_table",
        arguments: { guests: 6 },
        status: "succeeded",
        response: { table: "T12", guests: 6, callId: "c-1", isAborted: false },
      },
    ]);
    expect(ScriptedSocket.latest.sent.at(-1)).toMatchObject({ toolResponse: { functionResponses: [{ id: "c-1" }] } });
  });

  test("that run on the server are called over the API", async () => {
    const live = { ...LIVE, tools: [{ name: "find_tables", where: "server" }] };
    await started({ session: { ...SESSION, connection: { gemini_live: live } } as CreatedSession });
    server.answers("/tool-calls", { body: { data: { status: "succeeded", response: { free: 3 } } } });

    says(toolCall("c-1", "find_tables"));
    await seconds(0);

    expect(ScriptedSocket.latest.sent.at(-1)).toMatchObject({
      toolResponse: { functionResponses: [{ response: { free: 3 } }] },
    });
  });

  test("that still run at the end are told to stop", async () => {
    let signal: AbortSignal | undefined;
    const call = await started({
      tools: {
        wait: (_, context) => {
          signal = context.signal;
          return new Promise(() => {});
        },
      },
    });
    says(toolCall("c-1", "wait"));

    void call.hangUp();
    await seconds(12);

    expect(signal?.aborted).toBe(true);
    expect(await call.results).toMatchObject({ status: "completed" });
  });
});

describe("the agent hangs up", () => {
  test("at the end of its sentence", async () => {
    const call = await started();

    says(spoken(), agentText("Goodbye!"), toolCall("c-1", "hang_up", { reason: "done" }));
    await seconds(3);
    expect(call.state).toBe("speaking");
    says(turnComplete);
    await seconds(2);

    expect(await call.results).toMatchObject({ end_reason: "agent_hung_up" });
  });

  test("after a moment if it says nothing more", async () => {
    const call = await started();
    says(...agentSays("Goodbye!"), toolCall("c-1", "hang_up"));

    await seconds(3);
    expect(call.state).not.toBe("ended");
    await seconds(3);

    expect(await call.results).toMatchObject({ end_reason: "agent_hung_up" });
  });

  test("not, if the caller interrupts its goodbye", async () => {
    const call = await started();
    says(spoken(), agentText("Goodbye!"), toolCall("c-1", "hang_up"), { serverContent: { interrupted: true } });

    says(turnComplete);
    await seconds(10);

    expect(call.state).toBe("listening");
  });
});

describe("usage", () => {
  const used = { usageMetadata: { promptTokenCount: 10 } };

  test("is reported now and then, and at the end", async () => {
    const call = await started();
    says(used, used);
    expect(server.of("/usage")).toHaveLength(0);
    await seconds(30);
    says(used);
    says(used);
    await seconds(0);
    expect(server.of("/usage").map(({ body }) => body)).toEqual([{ input_tokens: { other: 30 } }]);

    await hungUp(call);

    expect(server.of("/usage").at(-1)?.body).toEqual({ input_tokens: { other: 40 } });
  });

  test("is not reported where nothing was counted", async () => {
    await hungUp(await started());

    expect(server.of("/usage")).toEqual([]);
  });
});

describe("a start", () => {
  test("asks the backend for a session", async () => {
    const call = await started({
      session: undefined,
      fetchSession: async () => SESSION as CreatedSession,
    } as unknown as StartCallOptions);

    expect(call.sessionId).toBe(SESSION.session_id);
  });

  test.each([
    [{ session: undefined }],
    [{ fetchSession: async () => SESSION as CreatedSession }],
    [{ apiUrl: "api.example.com" }],
    [{ session: { data: SESSION } as unknown as CreatedSession }],
  ])("with wrong options is refused", async (options) => {
    const error = await failureOf(startCall({ ...OPTIONS, ...options } as StartCallOptions));

    expect(error).toMatchObject({ code: "invalid_options", retryable: false });
  });

  test("with an error of the backend is refused, with this error as its cause", async () => {
    const cause = new Error("no session today");
    const options = { ...OPTIONS, session: undefined, fetchSession: () => Promise.reject(cause) };

    expect(await failureOf(startCall(options as unknown as StartCallOptions))).toMatchObject({
      code: "api_unavailable",
      cause,
    });
  });

  test("without a connection is refused, and its own session is ended", async () => {
    const options = { ...OPTIONS, session: undefined, fetchSession: async () => SESSION as CreatedSession };
    const failing = failureOf(startCall(options as unknown as StartCallOptions));
    for (const pause of [0, 1, 2, 4, 8, 16]) {
      await seconds(pause);
      ScriptedSocket.latest.ends(1006);
    }
    await seconds(1);

    expect(await failing).toMatchObject({ code: "gemini_unreachable", retryable: true });
    expect(server.of("/complete").map(({ body }) => body)).toEqual([
      { transcript: [], end_reason: "gemini_unreachable" },
    ]);
  });

  test("that is aborted is refused", async () => {
    const controller = new AbortController();
    const failing = failureOf(startCall({ ...OPTIONS, signal: controller.signal }));
    await seconds(0);

    controller.abort();

    expect(await failing).toMatchObject({ code: "aborted" });
  });

  test("that is aborted while the backend is asked ends the session that arrives", async () => {
    const controller = new AbortController();
    let arrive: (session: CreatedSession) => void = () => {};
    const fetchSession = () => new Promise<CreatedSession>((resolve) => (arrive = resolve));
    const failing = failureOf(
      startCall({ ...OPTIONS, session: undefined, fetchSession, signal: controller.signal } as never),
    );
    await seconds(0);
    controller.abort();
    expect(await failing).toMatchObject({ code: "aborted" });

    arrive(SESSION as CreatedSession);
    await seconds(0);

    expect(server.of("/complete").map(({ body }) => body.end_reason)).toEqual(["aborted"]);
    expect(ScriptedSocket.all).toEqual([]);
  });
});

describe("after a reload", () => {
  const resumed = async (): Promise<Call | null> => {
    const resuming = resumeCall({ apiUrl: API_URL, audio: false });
    await seconds(0);
    if (ScriptedSocket.all.length) ScriptedSocket.latest.setUp();
    return await resuming;
  };

  async function reloaded(...messages: Parameters<typeof says>): Promise<void> {
    await started();
    says(...messages);
    await seconds(5);
    tab.unload();
    await seconds(0);
    tab = new Tab(tab).show();
    ScriptedSocket.all = [];
  }

  test("the call goes on with its turns", async () => {
    await reloaded(...agentSays("For how many?"), callerText("Six."));

    const call = await resumed();

    expect(call?.turns.map(({ text }) => text)).toEqual(["For how many?", "Six."]);
    expect(server.of("/renew").map(({ body }) => body)).toEqual([{ has_resumption_handle: false }]);
    expect(ScriptedSocket.latest.texts[0]).toMatch(/^The connection was interrupted and is back/);
    expect(Math.round(call?.secondsLeft ?? 0)).toBe(595);
  });

  test("the whole transcript completes the call, with times that go on", async () => {
    await reloaded(...agentSays("For how many?"), callerText("Six."));
    const call = await resumed();

    says(...agentSays("Thank you."));
    await hungUp(call as Call);

    const { transcript, duration_seconds } = server.body("/complete") as {
      transcript: Turn[];
      duration_seconds: number;
    };
    expect(transcript.map(({ text }) => text)).toEqual(["For how many?", "Six.", "Thank you."]);
    expect(transcript[2]?.start_ms).toBeGreaterThanOrEqual(5_000);
    expect(duration_seconds).toBeGreaterThanOrEqual(5);
    expect(tab.storage.size).toBe(0);
  });

  test("turns that the closing page could not save are saved first", async () => {
    server.answers("/transcript", "no network");
    await reloaded(...agentSays("For how many?"), callerText("Six."));
    expect(server.saved).toEqual([]);

    await resumed();

    expect(server.saved.map(({ text }) => text)).toEqual(["For how many?", "Six."]);
    expect(server.seen.map(({ action }) => action).slice(-2)).toEqual(["/transcript", "/renew"]);
  });

  test("usage goes on from what the API has", async () => {
    await reloaded(...agentSays("For how many?"));
    server.usage = { input_tokens: { text: 5 } };
    const call = await resumed();

    says({ usageMetadata: { promptTokenCount: 1 } });
    await hungUp(call as Call);

    expect(server.of("/usage").at(-1)?.body).toEqual({ input_tokens: { text: 5, other: 1 } });
  });

  test("there is nothing to resume without a call", async () => {
    expect(await resumed()).toBeNull();
    expect(server.seen).toEqual([]);
  });

  test("there is nothing to resume after the end", async () => {
    const call = await started();
    await hungUp(call);
    ScriptedSocket.all = [];

    expect(await resumed()).toBeNull();
  });

  test("there is nothing to resume where the session was completed meanwhile", async () => {
    await reloaded(...agentSays("For how many?"));
    server.status = "completed";

    expect(await resumed()).toBeNull();
    expect(tab.storage.size).toBe(0);
  });

  test("a call that was stopped meanwhile is completed", async () => {
    await reloaded(...agentSays("For how many?"));
    server.hungUpAt = 1_790_000_000;

    const call = await resumed();
    await seconds(1);

    expect(call?.state).toBe("ended");
    expect(await call?.results).toMatchObject({ transcript: [{ text: "For how many?" }] });
    expect(ScriptedSocket.all).toEqual([]);
  });

  test("a call that was being completed is completed under its key", async () => {
    const call = await started();
    says(...agentSays("For how many?"));
    server.answers("/complete", "no network", "no network", "no network");
    void call.hangUp("guest_left");
    await seconds(3);
    const [first] = server.of("/complete");
    vi.clearAllTimers();
    tab.unload();
    tab = new Tab(tab).show();
    server.next.clear();
    ScriptedSocket.all = [];

    const again = await resumed();
    await seconds(1);

    expect(await again?.results).toMatchObject({ end_reason: "guest_left" });
    expect(server.of("/complete").at(-1)).toEqual(first);
    expect(tab.storage.size).toBe(0);
  });

  test("a duplicated tab does not take the call over", async () => {
    const call = await started();
    says(...agentSays("For how many?"));
    const sockets = ScriptedSocket.all.length;
    new Tab(tab).show();

    const resuming = resumeCall({ apiUrl: API_URL, audio: false });
    await seconds(5);

    expect(await resuming).toBeNull();
    expect(ScriptedSocket.all).toHaveLength(sockets);
    expect(call.state).toBe("listening");
  });

  test("what is stored has no connection tokens", async () => {
    await started();
    says(...agentSays("For how many?"));

    expect([...tab.storage.values()].join()).not.toContain("auth_tokens");
  });

  test("a page that is not to be resumed completes the call as it closes", async () => {
    await started({ persist: false });
    says(...agentSays("For how many?"));

    tab.hide();
    await seconds(0);

    expect(tab.storage.size).toBe(0);
    expect(server.of("/complete")[0]).toMatchObject({
      keepalive: true,
      body: { end_reason: "page_closed", transcript: [{ text: "For how many?" }] },
    });
  });

  test("storage that is not allowed keeps nobody from talking", async () => {
    vi.stubGlobal("sessionStorage", {
      getItem: () => raise(),
      setItem: () => raise(),
      removeItem: () => raise(),
    });

    const call = await started();
    await hungUp(call);

    expect(await call.results).toMatchObject({ status: "completed" });
  });
});

function raise(): never {
  throw new Error("SecurityError");
}
