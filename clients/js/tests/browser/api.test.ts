import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CallPage, openChromium } from "./support/chromium.js";
import { expectWholeCall } from "./support/expected.js";
import { SAYS, until, World } from "./support/world.js";

let browser: Browser;
beforeAll(async () => {
  browser = await openChromium();
});
afterAll(() => browser.close());

const AWAY_MS = 20_000;
const TOOLS = { show_table: "answers" };

test("a call survives an API that is away for twenty seconds, and is completed once", async () => {
  await using world = await World.with();
  await using page = await CallPage.open(browser, world);
  const session = await world.session();

  await page.start({ session, apiUrl: world.api.url, audio: false, tools: TOOLS }, SAYS.slice(0, 2));
  await until("turns are saved", () => world.api.of("transcript").some(({ status }) => status === 200));
  world.api.isAway = true;
  await until("both lines were answered", () =>
    page.call((call) => call.turns.length === 5 && call.state === "listening"),
  );
  await page.call((call) => call.say("Friday at half past seven, please."));
  await until("the third line was answered", () =>
    page.call((call) => call.turns.length === 7 && call.state === "listening"),
  );
  await page.call((call) => void call.hangUp());
  await new Promise((resolve) => setTimeout(resolve, AWAY_MS));
  world.api.isAway = false;
  const results = await page.results();

  expect(results).toMatchObject({ status: "completed", end_reason: "completed" });
  expect(results.transcript).toHaveLength(7);
  const completions = world.api.of("complete");
  expect(completions.length).toBeGreaterThan(1);
  expect(new Set(completions.map(({ idempotencyKey }) => idempotencyKey)).size).toBe(1);
  expect(completions.filter(({ status }) => status === 200)).toHaveLength(1);
  const { errors } = await page.seen();
  expect(errors.length).toBeGreaterThan(0);
  for (const error of errors) expect(error).toMatchObject({ code: "api_unavailable", retryable: true });
});

test("the agent hangs up, and the call is completed with its results", async () => {
  await using world = await World.with();
  await using page = await CallPage.open(browser, world);
  const session = await world.session();

  await page.start({ session, apiUrl: world.api.url, audio: false, tools: TOOLS }, SAYS);
  await expectWholeCall(world, session, await page.results());

  expect(await page.call((call) => [call.state, call.reason, call.error])).toEqual(["ended", "agent_hung_up", null]);
  expect(world.api.of("complete")).toHaveLength(1);
  expect(world.api.of("transcript").length).toBeGreaterThan(0);
});

test("a call ends at its time limit", async () => {
  await using world = await World.with();
  await using page = await CallPage.open(browser, world);
  const session = { ...(await world.session()), max_duration_seconds: 4 };

  await page.start({ session, apiUrl: world.api.url, audio: false });
  const left = await page.call((call) => call.secondsLeft);
  const results = await page.results();

  expect(left).toBeGreaterThan(0);
  expect(left).toBeLessThanOrEqual(4);
  expect(results).toMatchObject({ status: "completed", end_reason: "client_timer" });
  expect(await page.call((call) => [call.state, call.reason])).toEqual(["ended", "client_timer"]);
});

test("a call that the backend stops ends in the page", async () => {
  await using world = await World.with();
  await using page = await CallPage.open(browser, world);
  const session = await world.session();

  await page.start({ session, apiUrl: world.api.url, audio: false, tools: TOOLS });
  await until("the agent has greeted", () =>
    page.call((call) => call.turns.length === 1 && call.state === "listening"),
  );
  await world.ask(`/sessions/${session.session_id}/stop`, {});
  await page.call((call) => call.say("Hello?"));
  const results = await page.results();

  expect(results.status).toBe("completed");
  expect(await page.call((call) => [call.state, call.reason])).toEqual(["ended", "stopped"]);
});

test("a session that the backend has completed is read at the end of the call", async () => {
  await using world = await World.with();
  await using page = await CallPage.open(browser, world);
  const session = await world.session();

  await page.start({ session, apiUrl: world.api.url, audio: false });
  await until("the agent has greeted", () =>
    page.call((call) => call.turns.length === 1 && call.state === "listening"),
  );
  const transcript = [{ role: "agent", text: "What the backend knows." }];
  await world.ask(`/sessions/${session.session_id}/complete`, { transcript, end_reason: "moved" });
  await page.call((call) => void call.hangUp());

  expect(await page.results()).toMatchObject({ status: "completed", end_reason: "moved", transcript });
  expect(await page.call((call) => [call.state, call.reason])).toEqual(["ended", "moved"]);
});
