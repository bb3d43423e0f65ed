// A WebSocket whose server is the test.

import { vi } from "vitest";
import type { ServerMessage } from "../../src/types.js";

type Json = Record<string, unknown>;

/** A WebSocket that a test opens, answers and closes. */
export class ScriptedSocket {
  static readonly CONNECTING = 0;
  static readonly OPEN = 1;
  static readonly CLOSING = 2;
  static readonly CLOSED = 3;
  static all: ScriptedSocket[] = [];

  readyState = ScriptedSocket.CONNECTING;
  bufferedAmount = 0;
  binaryType = "blob";
  onopen: (() => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  readonly sent: Json[] = [];
  /** Whether the network is gone, so that nobody answers a close. */
  isDead = false;

  /** Whether the network takes nothing by itself of what is sent. */
  isStalled = false;

  constructor(readonly url: string) {
    ScriptedSocket.all.push(this);
  }

  /** The socket that was opened last. */
  static get latest(): ScriptedSocket {
    const socket = ScriptedSocket.all.at(-1);
    if (!socket) throw new Error("No socket was opened.");
    return socket;
  }

  send(text: string): void {
    if (this.readyState !== ScriptedSocket.OPEN) throw new Error("The socket is not open.");
    this.sent.push(JSON.parse(text));
    if (this.isStalled) this.bufferedAmount += 20;
  }

  close(): void {
    if (this.readyState >= ScriptedSocket.CLOSING) return;
    this.readyState = ScriptedSocket.CLOSING;
    if (!this.isDead) queueMicrotask(() => this.ends(1000));
  }

  // ---- What the server does ----

  /** Accepts the connection and its setup. */
  setUp(): this {
    this.opens();
    return this.says({ setupComplete: {} });
  }

  opens(): this {
    this.readyState = ScriptedSocket.OPEN;
    this.onopen?.();
    return this;
  }

  says(...messages: ServerMessage[]): this {
    for (const message of messages)
      this.onmessage?.({ data: new TextEncoder().encode(JSON.stringify(message)).buffer });
    return this;
  }

  ends(code: number): this {
    if (this.readyState === ScriptedSocket.CLOSED) return this;
    this.readyState = ScriptedSocket.CLOSED;
    this.onclose?.({ code });
    return this;
  }

  /** The texts that the client sent. */
  get texts(): string[] {
    return this.sent.map(({ realtimeInput }) => (realtimeInput as Json | undefined)?.text as string).filter(Boolean);
  }

  /** The pieces of audio that the client sent. */
  get audio(): string[] {
    return this.sent
      .map(({ realtimeInput }) => ((realtimeInput as Json | undefined)?.audio as Json | undefined)?.data as string)
      .filter(Boolean);
  }

  /** The setup that the client sent. */
  get setup(): Json {
    return this.sent[0]?.setup as Json;
  }
}

/** Replaces WebSocket for one test. */
export function scriptSockets(): void {
  ScriptedSocket.all = [];
  vi.stubGlobal("WebSocket", ScriptedSocket);
}

// ---- Messages of Gemini ----

export const AUDIO = "AAAA";
export const spoken = (data = AUDIO): ServerMessage => ({
  serverContent: { modelTurn: { parts: [{ inlineData: { mimeType: "audio/pcm;rate=24000", data } }] } },
});
export const agentText = (text: string): ServerMessage => ({ serverContent: { outputTranscription: { text } } });
export const callerText = (text: string): ServerMessage => ({ serverContent: { inputTranscription: { text } } });
export const turnComplete: ServerMessage = { serverContent: { turnComplete: true } };
export const interrupted: ServerMessage = { serverContent: { interrupted: true } };
export const handle = (newHandle: string): ServerMessage => ({
  sessionResumptionUpdate: { newHandle, resumable: true },
});
export const goAway = (timeLeft: string): ServerMessage => ({ goAway: { timeLeft } });
export const toolCall = (id: string, name: string, args = {}): ServerMessage => ({
  toolCall: { functionCalls: [{ id, name, args }] },
});
/** A whole turn of the agent. */
export const agentSays = (text: string): ServerMessage[] => [spoken(), agentText(text), turnComplete];
