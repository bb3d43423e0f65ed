import { bytesOf, type SessionApi } from "./api.js";
import { CallError, callError } from "./errors.js";
import type { Transcript } from "./transcript.js";
import type { Turn } from "./types.js";

const MOST_TURNS = 500;
const MOST_BYTES = 250_000; // the API takes 300,000
const LEAVING_BYTES = 55_000; // of a page that is closed; browsers take 64 KB
const CONFLICT = "voice_transcript_conflict";

interface SavedTranscript {
  data: { next: number; hung_up_at?: number | null };
}

/** Saves the turns of a call that can no longer change. */
export class Saver {
  /** How many turns the API has. */
  next: number;
  readonly #api: SessionApi;
  readonly #transcript: Transcript;
  readonly #onHungUp: () => void;
  readonly #onError: (error: CallError) => void;
  readonly #missing: number; // turns that only the API has
  #saving: Promise<void> | undefined;
  #tried = 0; // how many turns were settled at the latest try

  /** @param next how many turns the API has; those that the transcript lacks are its first ones */
  constructor(
    api: SessionApi,
    transcript: Transcript,
    next: number,
    onHungUp: () => void,
    onError: (error: CallError) => void,
  ) {
    this.#api = api;
    this.#transcript = transcript;
    this.next = next;
    this.#missing = Math.max(next - transcript.turns.length, 0);
    this.#onHungUp = onHungUp;
    this.#onError = onError;
  }

  /** Whether the transcript has all turns of the call. */
  get isWhole(): boolean {
    return this.#missing === 0;
  }

  /** Saves in the background what has become final; turns of a failed request are sent with the next ones. */
  save(): void {
    const { settled } = this.#transcript;
    if (this.#saving || settled === this.#tried || !this.#due(MOST_BYTES).length) return;
    this.#tried = settled;
    this.#saving = this.#send().finally(() => {
      this.#saving = undefined;
    });
  }

  /** Waits for what is being saved. */
  async saved(): Promise<void> {
    await this.#saving;
  }

  /** Saves all turns, because nothing will be added to them. */
  async saveAll(): Promise<void> {
    this.#transcript.close();
    await this.#saving;
    this.#tried = 0;
    this.save();
    await this.#saving;
  }

  /** Saves all turns, as many as a page may send that is being closed. */
  leave(): void {
    this.#transcript.close();
    const turns = this.#due(LEAVING_BYTES);
    if (!turns.length) return;
    const request = { from: this.next, turns };
    // There is nobody left to hear of an error; what is missing is saved after a reload.
    this.#api.ask("POST", "/transcript", request, { keepalive: true }).catch(() => {});
  }

  #due(bytes: number): Turn[] {
    const { turns, settled } = this.#transcript;
    const due = turns.slice(this.next - this.#missing, settled).slice(0, MOST_TURNS);
    let size = 0;
    const end = due.findIndex((turn) => {
      size += bytesOf(JSON.stringify(turn)) + 1;
      return size > bytes;
    });
    return end < 0 ? due : due.slice(0, end);
  }

  async #send(): Promise<void> {
    for (let turns = this.#due(MOST_BYTES); turns.length; turns = this.#due(MOST_BYTES)) {
      try {
        const request = { from: this.next, turns };
        const { data } = await this.#api.ask<SavedTranscript>("POST", "/transcript", request);
        if (data.hung_up_at) this.#onHungUp();
        if (!(data.next > this.next)) return;
        this.next = data.next;
      } catch (error) {
        const failure = callError(error, "api_unavailable", true);
        const isTakenOver = failure.code === CONFLICT; // it names a next turn, too
        const { next } = failure.details;
        if (!isTakenOver && next !== undefined && next >= this.#missing && next !== this.next) {
          this.next = next; // where the API wants to go on
          continue;
        }
        this.#onError(isTakenOver ? new CallError("transcript_taken_over", { cause: error }) : failure);
        return;
      }
    }
  }
}
