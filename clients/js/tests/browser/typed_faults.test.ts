import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CallPage, openChromium } from "./support/chromium.js";
import { expectWholeCall, WHOLE_CALL } from "./support/expected.js";
import type { Faults } from "./support/stand_ins.js";
import { type Json, lines, SAYS, World } from "./support/world.js";

let browser: Browser;
beforeAll(async () => {
  browser = await openChromium();
});
afterAll(() => browser.close());

/** Hold a typed call with a Gemini that has faults. */
async function hold(world: World, session: Json, tool = "answers"): Promise<Json> {
  await using page = await CallPage.open(browser, world);
  await page.start({ session, apiUrl: world.api.url, audio: false, tools: { show_table: tool } }, SAYS);
  const results = await page.results();
  const { states } = await page.seen();
  expect(states.at(-1)).toBe("ended");
  return { results, states };
}

const renewals = (world: World) => world.api.of("renew").map(({ body }) => body.has_resumption_handle);

test.each<Faults>(["", "late_text,bundled,silent_greeting", "go_away"])(
  "a call with %j has the transcript of a call without faults",
  async (faults) => {
    await using world = await World.with(faults);
    const session = await world.session();

    const { results } = await hold(world, session);

    const state = await expectWholeCall(world, session, results);
    expect(lines(state.transcript)).toEqual(WHOLE_CALL);
    expect(renewals(world)).toEqual([]);
    expect(world.gemini.connections.length).toBe(faults === "go_away" ? 2 : 1);
  },
);

test.each<Faults>(["", "late_text,bundled,go_away"])(
  "a call with %j and a model that thinks between its words has the same transcript",
  async (faults) => {
    await using world = await World.with(faults, "gemini-3.8-live-extended-thinking");
    const session = await world.session();

    const { results } = await hold(world, session);

    const state = await expectWholeCall(world, session, results);
    expect(lines(state.transcript)).toEqual(WHOLE_CALL);
  },
);

/** The renewals that follow a fault: whether there is a handle to resume with. */
const CUT: [Faults, boolean[]][] = [
  ["go_away_now", []],
  ["drop", []],
  ["hang_up", [true]],
  ["go_away_now,resume_1011", [true]],
  ["drop,resume_1011", [true]],
];

test.each(CUT)("a call that %j cuts off goes on where it was", async (faults, renewed) => {
  await using world = await World.with(faults);
  const session = await world.session();

  const { results, states } = await hold(world, session);

  await expectWholeCall(world, session, results);
  expect(states).toContain("reconnecting");
  expect(renewals(world)).toEqual(renewed);
});

test("a call whose every session breaks and cannot be resumed begins anew each time, and goes on where it was", async () => {
  await using world = await World.with("drop,resume_1007");
  const session = await world.session();

  const { results } = await hold(world, session);

  await expectWholeCall(world, session, results);
  expect(renewals(world).length).toBeGreaterThan(1);
  expect(renewals(world)).not.toContain(true);
});

test("a tool call that Gemini cancels is aborted, and the call goes on", async () => {
  await using world = await World.with("tool_cancelled");
  const session = await world.session();

  const { results } = await hold(world, session, "hangs");

  const state = await expectWholeCall(world, session, results);
  expect(state.tool_calls).toMatchObject([{ name: "show_table", status: "failed" }, { name: "hang_up" }]);
});

test("a call whose agent only claims to have called a tool has no such tool call", async () => {
  await using world = await World.with("claims_tool");
  const session = await world.session();

  const { results } = await hold(world, session);

  const state = await expectWholeCall(world, session, results);
  expect(state.tool_calls).toMatchObject([{ name: "hang_up" }]);
});
