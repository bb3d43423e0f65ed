import { type Browser, launch, type Page } from "puppeteer-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { expectWholeCall } from "./support/expected.js";
import { runSound } from "./support/sound.js";
import { type Json, PATIENCE_MS, SAYS, until, World } from "./support/world.js";

/** Firefox by WebDriver BiDi, with a fake microphone that hums. */
let browser: Browser;
let sound: Awaited<ReturnType<typeof runSound>>;
beforeAll(async () => {
  sound = await runSound();
  browser = await launch({
    env: { ...process.env, ...sound.variables },
    browser: "firefox",
    executablePath: process.env.FIREFOX ?? "/usr/bin/firefox-esr",
    headless: true,
    timeout: PATIENCE_MS,
    extraPrefsFirefox: {
      "media.navigator.streams.fake": true,
      "media.navigator.permission.disabled": true,
      "media.autoplay.default": 0,
    },
  });
});
afterAll(async () => {
  await browser?.close();
  await sound?.stop();
});

async function open(world: World): Promise<Page> {
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  await page.goto(world.site.url);
  await until("the page is loaded", () => page.evaluate(() => "test" in window));
  return page;
}

async function start(page: Page, options: Json, says: string[] = []): Promise<void> {
  await page.evaluate((given: Json) => void Object.assign(window.test, given), { options, says });
  await page.click("#start");
  expect(await until("the call is open", () => page.evaluate(() => window.test.opened))).toBe("call");
}

async function results(page: Page): Promise<Json> {
  return until("the call has results", () => page.evaluate(() => window.test.seen.results));
}

test("a caller holds a whole typed call in Firefox", async () => {
  await using world = await World.with();
  const page = await open(world);
  const session = await world.session();

  await start(page, { session, apiUrl: world.api.url, audio: false, tools: { show_table: "answers" } }, SAYS);

  await expectWholeCall(world, session, await results(page));
  expect(await page.evaluate(() => window.test.seen.violations)).toEqual([]);
  await page.close();
});

test("Firefox loads both worklets under a strict policy, records and plays", async () => {
  await using world = await World.with();
  const page = await open(world);

  await start(page, { session: await world.session(), apiUrl: world.api.url });
  await until("the page sends sound", () =>
    world.gemini.connections.at(-1)?.pcm.some((sample) => Math.abs(sample) > 500),
  );
  await until("the agent is heard", () => page.evaluate(() => window.test.seen.loudest.speaker > 0));
  await page.evaluate(() => void window.test.call.hangUp());

  expect(await results(page)).toMatchObject({ status: "completed" });
  expect(await page.evaluate(() => window.test.seen.violations)).toEqual([]);
  await page.close();
});
