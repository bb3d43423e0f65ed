import { HEARD_RATE, PIECE_SAMPLES } from "../pcm.js";
import { Resampler } from "./resampler.js";

/** A piece of the microphone's audio: 16-bit PCM at 16 kHz, and its loudness, 0 to 1. */
export interface RecordedPiece {
  pcm: ArrayBuffer;
  level: number;
}

/** Cuts a stream of samples into pieces for Gemini. */
export class Recorder {
  readonly #resampler: Resampler;
  #piece = new Int16Array(PIECE_SAMPLES);
  #length = 0;
  #energy = 0;

  constructor(rate: number) {
    this.#resampler = new Resampler(rate, HEARD_RATE);
  }

  /** Takes the next samples, and passes on each piece that is complete. */
  push(samples: Float32Array, onPiece: (piece: RecordedPiece) => void): void {
    for (const sample of this.#resampler.push(samples)) {
      const value = Math.max(-1, Math.min(1, sample || 0)); // without values that are no numbers
      this.#piece[this.#length++] = Math.round(value * 32_767);
      this.#energy += value * value;
      if (this.#length < PIECE_SAMPLES) continue;
      onPiece({ pcm: this.#piece.buffer, level: Math.sqrt(this.#energy / PIECE_SAMPLES) });
      this.#piece = new Int16Array(PIECE_SAMPLES);
      this.#length = this.#energy = 0;
    }
  }
}
