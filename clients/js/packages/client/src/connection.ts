import type { ClientMessage, GeminiLiveConnection, ServerMessage } from "./types.js";

const OPENING_SECONDS = 20;
const CLOSING_SECONDS = 2; // a lost connection does not answer the close
const MOVE_SECONDS = 5; // before Gemini closes a connection, move to the next one
const LATE_SECONDS = 1; // after a turn its late text and a handle follow
const STALLED_MS = 4_000; // in which the network takes nothing of what waits to be sent

/** How a connection ended: Gemini's close code or 0, and whether it was set up before. */
export interface End {
  code: number;
  wasSetUp: boolean;
}

/** One WebSocket to Gemini Live, from its opening to its end. */
export class Connection {
  readonly ended: Promise<End>;
  /** Whether Gemini closes the connection soon. */
  isLeaving = false;
  readonly #socket: WebSocket | undefined;
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  readonly #onMessage: (message: ServerMessage) => void;
  #wasSetUp = false;
  #waiting = 0; // bytes that the network had not taken after the latest message
  #takenAt = 0;
  #end: (code: number) => void = () => {};

  constructor(live: GeminiLiveConnection, handle: string | undefined, onMessage: (message: ServerMessage) => void) {
    this.#onMessage = onMessage;
    this.ended = new Promise((resolve) => {
      this.#end = (code) => {
        for (const timer of this.#timers) clearTimeout(timer);
        this.#timers.clear();
        resolve({ code, wasSetUp: this.#wasSetUp });
      };
    });
    try {
      this.#socket = new WebSocket(`${live.url}?access_token=${live.token}`);
    } catch {
      this.#end(0); // the URL or the page's policy forbids it; the error would name the token
      return;
    }
    const setup = "setup" in live.setup ? (live.setup.setup as object) : live.setup;
    const socket = this.#socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.send({ setup: { ...setup, sessionResumption: handle ? { handle } : {} } });
    socket.onclose = ({ code }) => this.#end(code === 1005 || code === 1006 ? 0 : code);
    socket.onmessage = ({ data }) => this.#take(data);
    this.#after(OPENING_SECONDS, () => this.#wasSetUp || this.close());
  }

  /** Sends a message, if the connection is open. */
  send(message: ClientMessage): void {
    const socket = this.#socket;
    if (socket?.readyState !== WebSocket.OPEN) return;
    const now = performance.now();
    if (!socket.bufferedAmount || socket.bufferedAmount < this.#waiting) this.#takenAt = now;
    if (now - this.#takenAt > STALLED_MS) {
      this.close();
      return;
    }
    socket.send(JSON.stringify(message));
    this.#waiting = socket.bufferedAmount;
  }

  /** Ends the connection once the turn that has just ended is complete. */
  leave(): void {
    this.#after(LATE_SECONDS, () => this.close());
  }

  /** Closes the connection; it then takes no further messages. */
  close(): void {
    this.#socket?.close();
    this.#after(CLOSING_SECONDS, () => this.#end(0));
  }

  #take(data: string | ArrayBuffer): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    let message: ServerMessage;
    try {
      message = JSON.parse(typeof data === "string" ? data : new TextDecoder().decode(data));
    } catch (error) {
      reportError(error); // no JSON: nothing else depends on this message
      return;
    }
    if (message.setupComplete) this.#wasSetUp = true;
    if (message.goAway) {
      this.isLeaving = true;
      this.#after(Math.max(secondsOf(message.goAway.timeLeft) - MOVE_SECONDS, 0), () => this.close());
    }
    this.#onMessage(message);
  }

  #after(seconds: number, work: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      work();
    }, seconds * 1000);
    this.#timers.add(timer);
  }
}

const secondsOf = (duration: unknown): number => Number.parseFloat(String(duration)) || 0;
