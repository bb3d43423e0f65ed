import { SPOKEN_RATE } from "../pcm.js";
import { Resampler } from "./resampler.js";

const CUSHION_SECONDS = 0.08; // to hold before playing, so that a late piece makes no gap
const LONGEST_WAIT_SECONDS = 0.12; // for this cushion
const FADE_SECONDS = 0.005; // when the sound is cut off

/** What the worklet reports: the samples at 24 kHz that were played or dropped, and the loudness of this moment. */
export interface PlaybackReport {
  position: number;
  level: number;
}

/** Plays what it gets in order, and counts the samples that were played. */
export class Player {
  readonly #rate: number;
  readonly #resampler: Resampler;
  #chunks: Float32Array[] = [];
  #start = 0; // of what is left of the first chunk
  #left = 0; // samples to play
  #taken = 0; // samples at 24 kHz
  #wait = 0;
  #fading = new Float32Array(0);

  constructor(rate: number) {
    this.#rate = rate;
    this.#resampler = new Resampler(SPOKEN_RATE, rate);
  }

  /** How much of all that was taken is played or dropped, in samples at 24 kHz. */
  get position(): number {
    return this.#taken - Math.round((this.#left * SPOKEN_RATE) / this.#rate);
  }

  /** Whether there is something to play. */
  get isPlaying(): boolean {
    return this.#left > 0;
  }

  /** Adds 16-bit samples at 24 kHz. */
  push(samples: Int16Array): void {
    if (!this.#left) this.#wait = LONGEST_WAIT_SECONDS * this.#rate;
    const chunk = this.#resampler.push(Float32Array.from(samples, (sample) => sample / 32_768));
    this.#taken += samples.length;
    this.#chunks.push(chunk);
    this.#left += chunk.length;
  }

  /** Drops what is not played yet, with a short fade instead of a click. */
  clear(): void {
    const fading = new Float32Array(this.#wait > 0 ? 0 : Math.min(this.#left, Math.round(FADE_SECONDS * this.#rate)));
    this.#read(fading);
    this.#fading = fading.map((sample, place) => sample * (1 - place / fading.length));
    this.#chunks = [];
    this.#left = this.#start = 0;
  }

  /** Fills the output with the next samples. */
  pull(output: Float32Array): void {
    output.fill(0);
    if (this.#fading.length) {
      output.set(this.#fading.subarray(0, output.length));
      this.#fading = this.#fading.slice(output.length);
    } else if (this.#wait > 0 && this.#left < CUSHION_SECONDS * this.#rate) {
      this.#wait -= output.length;
    } else {
      this.#wait = 0;
      this.#read(output);
    }
  }

  #read(output: Float32Array): void {
    let written = 0;
    while (written < output.length && this.#chunks[0]) {
      const piece = this.#chunks[0].subarray(this.#start, this.#start + output.length - written);
      output.set(piece, written);
      written += piece.length;
      this.#start += piece.length;
      if (this.#start < this.#chunks[0].length) break;
      this.#chunks.shift();
      this.#start = 0;
    }
    this.#left -= written;
  }
}
