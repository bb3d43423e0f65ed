import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CallPage, openChromium } from "./support/chromium.js";
import { AGENT, CLOSING, inOrder, type Json, SAYS, until, World, wordsOf } from "./support/world.js";

let browser: Browser;
beforeAll(async () => {
  browser = await openChromium();
});
afterAll(() => browser.close());

/** Hold a typed call in which the agent calls a tool, and return what was recorded of its calls. */
async function toolCalls(options: Json): Promise<[string, string, Json][]> {
  await using world = await World.with();
  await using page = await CallPage.open(browser, world);
  page.expected = /The floor plan is missing|has to return an object/; // for the developer of the page
  const session = await world.session();

  await page.start({ session, apiUrl: world.api.url, audio: false, ...options }, SAYS);
  const results = await page.results();

  expect(wordsOf("agent", results.transcript).at(-1)).toBe(CLOSING);
  const recorded = inOrder(results.tool_calls);
  expect(await page.call((call) => call.toolCalls.map(({ name, status }: Json) => [name, status]))).toEqual(
    recorded.map(({ name, status }: Json) => [name, status]),
  );
  return recorded.map(({ name, status, response }: Json) => [name, status, response]);
}

test.each([
  ["throws", { tools: { show_table: "throws" } }, "failed"],
  ["returns a text", { tools: { show_table: "text" } }, "failed"],
  ["is not there", {}, "failed"],
  ["takes too long", { tools: { show_table: "hangs" }, toolTimeoutSeconds: 1 }, "timeout"],
])("a tool that %s is answered and recorded as a failure", async (_, options, status) => {
  const [first, ...others] = await toolCalls(options);

  expect(first).toEqual(["show_table", status, { error: expect.any(String) }]);
  expect(JSON.stringify(first)).not.toContain("floor plan");
  expect(others.map(([name]) => name)).toEqual(["hang_up"]);
});

test("a caller who speaks while a tool runs cancels it", async () => {
  await using world = await World.with();
  await using page = await CallPage.open(browser, world);
  const session = await world.session();

  await page.start({ session, apiUrl: world.api.url, audio: false, tools: { show_table: "hangs" } }, SAYS.slice(0, 4));
  await until("the tool runs", () => page.call((call) => call.toolCalls[0]?.status === "running"));
  await page.call((call) => call.say("Wait, who are you?"));
  const [cancelled] = await until("the tool is aborted", async () => {
    const { cancelled } = await page.seen();
    return cancelled.length && cancelled;
  });
  await until("the agent has answered", () => page.call((call) => call.state === "listening"));
  await page.call((call) => void call.hangUp());
  const results = await page.results();

  expect(await page.call((call) => call.toolCalls.map(({ callId, status }: Json) => [callId, status]))).toEqual([
    [cancelled, "cancelled"],
  ]);
  expect(results.tool_calls).toMatchObject([{ call_id: cancelled, name: "show_table", status: "failed" }]);
});

test("a handler gets the arguments that the agent names", async () => {
  const [first] = await toolCalls({ tools: { show_table: "answers" } });

  expect(AGENT.tools[0].name).toBe("show_table");
  expect(first).toEqual(["show_table", "succeeded", { table: "T12 on the terrace" }]);
});
