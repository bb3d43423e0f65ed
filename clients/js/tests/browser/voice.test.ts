import { expect, test } from "vitest";
import { CallPage, openChromium } from "./support/chromium.js";
import { expectWholeCall, WHOLE_CALL } from "./support/expected.js";
import { RATE, type Relay } from "./support/relay.js";
import { caller, codesIn, silence, timeCode, wavFile } from "./support/wav.js";
import { inOrder, lines, until, World } from "./support/world.js";

/** Longer than the greeting takes on a machine that stands still for some seconds. */
const LEAD_SECONDS = 8;

test("a caller holds a whole call by voice", async () => {
  await using world = await World.with();
  await using browser = await openChromium({ wav: wavFile(...caller(LEAD_SECONDS)) });
  await using page = await CallPage.open(browser, world);
  const session = await world.session();

  await page.start({ session, apiUrl: world.api.url, tools: { show_table: "answers" } });
  const results = await page.results();

  const state = await expectWholeCall(world, session, results);
  expect(lines(state.transcript)).toEqual(WHOLE_CALL);
  expect(inOrder(state.tool_calls)).toMatchObject([
    {
      name: "show_table",
      arguments: { area: "terrace", guests: 6 },
      response: { table: "T12 on the terrace" },
      status: "succeeded",
    },
    { name: "hang_up" },
  ]);
  expect(state.usage.output_tokens.audio).toBeGreaterThan(0);
  const seen = await page.seen();
  expect(seen.states.at(-1)).toBe("ended");
  expect(new Set(seen.states)).toEqual(new Set(["listening", "thinking", "speaking", "ended"]));
  expect(Math.min(seen.loudest.mic, seen.loudest.speaker)).toBeGreaterThan(0);
});

test("the first word is not lost, because the microphone records from the click on", async () => {
  await using world = await World.with();
  await using browser = await openChromium({ wav: wavFile(timeCode()) });
  await using page = await CallPage.open(browser, world);
  await page.prepare({ apiUrl: world.api.url });
  const session = await world.session();

  await page.start({ session, apiUrl: world.api.url });
  const codes = await until("a second was heard", () => {
    const heard = codesHeard(world.gemini);
    return heard.length > 10 && heard;
  });
  await page.call((call) => void call.hangUp());
  await page.in("ended");

  expect(Math.min(...codes)).toBeLessThan(5); // half a second
});

test("a connection that breaks in mid-sentence loses no turn and less than a second of audio", async () => {
  await using world = await World.with();
  await using browser = await openChromium({ wav: wavFile(silence(LEAD_SECONDS), timeCode(), silence(3)) });
  await using page = await CallPage.open(browser, world);
  const session = await world.session();
  await record(page);
  world.gemini.onSent = (message, connection) => {
    const isInMidSentence =
      message.realtimeInput?.audio && world.gemini.connections.length === 1 && codesHeard(world.gemini).length > 30;
    if (isInMidSentence) connection.cut();
  };

  await page.start({ session, apiUrl: world.api.url });
  await until("the agent has replied", () =>
    page.call((call) => call.turns.length === 3 && call.state === "listening"),
  );
  await page.call((call) => void call.hangUp());
  const results = await page.results();

  const recorded = new Set(codesIn(await recording(page), RATE));
  const heard = new Set(codesHeard(world.gemini));
  const last = Math.max(...heard); // what follows it was recorded when the call ended
  const lost = [...recorded].filter((code) => !heard.has(code) && code < last);
  expect(last).toBeGreaterThan(50); // tenths of a second
  expect(lost.length, `lost ${lost}`).toBeLessThan(10);
  expect(world.gemini.connections.map((connection) => Boolean(connection.handle))).toEqual([false, true]);
  expect(lines(results.transcript)).toEqual(WHOLE_CALL.slice(0, 3));
  expect((await page.seen()).states).toContain("reconnecting");
  expect(results.end_reason).toBe("completed");
});

test("a microphone that is muted sends nothing, and says that it pauses", async () => {
  await using world = await World.with();
  await using browser = await openChromium();
  await using page = await CallPage.open(browser, world);

  await page.start({ session: await world.session(), apiUrl: world.api.url });
  await until("the page sends audio", () => world.gemini.last.audio.length > 10);
  await page.call((call) => (call.mic.muted = true));
  await until("the page says that it pauses", () =>
    world.gemini.last.sent.some((message) => message.realtimeInput?.audioStreamEnd),
  );
  const before = world.gemini.last.audio.length;
  await page.call((call) => call.tell("The caller looks at the menu."));
  await until("the text has come", () =>
    world.gemini.last.sent.some((message) => JSON.stringify(message).includes("menu")),
  );
  const during = world.gemini.last.audio.length;
  await page.call((call) => (call.mic.muted = false));
  await until("the page sends audio again", () => world.gemini.last.audio.length > during + 10);
  await page.call((call) => void call.hangUp());
  await page.in("ended");

  expect(during).toBe(before);
});

function codesHeard(gemini: Relay): number[] {
  return gemini.connections.flatMap((connection) => codesIn(connection.pcm, RATE));
}

/** Let the page keep what its microphone records, as it leaves the worklet. */
async function record(page: CallPage): Promise<void> {
  await page.page.evaluate(() => {
    const pieces: number[] = [];
    window.recorded = pieces;
    globalThis.AudioWorkletNode = class extends AudioWorkletNode {
      constructor(context: BaseAudioContext, name: string, options?: AudioWorkletNodeOptions) {
        super(context, name, options);
        this.port.addEventListener("message", ({ data }) => {
          if (data.pcm) pieces.push(...new Int16Array(data.pcm));
        });
      }
    };
  });
}

async function recording(page: CallPage): Promise<Int16Array> {
  return Int16Array.from(await page.page.evaluate(() => window.recorded));
}

declare global {
  interface Window {
    recorded: number[];
  }
}
