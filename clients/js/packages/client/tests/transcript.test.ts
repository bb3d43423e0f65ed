import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { Transcript } from "../src/transcript.js";
import type { ServerMessage, Turn } from "../src/types.js";
import { agentSays, agentText, callerText, interrupted, spoken, turnComplete } from "./support/socket.js";

interface Case {
  name: string;
  messages: (ServerMessage & { typed?: string })[];
  turns: Turn[];
  settled?: number;
  turn_ends_at?: string;
  at_ms?: number[];
}

const CASES: Case[] = JSON.parse(
  readFileSync(new URL("../../../../../tests/support/transcription.json", import.meta.url), "utf-8"),
);

function assembled({ messages, turn_ends_at, at_ms }: Case): Transcript {
  let now = 0;
  const transcript = new Transcript(turn_ends_at, at_ms && (() => now));
  messages.forEach((message, number) => {
    now = at_ms?.[number] ?? 0;
    if (message.typed === undefined) transcript.take(message);
    else transcript.typed(message.typed);
  });
  return transcript;
}

test.each(CASES)("messages become turns: $name", (each) => {
  const transcript = assembled(each);

  expect(transcript.turns).toEqual(each.turns);
  expect(transcript.settled).toBe(each.settled ?? transcript.settled);
});

test("what is settled no longer changes", () => {
  for (const each of CASES) {
    const transcript = new Transcript(each.turn_ends_at);
    let settled: readonly Turn[] = [];
    for (const message of each.messages) {
      if (message.typed === undefined) transcript.take(message);
      else transcript.typed(message.typed);
      expect(transcript.turns.slice(0, settled.length)).toEqual(settled);
      settled = transcript.turns.slice(0, transcript.settled);
    }
  }
});

function talked(...messages: ServerMessage[]): Transcript {
  const transcript = new Transcript();
  for (const message of messages) transcript.take(message);
  return transcript;
}

const agentsText = (transcript: Transcript): string | undefined =>
  transcript.turns.find(({ role }) => role === "agent")?.text;

describe("an interrupted turn", () => {
  test.each([
    [0.5, "We are open from nine"],
    [0.42, "We are open from"],
    [1, "We are open from nine to five every day."],
    [0, undefined],
  ])("of which %d was heard is cut after that word", (share, text) => {
    const transcript = talked(spoken(), agentText("We are open from nine to five every day."), interrupted);

    transcript.cutAgentsTurn(share);

    expect(agentsText(transcript)).toBe(text);
  });

  test("counts late text to the whole", () => {
    const transcript = talked(spoken(), agentText("We are open from "), interrupted);

    transcript.cutAgentsTurn(0.5);
    transcript.take(agentText("nine to five every day."));

    expect(agentsText(transcript)).toBe("We are open from nine");
  });

  test("that was heard to its end has its late text", () => {
    const transcript = talked(spoken(), agentText("See you"), interrupted);

    transcript.cutAgentsTurn(1);
    transcript.take(agentText(" soon!"));

    expect(agentsText(transcript)).toBe("See you soon!");
  });

  test("in a language without spaces is cut between characters", () => {
    const transcript = talked(spoken(), agentText("営業時間は九時からです。"), interrupted);

    transcript.cutAgentsTurn(0.5);

    expect(agentsText(transcript)).toBe("営業時間は九");
  });

  test("is not cut in the middle of a character", () => {
    const transcript = talked(spoken(), agentText("😀😀"), interrupted);

    transcript.cutAgentsTurn(0.25);

    expect(agentsText(transcript)).toBe("😀😀");
  });

  test("leaves the next turn whole", () => {
    const transcript = talked(spoken(), agentText("One two three four."), interrupted);
    transcript.cutAgentsTurn(0.5);

    for (const message of [turnComplete, callerText("What?"), ...agentSays("One two three four.")])
      transcript.take(message);

    expect(transcript.turns.map(({ text }) => text)).toEqual(["One two three", "What?", "One two three four."]);
  });
});

test("turns from before a reload come first and are settled", () => {
  const earlier: Turn[] = [{ role: "agent", text: "Hello.", start_ms: 1, end_ms: 2 }];
  const transcript = new Transcript("turnComplete", undefined, earlier);

  expect(transcript.settled).toBe(1);
  transcript.typed("Hi.");

  expect(transcript.turns).toEqual([...earlier, { role: "user", text: "Hi." }]);
  expect(transcript.settled).toBe(1);
});

test("the turns are the same array until they change", () => {
  const transcript = talked(spoken(), agentText("Hello."));
  const { turns } = transcript;

  transcript.take(spoken());
  expect(transcript.turns).toBe(turns);
  transcript.take(agentText(" Hi."));
  expect(transcript.turns).not.toBe(turns);
});

test("a turn is no longer than the API takes", () => {
  const transcript = new Transcript();

  transcript.typed("a".repeat(20_001));

  expect(transcript.turns[0]?.text).toHaveLength(20_000);
});
