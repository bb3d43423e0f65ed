import { expect, test } from "vitest";
import { SpeechEnd } from "../src/speech-end.js";
import { SpokenAudio } from "../src/spoken-audio.js";

function talked(pieces: number, level = 0.1): SpokenAudio {
  const audio = new SpokenAudio();
  for (let piece = 0; piece < pieces; piece++) audio.hold(String(piece), level, piece * 32);
  return audio;
}

test("what was held back is taken once, in order", () => {
  const audio = talked(3);

  expect(audio.take()).toEqual(["0", "1", "2"]);
  expect(audio.take()).toEqual([]);
});

test("half a minute is held back, and the oldest pieces are dropped", () => {
  const pieces = talked(1_200).take();

  expect(pieces).toHaveLength(1_000);
  expect(pieces.at(-1)).toBe("1199");
});

test("the last ten seconds can be sent again", () => {
  const audio = talked(500);
  audio.take();

  audio.rewind(0);
  const again = audio.take();

  expect(again.length * 32).toBeGreaterThan(9_900);
  expect(again.length * 32).toBeLessThanOrEqual(10_016);
  expect(again.at(-1)).toBe("499");
});

test("what was recorded before a time is not sent again", () => {
  const audio = talked(100);
  audio.take();

  audio.rewind(98 * 32);

  expect(audio.take()).toEqual(["99"]);
});

test("what is sent again comes before what is held back, once", () => {
  const audio = talked(2);
  audio.take();
  audio.hold("2", 0, 64);

  audio.rewind(0);
  audio.rewind(0);

  expect(audio.take()).toEqual(["1", "2"]);
});

test("a voice that is held back is noticed", () => {
  expect(talked(100, 0.001).hasSpeech).toBe(false);
  expect(talked(3, 0.1).hasSpeech).toBe(false);
  expect(talked(10, 0.1).hasSpeech).toBe(true);
});

test("the end of the caller's speech is noticed once, after a pause", () => {
  const end = new SpeechEnd();
  const levels = [...Array(20).fill(0.1), ...Array(5).fill(0), ...Array(10).fill(0.1), ...Array(40).fill(0)];

  const heard = levels.map((level) => end.take(level));

  expect(heard.filter((each) => each === "ended")).toHaveLength(1);
  expect(heard.indexOf("ended")).toBeGreaterThan(50);
});

test("a short noise is no speech", () => {
  const end = new SpeechEnd();

  const heard = [0.1, 0.1, 0.1, ...Array(40).fill(0)].map((level) => end.take(level));

  expect(heard.every((each) => each === "")).toBe(true);
});
