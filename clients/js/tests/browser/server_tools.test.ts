import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { BookingServer } from "./support/booking.js";
import { CallPage, openChromium } from "./support/chromium.js";
import type { Connection } from "./support/relay.js";
import { MODELS } from "./support/stand_ins.js";
import { type Json, SAYS, until, World, wordsOf } from "./support/world.js";

let browser: Browser;
beforeAll(async () => {
  browser = await openChromium();
});
afterAll(() => browser.close());

const TABLE = { day: "Friday", time: "19:30", area: "terrace", guests: 6 };

const optionsOf = (world: World, session: Json) => ({
  session,
  apiUrl: world.api.url,
  audio: false,
  tools: { show_table: "answers" },
});

/** What the page has answered to a function call, over one connection. */
const answersOf = (connection: Connection, name: string): Json[] =>
  connection.sent
    .flatMap((message) => message.toolResponse?.functionResponses ?? [])
    .filter((answer: Json) => answer.name === name);

const askedFor = (world: World, name: string) => world.api.of("tool-calls").filter(({ body }) => body.name === name);

const namesAndStatuses = (calls: readonly Json[]) => calls.map(({ name, status }) => [name, status]);

test("a table is booked by the server, and no secret is in the browser", async () => {
  await using world = await World.with();
  await using server = await BookingServer.for(world);
  await using page = await CallPage.open(browser, world);
  const session = await world.session({}, World.booking(server.endpoint.endpoint_id));

  await page.start(optionsOf(world, session), SAYS);
  const results = await page.results();

  const all = ["find_slots", "show_table", "book_table", "hang_up"].map((name) => [name, "succeeded"]);
  expect(namesAndStatuses(results.tool_calls)).toEqual(all);
  expect(await page.call((call) => call.toolCalls.map(({ name, status }: Json) => [name, status]))).toEqual(all);
  expect(wordsOf("agent", results.transcript).at(-1)).toBe("Done: T12. Thank you, see you soon!");
  expect(results.results).toMatchObject({ table: "T12" });
  expect(server.calls).toMatchObject([
    { name: "find_slots", participant: { identity: "guest-17" }, variables: { restaurant: "Linden by the lake" } },
    { name: "book_table", arguments: TABLE, session_id: session.session_id },
  ]);
  expect(askedFor(world, "book_table")).toMatchObject([{ status: 200 }]);
  expect(Object.keys(askedFor(world, "book_table")[0]?.body).sort()).toEqual(["arguments", "call_id", "name"]);

  const stored = await page.page.evaluate(() => JSON.stringify([{ ...sessionStorage }, { ...localStorage }]));
  const known = [JSON.stringify(session), stored, ...world.api.texts].join("\n");
  expect(known).toContain("book_table");
  for (const secret of [
    inject("apis")[MODELS[0]].key,
    server.endpoint.secret,
    "whsec_",
    server.endpoint.endpoint_id,
    server.url,
  ])
    expect(known).not.toContain(secret);
});

test("the answer of the server is held until the connection to Gemini is ready again", async () => {
  await using world = await World.with();
  await using server = await BookingServer.for(world);
  await using page = await CallPage.open(browser, world);
  const session = await world.session({}, World.booking(server.endpoint.endpoint_id));
  server.isClosed = true;

  await page.start(optionsOf(world, session), SAYS.slice(0, 3));
  await until("the server is asked", () => server.calls.length);
  const [first] = world.gemini.connections as [Connection];
  world.gemini.isAway = true;
  first.cut();
  server.isClosed = false;
  await until("there is the answer", () => page.call((call) => call.toolCalls[0]?.status === "succeeded"));
  world.gemini.isAway = false;
  await until("the call goes on", () => page.call((call) => call.state === "listening" && call.turns.length === 7));
  await page.call((call) => void call.hangUp());
  const results = await page.results();

  const [{ call_id }] = server.calls;
  const answered = (connection: Connection) => answersOf(connection, "find_slots").map(({ id }) => id);
  expect(answered(first)).toEqual([]);
  expect(answered(world.gemini.last).filter((id) => id === call_id)).toEqual([call_id]);
  expect(world.gemini.last.handle).toBeTruthy();
  expect(results.tool_calls[0]).toMatchObject({ call_id, status: "succeeded" });
});

test("an answer of the API that is lost is asked for again, and the table is booked once", async () => {
  await using world = await World.with();
  await using server = await BookingServer.for(world);
  await using page = await CallPage.open(browser, world);
  const session = await world.session({}, World.booking(server.endpoint.endpoint_id));
  world.api.losesResponse = ({ body }) => body?.name === "book_table" && !askedFor(world, "book_table").length;

  await page.start(optionsOf(world, session), SAYS);
  const results = await page.results();

  expect(askedFor(world, "book_table").map(({ status }) => status)).toEqual([0, 200]);
  expect(server.calls.map(({ name }) => name)).toEqual(["find_slots", "book_table"]);
  expect(results.tool_calls).toMatchObject([{}, {}, { name: "book_table", response: { table: "T12" } }, {}]);
});

test("a caller who speaks while the server works cancels the call, and its answer is dropped", async () => {
  await using world = await World.with();
  await using server = await BookingServer.for(world);
  await using page = await CallPage.open(browser, world);
  const session = await world.session({}, World.booking(server.endpoint.endpoint_id));
  server.isClosed = true;

  await page.start(optionsOf(world, session), SAYS.slice(0, 3));
  await until("the server is asked", () => server.calls.length);
  await page.call((call) => call.say("Wait, who are you?"));
  await until("the call is cancelled", () => page.call((call) => call.toolCalls[0]?.status === "cancelled"));
  server.isClosed = false;
  await until("the agent has answered", () => page.call((call) => call.state === "listening"));
  await page.call((call) => void call.hangUp());
  await page.results();

  expect(answersOf(world.gemini.last, "find_slots")).toEqual([]);
});

test("of two tabs with the same call one runs it, and the other gets its record", async () => {
  await using world = await World.with();
  await using server = await BookingServer.for(world);
  await using first = await browser.newContext();
  await using second = await browser.newContext();
  await using one = await CallPage.open(first, world);
  await using two = await CallPage.open(second, world);
  const session = await world.session({}, World.booking(server.endpoint.endpoint_id));
  world.gemini.keeps = (message) => "toolResponse" in message; // Gemini does not know the call
  server.isClosed = true;

  await one.start(optionsOf(world, session));
  await two.start(optionsOf(world, session));
  for (const page of [one, two]) await page.in("listening");
  const functionCalls = [{ id: "call-of-both", name: "book_table", args: TABLE }];
  const connections = world.gemini.connections.filter(({ received }) => received.length); // others were refused
  for (const connection of connections) connection.receive({ toolCall: { functionCalls } });
  await until("one tab waits for the other", () => askedFor(world, "book_table").some(({ status }) => status === 409));
  server.isClosed = false;
  for (const page of [one, two])
    await until("the tab has the answer", () => page.call((call) => call.toolCalls[0]?.status === "succeeded"));

  const answer = { id: "call-of-both", name: "book_table", response: { table: "T12" } };
  for (const connection of connections)
    await until("the tab has answered", () => answersOf(connection, "book_table").length);
  expect(connections.map((connection) => answersOf(connection, "book_table"))).toEqual([[answer], [answer]]);
  expect(server.calls).toHaveLength(1);
  expect((await world.state(session)).tool_calls).toMatchObject([{ call_id: "call-of-both", status: "succeeded" }]);
});
