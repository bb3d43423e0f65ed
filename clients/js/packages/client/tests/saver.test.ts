import { beforeEach, expect, test } from "vitest";
import { SessionApi } from "../src/api.js";
import type { CallError } from "../src/errors.js";
import { Saver } from "../src/saver.js";
import { Transcript } from "../src/transcript.js";
import type { Turn } from "../src/types.js";
import { API_URL, apiError, ScriptedApi, SESSION } from "./support/api.js";
import { agentSays, callerText } from "./support/socket.js";

let server: ScriptedApi;
let transcript: Transcript;
let saver: Saver;
let errors: CallError[];
let hungUp: number;

function prepare(next = 0, earlier: Turn[] = []): void {
  const api = new SessionApi(API_URL, SESSION.session_id, "pi_sess_first");
  transcript = new Transcript("turnComplete", undefined, earlier);
  saver = new Saver(
    api,
    transcript,
    next,
    () => hungUp++,
    (error) => errors.push(error),
  );
}

beforeEach(() => {
  server = new ScriptedApi();
  errors = [];
  hungUp = 0;
  prepare();
});

function talk(...texts: string[]): void {
  for (const text of texts)
    for (const message of [...agentSays(`${text}?`), callerText(`${text}.`)]) transcript.take(message);
}

const savedTexts = (): string[] => server.saved.map(({ text }) => text);

test("only turns that can no longer change are saved", async () => {
  talk("One", "Two");

  saver.save();
  await saver.saved();

  expect(savedTexts()).toEqual(["One?", "One."]);
  expect(saver.next).toBe(2);
});

test("the next turns follow those that are saved", async () => {
  talk("One", "Two");
  saver.save();
  await saver.saved();
  talk("Three");

  saver.save();
  await saver.saved();

  expect(server.of("/transcript").map(({ body }) => body.from)).toEqual([0, 2]);
  expect(savedTexts()).toEqual(["One?", "One.", "Two?", "Two."]);
});

test("the turns of a request that failed are sent with the next ones", async () => {
  server.answers("/transcript", "no network");
  talk("One", "Two");
  saver.save();
  await saver.saved();
  talk("Three");

  saver.save();
  await saver.saved();

  expect(savedTexts()).toEqual(["One?", "One.", "Two?", "Two."]);
  expect(errors.map(({ code, retryable }) => [code, retryable])).toEqual([["api_unavailable", true]]);
});

test("a request that failed is not repeated before there are more turns, except at the end", async () => {
  const away = ["no network", "no network", "no network"] as const;
  server.answers("/transcript", ...away);
  talk("One", "Two");

  for (let message = 0; message < 5; message++) {
    saver.save();
    await saver.saved();
  }
  expect(errors).toHaveLength(1);

  talk("Three");
  saver.save();
  await saver.saved();
  expect(errors).toHaveLength(2);

  await saver.saveAll();
  expect(errors).toHaveLength(3);
  await saver.saveAll();
  expect(savedTexts()).toEqual(["One?", "One.", "Two?", "Two.", "Three?", "Three."]);
});

test("after a gap it goes on where the API says", async () => {
  prepare(2, [
    { role: "agent", text: "A" },
    { role: "user", text: "B" },
  ]);
  server.answers("/transcript", apiError(409, "voice_transcript_gap", { next: 0 }));
  talk("One");

  await saver.saveAll();

  expect(savedTexts()).toEqual(["A", "B", "One?", "One."]);
});

test("a gap that stays is given up", async () => {
  const gap = apiError(409, "voice_transcript_gap", { next: 0 });
  server.answers("/transcript", gap, gap);
  talk("One");

  await saver.saveAll();

  expect(server.seen).toHaveLength(1);
  expect(errors.map(({ code }) => code)).toEqual(["voice_transcript_gap"]);
});

test("an answer that does not advance ends the saving", async () => {
  server.answers("/transcript", { body: { data: { next: 0 } } });
  talk("One");

  await saver.saveAll();

  expect(server.seen).toHaveLength(1);
});

test("another writer takes the transcript over", async () => {
  server.answers("/transcript", apiError(409, "voice_transcript_conflict", { next: 1 }));
  talk("One");

  await saver.saveAll();

  expect(errors.map(({ code }) => code)).toEqual(["transcript_taken_over"]);
});

test("a call that was hung up is noticed", async () => {
  server.hungUpAt = 1_790_000_000;
  talk("One");

  await saver.saveAll();

  expect(hungUp).toBe(1);
});

test("a page that is closed sends all turns, in a request that outlives it", async () => {
  talk("One");

  saver.leave();
  await Promise.resolve();

  expect(savedTexts()).toEqual(["One?", "One."]);
  expect(server.seen[0]?.keepalive).toBe(true);
});

test("a page that is closed sends no more than the browser takes", () => {
  for (let turn = 0; turn < 20; turn++) talk("é".repeat(2_000));

  saver.leave();

  const { turns } = server.body("/transcript") as { turns: Turn[] };
  expect(turns.length).toBeGreaterThan(10);
  expect(new TextEncoder().encode(JSON.stringify(server.seen[0]?.body)).length).toBeLessThan(60_000);
});

test("large transcripts are saved in parts that the API takes", async () => {
  for (let turn = 0; turn < 400; turn++) talk("a".repeat(700));

  await saver.saveAll();

  expect(server.saved).toHaveLength(800);
  for (const { body } of server.seen) {
    expect((body.turns as Turn[]).length).toBeLessThanOrEqual(500);
    expect(JSON.stringify(body).length).toBeLessThan(300_000);
  }
});

test("turns that only the API has are counted", async () => {
  prepare(5, [{ role: "agent", text: "A" }]);
  talk("One");

  await saver.saveAll();

  expect(saver.isWhole).toBe(false);
  expect(server.seen[0]?.body).toMatchObject({ from: 5, turns: [{ text: "One?" }, { text: "One." }] });
});
