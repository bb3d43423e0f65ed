// The browser's audio, as far as a call uses it: nodes that note what was done to them, and a microphone.

import { vi } from "vitest";

/** A node of the audio graph. */
export class FakeNode {
  readonly outputs = new Set<FakeNode>();
  readonly posted: unknown[] = [];
  readonly gain = { value: 1 };
  buffer: unknown;
  readonly stream = new FakeStream();
  readonly port = {
    onmessage: null as ((event: { data: unknown }) => void) | null,
    postMessage: (message: unknown) => this.posted.push(message),
  };

  connect(to: FakeNode): FakeNode {
    this.outputs.add(to);
    return to;
  }

  disconnect(): void {
    this.outputs.clear();
  }

  start(): void {}

  /** Lets the worklet of this node send a message. */
  reports(data: unknown): void {
    this.port.onmessage?.({ data });
  }
}

/** A track of a microphone. */
export class FakeTrack {
  enabled = true;
  isStopped = false;
  onended: (() => void) | null = null;

  stop(): void {
    this.isStopped = true;
  }
}

/** A stream of a microphone. */
export class FakeStream {
  readonly tracks = [new FakeTrack()];

  getTracks(): FakeTrack[] {
    return this.tracks;
  }

  getAudioTracks(): FakeTrack[] {
    return this.tracks;
  }
}

/** An audio context that plays sound at once, or only after a gesture. */
export class FakeContext extends EventTarget {
  static latest: FakeContext;
  static isAllowed = true;

  state = "suspended";
  sampleRate = 48_000;
  outputLatency = 0.02;
  baseLatency = 0.01;
  sinkId = "";
  readonly destination = new FakeNode();
  readonly modules: string[] = [];
  readonly sources: FakeNode[] = [];
  readonly worklets = new Map<string, FakeNode>();
  audioWorklet: { addModule(url: URL): Promise<void> } | undefined = {
    addModule: async (url) => void this.modules.push(String(url)),
  };

  constructor() {
    super();
    FakeContext.latest = this;
  }

  async resume(): Promise<void> {
    if (!FakeContext.isAllowed) return new Promise(() => {});
    this.becomes("running");
  }

  becomes(state: string): void {
    this.state = state;
    this.dispatchEvent(new Event("statechange"));
  }

  async close(): Promise<void> {
    this.becomes("closed");
  }

  async setSinkId(id: string): Promise<void> {
    this.sinkId = id;
  }

  createBuffer(): object {
    return {};
  }

  createBufferSource(): FakeNode {
    return new FakeNode();
  }

  createGain(): FakeNode {
    return new FakeNode();
  }

  createMediaStreamDestination(): FakeNode {
    return new FakeNode();
  }

  createMediaStreamSource(): FakeNode {
    const node = new FakeNode();
    this.sources.push(node);
    return node;
  }

  worklet(name: string): FakeNode {
    const node = this.worklets.get(name);
    if (!node) throw new Error(`There is no worklet ${name}.`);
    return node;
  }
}

/** The devices of the browser, and what was asked of them. */
export class FakeDevices extends EventTarget {
  readonly asked: MediaTrackConstraints[] = [];
  readonly streams: FakeStream[] = [];
  failure: string | null = null;
  devices = [
    { kind: "audioinput", deviceId: "mic-1", label: "Built-in" },
    { kind: "audioinput", deviceId: "mic-2", label: "Headset" },
    { kind: "audiooutput", deviceId: "out-1", label: "Speaker" },
    { kind: "videoinput", deviceId: "cam-1", label: "Camera" },
  ];

  async enumerateDevices(): Promise<typeof this.devices> {
    return this.devices;
  }

  async getUserMedia({ audio }: { audio: MediaTrackConstraints }): Promise<FakeStream> {
    this.asked.push(audio);
    if (this.failure) throw new DOMException("no", this.failure);
    const stream = new FakeStream();
    this.streams.push(stream);
    return stream;
  }
}

/** Gives the test a browser with sound; returns its devices. */
export function fakeAudio(): FakeDevices {
  const mediaDevices = new FakeDevices();
  FakeContext.isAllowed = true;
  vi.stubGlobal("AudioContext", FakeContext);
  vi.stubGlobal(
    "AudioWorkletNode",
    class extends FakeNode {
      constructor(context: FakeContext, name: string) {
        super();
        context.worklets.set(name, this);
      }
    },
  );
  vi.stubGlobal("navigator", {
    onLine: true,
    mediaDevices,
    permissions: { query: async () => ({ state: "granted" }) },
  });
  vi.stubGlobal("document", { baseURI: "https://page.example.com/shop/" });
  return mediaDevices;
}
