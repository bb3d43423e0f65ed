import { beforeEach, expect, test, vi } from "vitest";
import { SessionApi } from "../src/api.js";
import type { CallError } from "../src/errors.js";
import { type Run, Tools } from "../src/tools.js";
import type { ToolCall } from "../src/types.js";
import { API_URL, apiError, ScriptedApi, SESSION } from "./support/api.js";
import { reported } from "./support/setup.js";
import { interrupted, toolCall } from "./support/socket.js";

let server: ScriptedApi;
let answers: { id: string; name: string; response: object }[];
let changes: (readonly ToolCall[])[];
let errors: CallError[];

beforeEach(() => {
  vi.useFakeTimers();
  server = new ScriptedApi();
  answers = [];
  changes = [];
  errors = [];
});

function toolsOf(handlers: Record<string, Run>, onServer: string[] = []): Tools {
  return new Tools({
    api: new SessionApi(API_URL, SESSION.session_id, "pi_sess_first"),
    handlers: new Map(Object.entries(handlers)),
    seconds: 20,
    runsOnServer: (name) => onServer.includes(name),
    answer: (response) => answers.push(response),
    onChange: (calls) => changes.push(calls),
    onError: (error) => errors.push(error),
  });
}

const records = () => server.of("/tool-calls").map(({ body }) => body);
const settle = (seconds = 0) => vi.advanceTimersByTimeAsync(seconds * 1_000);

test("a function is run, answered and recorded", async () => {
  const tools = toolsOf({ show_table: async ({ area }) => ({ table: `T12 ${area}` }) });

  tools.take(toolCall("c-1", "show_table", { area: "inside" }));
  expect(tools.isRunning).toBe(true);
  await settle();

  expect(answers).toEqual([{ id: "c-1", name: "show_table", response: { table: "T12 inside" } }]);
  expect(records()).toEqual([
    {
      call_id: "c-1",
      name: "show_table",
      arguments: { area: "inside" },
      response: { table: "T12 inside" },
      status: "succeeded",
      milliseconds: 0,
    },
  ]);
  expect(changes.map((calls) => calls[0]?.status)).toEqual(["running", "succeeded"]);
  expect(tools.isRunning).toBe(false);
});

const FAILURES: [string, Run, object][] = [
  ["throws", () => Promise.reject(new Error("the password")), { error: "This did not work." }],
  ["throws at once", () => raise(), { error: "This did not work." }],
  ["returns a text", () => "T12" as never, { error: "This did not work." }],
  ["returns a list", () => [1], { error: "This did not work." }],
  ["returns nothing", () => undefined as never, { error: "This did not work." }],
  ["returns null", () => null as never, { error: "This did not work." }],
  ["returns what is no JSON", () => ({ big: 1n }), { error: "This did not work." }],
];

function raise(): never {
  throw new Error("the password");
}

test.each(FAILURES)("a function that %s is answered and recorded as failed", async (_, run, response) => {
  const tools = toolsOf({ show_table: run });

  tools.take(toolCall("c-1", "show_table"));
  await settle();

  expect(answers).toEqual([{ id: "c-1", name: "show_table", response }]);
  expect(records()).toMatchObject([{ status: "failed", response }]);
  expect(changes.at(-1)).toMatchObject([{ status: "failed" }]);
  expect(reported).toHaveLength(1);
});

test("an unknown function is answered and recorded as failed", async () => {
  const tools = toolsOf({});

  tools.take(toolCall("c-1", "toString"));
  await settle();

  expect(answers).toMatchObject([{ response: { error: "This page has no function toString." } }]);
  expect(records()).toMatchObject([{ status: "failed" }]);
});

test("a late function is answered as a failure, and told to stop", async () => {
  let aborted = false;
  const tools = toolsOf({
    show_table: (_, __, signal) =>
      new Promise(() => {
        signal.addEventListener("abort", () => {
          aborted = true;
        });
      }),
  });

  tools.take(toolCall("c-1", "show_table"));
  await settle(19);
  expect(answers).toEqual([]);
  await settle(1);

  expect(answers).toMatchObject([{ response: { error: "This takes too long." } }]);
  expect(records()).toMatchObject([{ status: "timeout" }]);
  expect(changes.at(-1)).toMatchObject([{ status: "timeout" }]);
  expect(aborted).toBe(true);
});

test("a function that is cancelled is told to stop, and not answered", async () => {
  const tools = toolsOf({
    show_table: (_, __, signal) =>
      new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
  });

  tools.take(toolCall("c-1", "show_table"));
  tools.take({ toolCallCancellation: { ids: ["c-1", "c-unknown"] } });
  await settle();

  expect(answers).toEqual([]);
  expect(records()).toMatchObject([{ status: "failed" }]);
  expect(changes.at(-1)).toMatchObject([{ status: "cancelled" }]);
  expect(reported).toEqual([]);
});

test("a function that ended before it was cancelled has succeeded", async () => {
  const tools = toolsOf({ show_table: () => ({}) });

  tools.take(toolCall("c-1", "show_table"));
  await settle();
  tools.take({ toolCallCancellation: { ids: ["c-1"] } });

  expect(changes.at(-1)).toMatchObject([{ status: "succeeded" }]);
});

test("the same call is run once", async () => {
  let runs = 0;
  const tools = toolsOf({ show_table: () => ({ runs: ++runs }) });

  tools.take(toolCall("c-1", "show_table"));
  tools.take(toolCall("c-1", "show_table"));
  await settle();

  expect(runs).toBe(1);
});

test("after a new beginning nothing is answered, but recorded", async () => {
  const tools = toolsOf({ show_table: () => ({}) });

  tools.take(toolCall("c-1", "show_table"));
  tools.forget();
  await settle();

  expect(answers).toEqual([]);
  expect(records()).toMatchObject([{ status: "succeeded" }]);
});

