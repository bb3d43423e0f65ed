import { describe, expect, test } from "vitest";
import { Player } from "../src/worklets/player.js";
import { type RecordedPiece, Recorder } from "../src/worklets/recorder.js";
import { Resampler } from "../src/worklets/resampler.js";

const BLOCK = 128;

function sine(frequency: number, rate: number, seconds: number): Float32Array {
  return Float32Array.from(
    { length: rate * seconds },
    (_, at) => 0.5 * Math.sin((2 * Math.PI * frequency * at) / rate),
  );
}

function* blocks(samples: Float32Array): Generator<Float32Array> {
  for (let at = 0; at < samples.length; at += BLOCK) yield samples.slice(at, at + BLOCK);
}

function resampled(samples: Float32Array, from: number, to: number): number[] {
  const resampler = new Resampler(from, to);
  return [...blocks(samples)].flatMap((block) => [...resampler.push(block)]);
}

const loudness = (samples: ArrayLike<number>): number =>
  Math.sqrt(Array.from(samples).reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
const decibels = (samples: number[]): number =>
  20 * Math.log10(loudness(samples.slice(200, -200)) / (0.5 / Math.SQRT2));

describe("the resampler", () => {
  test.each([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 88_200, 96_000, 192_000])(
    "makes 16 kHz from %d Hz, as long as the input, give or take its filter",
    (rate) => {
      const samples = resampled(sine(440, rate, 1), rate, 16_000);

      expect(Math.abs(samples.length - 16_000)).toBeLessThan(40);
    },
  );

  test.each([44_100, 48_000, 96_000])("keeps speech from %d Hz", (rate) => {
    for (const frequency of [100, 1_000, 3_400, 6_000])
      expect(Math.abs(decibels(resampled(sine(frequency, rate, 0.5), rate, 16_000)))).toBeLessThan(0.1);
  });

  test.each([44_100, 48_000, 96_000])("removes from %d Hz what 16 kHz cannot hold", (rate) => {
    for (const frequency of [9_000, 12_000, 15_900, 20_000])
      expect(decibels(resampled(sine(frequency, rate, 0.5), rate, 16_000))).toBeLessThan(-60);
  });

  test("adds no mirrored tones when the rate rises", () => {
    const samples = resampled(sine(3_000, 24_000, 0.5), 24_000, 48_000);
    const perfect = sine(3_000, 48_000, 0.5);
    const difference = samples.slice(500, -500).map((sample, at) => sample - (perfect[at + 500] as number));

    expect(20 * Math.log10(loudness(difference) / loudness(perfect))).toBeLessThan(-50);
  });

  test("makes the same samples from pieces of any size", () => {
    const samples = sine(700, 44_100, 0.2);
    const whole = new Resampler(44_100, 16_000).push(samples);

    expect(resampled(samples, 44_100, 16_000)).toEqual([...whole]);
  });
});

describe("the recorder", () => {
  function recorded(samples: Float32Array, rate: number): RecordedPiece[] {
    const pieces: RecordedPiece[] = [];
    const recorder = new Recorder(rate);
    for (const block of blocks(samples)) recorder.push(block, (piece) => pieces.push(piece));
    return pieces;
  }

  test.each([44_100, 48_000])("cuts %d Hz into pieces of 32 ms at 16 kHz", (rate) => {
    const pieces = recorded(sine(440, rate, 1), rate);

    expect(pieces).toHaveLength(31);
    expect(pieces.every(({ pcm }) => pcm.byteLength === 1_024)).toBe(true);
  });

  test("measures the loudness", () => {
    const [, , piece] = recorded(sine(440, 48_000, 1), 48_000);

    expect(piece?.level).toBeCloseTo(0.5 / Math.SQRT2, 1);
  });

  test("keeps samples that are too loud or no numbers within 16 bits", () => {
    const pieces = recorded(new Float32Array(48_000).fill(3).fill(Number.NaN, 24_000), 48_000);
    const samples = pieces.flatMap(({ pcm }) => [...new Int16Array(pcm)]);

    expect(Math.max(...samples)).toBe(32_767);
    expect(samples.at(-1)).toBe(0);
  });
});

describe("the player", () => {
  const sound = (seconds: number): Int16Array => new Int16Array(24_000 * seconds).fill(8_000);

  function pulled(player: Player, seconds: number): number[] {
    const samples: number[] = [];
    for (let at = 0; at < seconds * 48_000; at += BLOCK) {
      const block = new Float32Array(BLOCK);
      player.pull(block);
      samples.push(...block);
    }
    return samples;
  }

  test("plays what it gets and counts it", () => {
    const player = new Player(48_000);
    player.push(sound(0.5));

    const samples = pulled(player, 0.25);

    expect(samples.slice(1_000).every((sample) => Math.abs(sample - 8_000 / 32_768) < 0.001)).toBe(true);
    expect(player.position).toBeCloseTo(6_000, -2);
    expect(player.isPlaying).toBe(true);
  });

  test("has played everything at the end", () => {
    const player = new Player(44_100);
    player.push(sound(0.5));
    player.push(sound(0.5));

    pulled(player, 1.2);

    expect(player.position).toBe(24_000);
    expect(player.isPlaying).toBe(false);
  });

  test("waits a moment for more, so that pieces in real time have no gaps", () => {
    const player = new Player(48_000);
    const samples: number[] = [];
    for (let piece = 0; piece < 20; piece++) {
      player.push(sound(0.04));
      samples.push(...pulled(player, 0.04 - BLOCK / 48_000));
    }
    const began = samples.findIndex((sample) => sample > 0.1);

    expect(began).toBeGreaterThan(1_000);
    expect(samples.slice(began + 200).every((sample) => sample > 0.1)).toBe(true);
  });

  test("does not wait for more than a moment", () => {
    const player = new Player(48_000);
    player.push(sound(0.02));

    const samples = pulled(player, 0.3);

    expect(samples.some((sample) => sample > 0.1)).toBe(true);
    expect(player.isPlaying).toBe(false);
  });

  test("drops what is not played yet, without a click", () => {
    const player = new Player(48_000);
    player.push(sound(1));
    pulled(player, 0.2);

    player.clear();
    const after = pulled(player, 0.1);

    expect(player.isPlaying).toBe(false);
    expect(player.position).toBe(24_000);
    expect(after[0]).toBeGreaterThan(0.2);
    expect(after.slice(1, 260).every((sample, at) => sample <= (after[at] as number))).toBe(true);
    expect(after.slice(260).every((sample) => sample === 0)).toBe(true);
  });

  test("plays what comes after it was cleared", () => {
    const player = new Player(48_000);
    player.push(sound(1));
    player.clear();

    player.push(sound(0.5));

    expect(pulled(player, 0.3).some((sample) => sample > 0.1)).toBe(true);
    expect(player.position).toBeLessThan(36_000);
  });
});
