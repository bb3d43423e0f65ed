/** A relay between a page and Gemini that records both sides, and can cut and refuse connections. */

import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { type WebSocket as Socket, WebSocket, WebSocketServer } from "ws";

export const RATE = 16_000;

// biome-ignore lint/suspicious/noExplicitAny: messages of Gemini, of which a test reads what it needs
export type Message = any;

/** One connection of the page. */
export class Connection {
  /** The page's messages. */
  readonly sent: Message[] = [];
  /** Gemini's messages. */
  readonly received: Message[] = [];
  /** Pieces of the caller's audio, 16-bit mono at 16 kHz. */
  readonly audio: Buffer[] = [];
  closeCode: number | undefined;

  constructor(
    private readonly page: Socket,
    private readonly gemini: Socket,
  ) {}

  /** Send the page a message as if Gemini had sent it. */
  receive(message: Message): void {
    this.page.send(JSON.stringify(message));
  }

  /** Break both connections without a close code, as a lost network does. */
  cut(): void {
    this.page.terminate();
    this.gemini.terminate();
  }

  get texts(): string[] {
    return this.sent.flatMap((message) => message.realtimeInput?.text ?? []);
  }

  get handle(): string | undefined {
    return this.sent[0]?.setup?.sessionResumption?.handle;
  }

  get pcm(): Int16Array {
    const bytes = Buffer.concat(this.audio);
    return new Int16Array(Uint8Array.from(bytes).buffer);
  }
}

export class Relay {
  readonly connections: Connection[] = [];
  /** Called with each message of the page, before it is passed on. */
  onSent: (message: Message, connection: Connection) => void = () => {};
  /** Called with each message of Gemini, before it is passed on. */
  onReceived: (message: Message, connection: Connection) => void = () => {};
  /** Whether a message of the page is kept, and not passed on. */
  keeps: (message: Message) => boolean = () => false;
  /** Whether new connections are refused, as without a network. */
  isAway = false;
  readonly #server = new WebSocketServer({ host: "127.0.0.1", port: 0, verifyClient: () => !this.isAway });

  private constructor(private readonly target: string) {
    this.#server.on("connection", (page, request) => this.#connect(page, request.url ?? "/"));
  }

  /** Serve a relay to the Gemini at an HTTP URL. */
  static async to(gemini: string): Promise<Relay> {
    const relay = new Relay(gemini.replace("http", "ws"));
    await once(relay.#server, "listening");
    return relay;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get last(): Connection {
    const last = this.connections.at(-1);
    if (!last) throw new Error("The page has not connected to Gemini.");
    return last;
  }

  async close(): Promise<void> {
    for (const client of this.#server.clients) client.terminate();
    this.#server.close();
    await once(this.#server, "close");
  }

  #connect(page: Socket, path: string): void {
    const gemini = new WebSocket(this.target + path);
    const connection = new Connection(page, gemini);
    this.connections.push(connection);
    const waiting: string[] = [];
    gemini.on("open", () => {
      for (const text of waiting.splice(0)) gemini.send(text);
    });
    page.on("message", (data) => {
      const text = String(data);
      const message = JSON.parse(text);
      const audio = message.realtimeInput?.audio?.data;
      if (audio) connection.audio.push(Buffer.from(audio, "base64"));
      else connection.sent.push(message);
      this.onSent(message, connection);
      if (this.keeps(message)) return;
      if (gemini.readyState === WebSocket.OPEN) gemini.send(text);
      else waiting.push(text);
    });
    gemini.on("message", (data) => {
      const message = JSON.parse(String(data));
      connection.received.push(message);
      this.onReceived(message, connection);
      page.send(data);
    });
    gemini.on("error", () => page.terminate());
    page.on("error", () => gemini.terminate());
    gemini.on("close", (code, reason) => {
      connection.closeCode ??= code;
      if (isSendable(code)) page.close(code, reason);
      else page.terminate();
    });
    page.on("close", (code) => {
      connection.closeCode ??= code;
      gemini.close(isSendable(code) ? code : 1000);
    });
  }
}

/** Whether a code may be sent: 1005 and 1006 only say that there was none. */
function isSendable(code: number): boolean {
  return code === 1000 || (code > 1006 && code < 1015) || code >= 3000;
}
