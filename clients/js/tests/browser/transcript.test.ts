import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { Transcript } from "../../packages/client/src/transcript.js";
import { ROOT } from "./support/process.js";
import { type Json, PATIENCE_MS } from "./support/world.js";

test("any messages become the same turns as with the Python reference client", () => {
  const module = ["-m", "tests.browser.any_messages"];
  const env = { ...process.env, PYTHONPATH: ".:layers/voice" };
  const printed = execFileSync(`${ROOT}.venv/bin/python`, module, {
    cwd: ROOT,
    env,
    timeout: PATIENCE_MS,
    maxBuffer: 2 ** 26,
  });
  const cases: Json[] = JSON.parse(String(printed));

  expect(cases.length).toBeGreaterThanOrEqual(100);
  for (const { messages, turn_ends_at, at_ms, turns, settled } of cases) {
    let now = 0;
    const transcript = new Transcript(turn_ends_at, () => now);
    messages.forEach((message: Json, number: number) => {
      now = at_ms[number];
      if (message.typed === undefined) transcript.take(message);
      else transcript.typed(message.typed);
    });
    expect({ turns: transcript.turns, settled: transcript.settled }, JSON.stringify(messages)).toEqual({
      turns,
      settled,
    });
  }
});