test("a record is sent again while the API is away", async () => {
  server.answers("/tool-calls", "no network", "no network");
  const tools = toolsOf({ show_table: () => ({}) });

  tools.take(toolCall("c-1", "show_table"));
  await settle(5);

  expect(records()).toHaveLength(3);
  expect(errors).toEqual([]);
});

test("a record that the API refuses is an error that the call survives", async () => {
  server.answers("/tool-calls", apiError(413, "request_too_large"));
  const tools = toolsOf({ show_table: () => ({}) });

  tools.take(toolCall("c-1", "show_table"));
  await settle();

  expect(errors).toMatchObject([{ code: "request_too_large" }]);
  expect(answers).toHaveLength(1);
});

test("the agent hangs up, unless it is interrupted", async () => {
  const tools = toolsOf({});

  tools.take(toolCall("c-1", "hang_up", { reason: "done" }));
  expect(tools.hangUp).toBe("c-1");
  await settle();
  expect(records()).toMatchObject([{ name: "hang_up", status: "succeeded" }]);

  tools.take(interrupted);
  expect(tools.hangUp).toBe("");
});

// ---- Tools on a server, which the API calls ----

const BOOKED = { body: { data: { status: "succeeded", response: { table: "T12" } } } };

test("a server tool is called over the API and answered", async () => {
  server.answers("/tool-calls", { body: { data: { status: "succeeded", response: { free: 3 } } } });
  const tools = toolsOf({ find_tables: () => ({ never: "run" }) }, ["find_tables"]);

  tools.take(toolCall("c-1", "find_tables", { day: "Friday" }));
  await settle();

  expect(records()).toEqual([{ call_id: "c-1", name: "find_tables", arguments: { day: "Friday" } }]);
  expect(answers).toEqual([{ id: "c-1", name: "find_tables", response: { free: 3 } }]);
});

test("a server tool that failed is answered with what the API says", async () => {
  server.answers("/tool-calls", { body: { data: { status: "failed", response: { error: "Closed." } } } });
  const tools = toolsOf({}, ["find_tables"]);

  tools.take(toolCall("c-1", "find_tables"));
  await settle();

  expect(answers).toMatchObject([{ response: { error: "Closed." } }]);
  expect(changes.at(-1)).toMatchObject([{ status: "failed" }]);
});

test("a server tool is asked again each second while the API is away, and then given up", async () => {
  server.answers("/tool-calls", ...Array(60).fill("no network"));
  const tools = toolsOf({}, ["find_tables"]);

  tools.take(toolCall("c-1", "find_tables"));
  await settle(10);
  expect(records().length).toBeGreaterThan(9);
  expect(answers).toEqual([]);
  await settle(18);

  expect(answers).toMatchObject([{ response: { error: "This takes too long." } }]);
  expect(changes.at(-1)).toMatchObject([{ status: "timeout" }]);
  const tried = records().length;
  await settle(60);
  expect(records()).toHaveLength(tried);
});

test("a lost answer of a server tool is asked for with the same call, until the call that runs has ended", async () => {
  const inProgress = apiError(409, "tool_call_in_progress", { retryable: true });
  server.answers("/tool-calls", "no network", inProgress, inProgress, BOOKED);
  const tools = toolsOf({}, ["book_table"]);

  tools.take(toolCall("c-1", "book_table", { guests: 6 }));
  await settle(2);
  expect(answers).toEqual([]);
  await settle(1);

  expect(answers).toEqual([{ id: "c-1", name: "book_table", response: { table: "T12" } }]);
  expect(records()).toEqual(Array(4).fill({ call_id: "c-1", name: "book_table", arguments: { guests: 6 } }));
  expect(errors).toEqual([]);
});

test("a server tool may take longer than a function of the page", async () => {
  server.answers("/tool-calls", { ...BOOKED, late: 27 });
  const tools = toolsOf({}, ["book_table"]);

  tools.take(toolCall("c-1", "book_table"));
  await settle(26);
  expect(tools.isRunning).toBe(true);
  await settle(1);

  expect(answers).toMatchObject([{ response: { table: "T12" } }]);
  expect(records()).toHaveLength(1);
});

test("the answer of a server tool is dropped if the call was cancelled", async () => {
  server.answers("/tool-calls", { ...BOOKED, late: 2 });
  const tools = toolsOf({}, ["book_table"]);

  tools.take(toolCall("c-1", "book_table"));
  await settle(1);
  tools.take({ toolCallCancellation: { ids: ["c-1"] } });
  await settle(10);

  expect(answers).toEqual([]);
  expect(records()).toHaveLength(1);
  expect(changes.at(-1)).toMatchObject([{ status: "cancelled" }]);
  expect(errors).toEqual([]);
});

test("a server tool that the API refuses is answered as a failure, and an error that the call survives", async () => {
  server.answers("/tool-calls", apiError(409, "voice_session_not_active"));
  const tools = toolsOf({}, ["book_table"]);

  tools.take(toolCall("c-1", "book_table"));
  await settle();

  expect(answers).toMatchObject([{ response: { error: "This did not work." } }]);
  expect(errors).toMatchObject([{ code: "voice_session_not_active" }]);
  expect(records()).toHaveLength(1);
});

test("a new beginning waits for a server tool that runs, for a while", async () => {
  server.answers("/tool-calls", { ...BOOKED, late: 2 });
  const tools = toolsOf({}, ["book_table"]);
  let isRecorded = false;

  tools.take(toolCall("c-1", "book_table"));
  void tools.recorded(3).then(() => {
    isRecorded = true;
  });
  await settle(1);
  expect(isRecorded).toBe(false);
  await settle(1);

  expect(isRecorded).toBe(true);
});
