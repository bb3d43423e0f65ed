// What the caller says: held back while there is no connection, and kept for a moment after it was sent, because a lost
// connection takes the last seconds with it.

import { HEARD_RATE, PIECE_SAMPLES } from "./pcm.js";

const PIECE_MS = (PIECE_SAMPLES / HEARD_RATE) * 1000;
const KEPT_MS = 10_000; // of what was sent: a long sentence
const HELD_PIECES = 1_000; // not sent yet: 32 s
/** Loudness from which a piece is taken for speech. */
export const SPEECH_LEVEL = 0.02;

interface Piece {
  data: string;
  level: number;
  at: number;
}

/** The pieces of the microphone's audio that may still have to be sent. */
export class SpokenAudio {
  #sent: Piece[] = [];
  #held: Piece[] = [];
  #loudAt = Number.NEGATIVE_INFINITY;

  /** Adds a piece that was recorded at a time in milliseconds; the oldest ones are dropped. */
  hold(data: string, level: number, at: number): void {
    this.#held.push({ data, level, at });
    if (level > SPEECH_LEVEL) this.#loudAt = at;
    if (this.#held.length > HELD_PIECES) this.#held.shift();
  }

  /** Returns the pieces to send now. */
  take(): string[] {
    const pieces = this.#held;
    this.#held = [];
    const newest = pieces.at(-1)?.at ?? 0;
    this.#sent = [...this.#sent, ...pieces].filter(({ at }) => newest - at < KEPT_MS);
    return pieces.map(({ data }) => data);
  }

  /** Holds back again what was sent and recorded after a time, up to ten seconds. */
  rewind(since: number): void {
    this.#held = [...this.#sent.filter(({ at }) => at - PIECE_MS >= since), ...this.#held];
    this.#sent = [];
  }

  /** Whether someone seemed to speak after a time. */
  wasLoudAfter(time: number): boolean {
    return this.#loudAt > time;
  }

  /** Whether someone seems to speak in what is held back. */
  get hasSpeech(): boolean {
    return this.#held.filter(({ level }) => level > SPEECH_LEVEL).length * PIECE_MS > 200;
  }
}
