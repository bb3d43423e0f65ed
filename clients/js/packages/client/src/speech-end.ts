import { HEARD_RATE, PIECE_SAMPLES } from "./pcm.js";
import { SPEECH_LEVEL } from "./spoken-audio.js";

const PIECE_MS = (PIECE_SAMPLES / HEARD_RATE) * 1000;
const SPEECH_MS = 200;
const SILENCE_MS = 600;

/** Guesses by the loudness when the caller has finished speaking; it is for the state alone, Gemini decides itself. */
export class SpeechEnd {
  #speech = 0;
  #silence = 0;

  /** Takes the loudness of a piece; returns "speaks", "ended" once after a pause, or "". */
  take(level: number): "speaks" | "ended" | "" {
    if (level > SPEECH_LEVEL) {
      this.#silence = 0;
      this.#speech += PIECE_MS;
      return this.#speech > SPEECH_MS ? "speaks" : "";
    }
    this.#silence += PIECE_MS;
    if (this.#silence < SILENCE_MS) return "";
    const wasSpeech = this.#speech > SPEECH_MS;
    this.#speech = 0;
    return wasSpeech ? "ended" : "";
  }
}
