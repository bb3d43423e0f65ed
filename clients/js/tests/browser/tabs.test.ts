import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CallPage, openChromium } from "./support/chromium.js";
import { expectWholeCall, WHOLE_CALL } from "./support/expected.js";
import { lines, SAYS, until, World } from "./support/world.js";

let browser: Browser;
beforeAll(async () => {
  browser = await openChromium();
});
afterAll(() => browser.close());

const TOOLS = { show_table: "answers" };

test("a page that is reloaded in mid-call goes on with the call", async () => {
  await using world = await World.with();
  await using page = await CallPage.open(browser, world);
  const session = await world.session();
  const options = { apiUrl: world.api.url, audio: false, tools: TOOLS };

  await page.start({ ...options, session }, SAYS.slice(0, 2));
  await until("two lines were answered", () =>
    page.call((call) => call.turns.length === 5 && call.state === "listening"),
  );
  await page.reload();
  expect(await page.resume(options, SAYS.slice(2))).toBe("call");
  const results = await page.results();

  await expectWholeCall(world, session, results);
});

test("a page that is reloaded while it speaks and hears goes on by voice", async () => {
  await using world = await World.with();
  await using page = await CallPage.open(browser, world);
  const session = await world.session();

  await page.start({ session, apiUrl: world.api.url });
  await until("the agent speaks", async () => (await page.seen()).states.includes("speaking"));
  await page.reload();
  expect(await page.resume({ apiUrl: world.api.url })).toBe("call");
  const before = world.gemini.last.audio.length;
  await until("the page sends audio again", () => world.gemini.last.audio.length > before + 10);
  await until("the agent speaks again", async () => (await page.seen()).loudest.speaker > 0);
  await page.call((call) => void call.hangUp());
  const results = await page.results();

  expect(results.status).toBe("completed");
});

test("there is nothing to go on with in a tab without a call, and after the end of one", async () => {
  await using world = await World.with();
  await using page = await CallPage.open(browser, world);
  const options = { apiUrl: world.api.url, audio: false };

  expect(await page.resume(options)).toBe("none");
  await page.reload();
  await page.start({ ...options, session: await world.session() });
  await page.call((call) => void call.hangUp());
  await page.results();
  await page.reload();
  expect(await page.resume(options)).toBe("none");
});

test("the turns before a tab was closed are saved", async () => {
  await using world = await World.with();
  const page = await CallPage.open(browser, world);
  const session = await world.session();

  await page.start({ session, apiUrl: world.api.url, audio: false, tools: TOOLS }, SAYS.slice(0, 1));
  await until("a line was answered", () => page.call((call) => call.turns.length === 3 && call.state === "listening"));
  await page.page.goto("about:blank");
  await until("all turns are saved", async () => (await world.state(session)).checkpoint_turns === 3);
  await page.page.close();

  const results = await world.ask(`/sessions/${session.session_id}/complete`, {});
  expect(lines(results.transcript)).toEqual(WHOLE_CALL.slice(0, 3));
});

test("two tabs hold two calls at a time", async () => {
  await using world = await World.with();
  await using context = await browser.newContext();
  await using one = await CallPage.open(context, world);
  await using two = await CallPage.open(context, world);
  const sessions = [await world.session(), await world.session()];
  const options = { apiUrl: world.api.url, audio: false, tools: TOOLS };

  await one.start({ ...options, session: sessions[0] }, SAYS);
  await two.start({ ...options, session: sessions[1] }, SAYS);

  await expectWholeCall(world, sessions[0], await one.results());
  await expectWholeCall(world, sessions[1], await two.results());
});

test("a second tab cannot take over the call of the first one", async () => {
  await using world = await World.with();
  await using context = await browser.newContext();
  await using one = await CallPage.open(context, world);
  await using two = await CallPage.open(context, world);
  const session = await world.session();
  const options = { session, apiUrl: world.api.url, audio: false, tools: TOOLS };

  await one.start(options, SAYS.slice(0, 1));
  await until("a line was answered", () => one.call((call) => call.turns.length === 3 && call.state === "listening"));
  expect(await two.start(options)).toBe("failed");
  expect((await two.seen()).failure).toMatchObject({
    name: "CallError",
    code: "transcript_taken_over",
    retryable: false,
  });
  await goOn(one);

  await expectWholeCall(world, session, await one.results());
  expect(world.gemini.connections).toHaveLength(1);
});

test("of two browsers with the same session one keeps the transcript, and the other is told so", async () => {
  await using world = await World.with();
  await using first = await browser.newContext();
  await using second = await browser.newContext();
  await using one = await CallPage.open(first, world);
  await using two = await CallPage.open(second, world);
  const session = await world.session();
  const options = { session, apiUrl: world.api.url, audio: false, tools: TOOLS };

  await one.start(options, SAYS.slice(0, 2));
  await until("turns are saved", () => world.api.of("transcript").some(({ status }) => status === 200));
  await two.start(options, ["This is another browser.", "It says something else.", "And something more."]);
  await until("the other is told so", async () => (await two.seen()).failure?.code === "transcript_taken_over");
  await until("two lines were answered", () =>
    one.call((call) => call.turns.length === 5 && call.state === "listening"),
  );
  await goOn(one, 2);

  const state = await expectWholeCall(world, session, await one.results());
  expect(lines(state.transcript)).toEqual(WHOLE_CALL);
});

/** Let the caller say the other lines, one after each turn of the agent. */
async function goOn(page: CallPage, said = 1): Promise<void> {
  for (const [number, line] of SAYS.slice(said).entries()) {
    const turns = 2 * (said + number) + 1;
    await until("the agent has spoken", () =>
      page.page.evaluate(
        (count) => window.test.call.turns.length === count && window.test.call.state === "listening",
        turns,
      ),
    );
    await page.page.evaluate((text) => window.test.call.say(text), line);
  }
}
