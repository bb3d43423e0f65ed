/** WAV files for Chromium's fake microphone. */

import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const RATE = 48_000;
const LOUDNESS = 12_000;

/** Write a WAV file of sounds one after the other, and return its path. */
export function wavFile(...sounds: Int16Array[]): string {
  const bytes = Buffer.concat(sounds.map((sound) => Buffer.from(sound.buffer, sound.byteOffset, sound.byteLength)));
  const header = Buffer.alloc(44);
  header.write("RIFF", 0);
  header.writeUInt32LE(36 + bytes.length, 4);
  header.write("WAVEfmt ", 8);
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20); // PCM
  header.writeUInt16LE(1, 22); // mono
  header.writeUInt32LE(RATE, 24);
  header.writeUInt32LE(RATE * 2, 28);
  header.writeUInt16LE(2, 32);
  header.writeUInt16LE(16, 34);
  header.write("data", 36);
  header.writeUInt32LE(bytes.length, 40);
  const path = join(mkdtempSync(join(tmpdir(), "microphone-")), "caller.wav");
  writeFileSync(path, Buffer.concat([header, bytes]));
  return path;
}

export function silence(seconds: number): Int16Array {
  return new Int16Array(Math.round(RATE * seconds));
}

/** Return a sound like speech: a voice with overtones, in syllables. */
export function speech(seconds: number, hertz = 140): Int16Array {
  return sound(seconds, (time) => {
    const syllable = Math.abs(Math.sin(Math.PI * 4.5 * time)) ** 0.8;
    const pitch = hertz + 25 * Math.sin(2 * Math.PI * 0.9 * time);
    let voice = 0;
    for (let overtone = 1; overtone <= 12; overtone++)
      voice += Math.sin(2 * Math.PI * pitch * overtone * time) / overtone;
    return (syllable * voice) / 2;
  });
}

function sound(seconds: number, at: (time: number) => number): Int16Array {
  return Int16Array.from({ length: Math.round(RATE * seconds) }, (_, sample) => LOUDNESS * at(sample / RATE));
}

// ---- A time code: audio of which each tenth of a second can be recognized ----

const CODES = 100;
const CODE_SECONDS = 0.1;
const WINDOW_SECONDS = 0.05;
const LOWEST_HERTZ = 400;
const STEP_HERTZ = 30;
const IS_A_TONE = 0.5;

const hertz = (code: number) => LOWEST_HERTZ + STEP_HERTZ * code;

/** The length of the time code in seconds. */
export const TIME_CODE_SECONDS = CODES * CODE_SECONDS;

/** Return a tone for each tenth of a second of the time code; it swells like speech, which a steady tone is not. */
export function timeCode(): Int16Array {
  return sound(TIME_CODE_SECONDS, (time) => {
    const code = Math.min(CODES - 1, Math.floor(time / CODE_SECONDS));
    const loudness = time / CODE_SECONDS - code < 0.7 ? 1 : 0.15;
    return loudness * Math.sin(2 * Math.PI * hertz(code) * time);
  });
}

/** Return the numbers of the tenths of a second of the time code that 16-bit audio has, in order. */
export function codesIn(pcm: Int16Array, rate: number): number[] {
  const length = Math.round(rate * WINDOW_SECONDS);
  const codes: number[] = [];
  for (let start = 0; start + length <= pcm.length; start += Math.round(length / 2)) {
    const code = codeOf(pcm.subarray(start, start + length), rate);
    if (code !== undefined && code !== codes.at(-1)) codes.push(code);
  }
  return codes;
}

function codeOf(window: Int16Array, rate: number): number | undefined {
  const energy = window.reduce((sum, sample) => sum + sample * sample, 0);
  if (energy < window.length * 100 ** 2) return undefined;
  const powers = Array.from({ length: CODES }, (_, code) => power(window, hertz(code) / rate));
  const code = powers.indexOf(Math.max(...powers));
  return (2 * (powers[code] ?? 0)) / window.length > IS_A_TONE * energy ? code : undefined;
}

/** The power of one frequency in a window, by Goertzel's algorithm. */
function power(window: Int16Array, cycles: number): number {
  const factor = 2 * Math.cos(2 * Math.PI * cycles);
  let last = 0;
  let before = 0;
  for (const sample of window) [last, before] = [sample + factor * last - before, last];
  return last * last + before * before - factor * last * before;
}

/**
 * Return a caller who says something again and again, with pauses for the agent. The stand-in takes as many utterances
 * as it has questions.
 */
export function caller(leadSeconds: number): Int16Array[] {
  const utterances = Array.from({ length: 14 }, (_, number) => [speech(1, 120 + 10 * (number % 5)), silence(3.5)]);
  return [silence(leadSeconds), ...utterances.flat()];
}
