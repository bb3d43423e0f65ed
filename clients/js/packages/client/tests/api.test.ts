import { beforeEach, expect, test, vi } from "vitest";
import { SessionApi } from "../src/api.js";
import { CallError } from "../src/errors.js";
import { API_URL, apiError, ScriptedApi, SESSION } from "./support/api.js";

let server: ScriptedApi;
let api: SessionApi;

beforeEach(() => {
  vi.useFakeTimers();
  server = new ScriptedApi();
  api = new SessionApi(`${API_URL}/`, SESSION.session_id, "pi_sess_first");
});

const failure = (work: Promise<unknown>): Promise<CallError> =>
  work.then(
    () => Promise.reject(new Error("It did not fail.")),
    (error) => error,
  );

test("a request has the client token and its idempotency key", async () => {
  await api.ask("POST", "/complete", { transcript: [] }, { key: "k-1" });

  expect(server.seen[0]).toMatchObject({
    method: "POST",
    action: "/complete",
    body: { transcript: [] },
    headers: { Authorization: "Bearer pi_sess_first", "Idempotency-Key": "k-1" },
  });
});

test("an error of the API keeps its code, advice and request id", async () => {
  server.answers("/renew", apiError(409, "voice_session_not_active"));

  const error = await failure(api.ask("POST", "/renew", {}));

  expect(error).toBeInstanceOf(CallError);
  expect(error).toMatchObject({ code: "voice_session_not_active", retryable: false, requestId: "req-1" });
  expect(error.advice).toBe("voice_session_not_active.");
});

test.each([
  [503, true],
  [429, true],
  [404, false],
])("an error of the gateway with status %d is retryable: %s", async (status, retryable) => {
  server.answers("/renew", { status, body: { message: "Not ours" } });

  expect(await failure(api.ask("POST", "/renew", {}))).toMatchObject({ code: "api_unavailable", retryable });
});

test("an answer that is no JSON is retryable", async () => {
  vi.stubGlobal("fetch", async () => new Response("<html>", { status: 200 }));

  expect(await failure(api.ask("POST", "/renew", {}))).toMatchObject({ code: "api_unavailable", retryable: true });
});

test("a network that is away is retryable", async () => {
  server.answers("/renew", "no network");

  expect(await failure(api.ask("POST", "/renew", {}))).toMatchObject({ code: "api_unavailable", retryable: true });
});

test("a browser without a network is offline", async () => {
  vi.stubGlobal("navigator", { onLine: false });
  server.answers("/renew", "no network");

  expect(await failure(api.ask("POST", "/renew", {}))).toMatchObject({ code: "offline", retryable: true });
});

test("a server that does not answer is given up", async () => {
  vi.stubGlobal(
    "fetch",
    (_: string, { signal }: RequestInit) =>
      new Promise((_resolve, reject) => signal?.addEventListener("abort", () => reject(signal.reason))),
  );

  const failing = failure(api.ask("POST", "/renew", {}));
  await vi.advanceTimersByTimeAsync(40_000);

  expect(await failing).toMatchObject({ code: "api_unavailable", retryable: true });
});

test("a request is sent again until it is answered", async () => {
  server.answers("/complete", "no network", apiError(503, "internal_error"), apiError(500, "internal_error"));

  const answer = api.insist(600, "POST", "/complete", { transcript: [] }, { key: "k-1" });
  await vi.advanceTimersByTimeAsync(7_000);

  expect(await answer).toMatchObject({ status: "completed" });
  expect(new Set(server.seen.map(({ headers }) => headers["Idempotency-Key"]))).toEqual(new Set(["k-1"]));
  expect(server.seen).toHaveLength(4);
});

test("a request waits as long as the API asks for", async () => {
  server.answers("/complete", { ...(apiError(503, "busy") as object), headers: { "retry-after": "10" } } as never);

  const answer = api.insist(600, "POST", "/complete", {});
  await vi.advanceTimersByTimeAsync(9_000);
  expect(server.seen).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(1_000);

  expect(await answer).toMatchObject({ status: "completed" });
});

test("a request that the API refuses is not sent again", async () => {
  server.answers("/complete", apiError(400, "invalid_request"));

  expect(await failure(api.insist(600, "POST", "/complete", {}))).toMatchObject({ code: "invalid_request" });
  expect(server.seen).toHaveLength(1);
});

test("a request is not sent again for ever", async () => {
  server.answers("/complete", ...Array(20).fill("no network"));

  const failing = failure(api.insist(30, "POST", "/complete", {}));
  await vi.advanceTimersByTimeAsync(60_000);

  expect(await failing).toMatchObject({ code: "api_unavailable" });
  expect(server.seen.length).toBeLessThan(10);
});

test("only small requests outlive their page", async () => {
  await api.ask("POST", "/usage", { text: "a".repeat(1_000) }, { keepalive: true });
  await api.ask("POST", "/usage", { text: "é".repeat(31_000) }, { keepalive: true });

  expect(server.seen.map(({ keepalive }) => keepalive)).toEqual([true, false]);
});
