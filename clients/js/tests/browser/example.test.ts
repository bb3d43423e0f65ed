import axe from "axe-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { openChromium } from "./support/chromium.js";
import { runModule } from "./support/process.js";
import { MODELS } from "./support/stand_ins.js";
import { silence, wavFile } from "./support/wav.js";
import { PATIENCE_MS, SAYS, until } from "./support/world.js";

let browser: Browser;
beforeAll(async () => {
  browser = await openChromium({ wav: wavFile(silence(1)) });
});
afterAll(() => browser.close());

test.each([
  ["python", "/", "Type instead"],
  ["node", "/react", "Start the call"],
])("a call on the example page of the backend in %s at %s ends with results", async (backend, path, start) => {
  const { url, key } = inject("apis")[MODELS[0]];
  const program = ["demo.web_example", "--web-port", "0", "--backend", backend];
  const running = await runModule(program, /^Talk to the agent: \S+$/m, { BASE: url, API_KEY: key });
  const complaints: string[] = [];
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    await page.goto(new URL(path, /Talk to the agent: (\S+)/.exec(running.output)?.[1]).href);
    await page.evaluate(axe.source);
    const barriers = await barriersOf(page);
    await page.getByRole("button", { name: start }).click();

    for (const says of SAYS) {
      await isAsked(page);
      if (says === SAYS.at(-1)) barriers.push(...(await barriersOf(page)));
      await page.locator("#text").fill(says);
      await page.getByRole("button", { name: "Send" }).click();
    }

    await until(
      "the agent hangs up",
      async () => (await page.getByRole("status").textContent()) !== "Mia is listening",
    );
    const fields = page.locator(".results dl");
    await until("there are results", async () => (await fields.textContent())?.includes("Ana Torres"));
    expect(await fields.textContent()).toContain("terrace");
    expect(await fields.textContent()).toContain("T12");
    expect(await page.locator(".tools li").allTextContents()).toEqual([
      expect.stringMatching(/^find_slots: {"free":\["18:00 inside",/),
      'show_table: {"table":"T12","view":"the lake"}',
      'book_table: {"table":"T12"}',
      expect.stringMatching(/^hang_up: /),
    ]);
    expect(await page.locator(".error").textContent()).toBe("");
    expect([...barriers, ...(await barriersOf(page))]).toEqual([]);
    await page.close();
  } finally {
    await running.stop();
  }
  expect(complaints).toEqual([]);
});

/** What keeps people from using the page, by the rules of axe. */
function barriersOf(page: Page): Promise<string[]> {
  return page.evaluate(async () => {
    const { violations } = await (window as unknown as { axe: typeof axe }).axe.run();
    return violations.flatMap(({ id, nodes }) => nodes.map(({ target }) => `${id}: ${target}`));
  });
}

/** Wait until the agent has asked something and listens. */
async function isAsked(page: Page): Promise<void> {
  const turns = page.getByRole("log").locator("li");
  await until("the agent has asked", async () => {
    const isListening = (await page.getByRole("status").textContent()) === "Mia is listening";
    return isListening && (await turns.last().getAttribute("class", { timeout: PATIENCE_MS })) === "agent";
  });
}
