import { listDevices } from "./devices.js";
import { CallError } from "./errors.js";
import { encode } from "./pcm.js";
import type { Device, MicrophoneControl } from "./types.js";
import type { RecordedPiece } from "./worklets/recorder.js";

const FRESH_MS = 200; // a loudness that is older is none

/** What the microphone tells its call. */
export interface MicrophoneListener {
  onPiece(base64: string, level: number): void;
  onMuted(isMuted: boolean): void;
  onError(error: CallError): void;
}

/** The caller's microphone, as pieces for Gemini and as a stream for LiveKit. */
export class Microphone implements MicrophoneControl {
  readonly #context: AudioContext;
  readonly #listener: MicrophoneListener;
  #node: AudioWorkletNode | undefined;
  #stream: MediaStream | undefined;
  #source: MediaStreamAudioSourceNode | undefined;
  #copy: MediaStreamAudioDestinationNode | undefined;
  #deviceId = "";
  #isMuted = false;
  #isClosed = false;
  #level = 0;
  #levelAt = 0;

  constructor(context: AudioContext, listener: MicrophoneListener) {
    this.#context = context;
    this.#listener = listener;
  }

  get muted(): boolean {
    return this.#isMuted;
  }

  set muted(isMuted: boolean) {
    if (isMuted === this.#isMuted) return;
    this.#isMuted = isMuted;
    this.#setEnabled();
    this.#listener.onMuted(isMuted);
  }

  /** The caller's voice, for LiveKit; it stays the same when the microphone is switched. */
  get track(): MediaStreamTrack | undefined {
    if (!this.#source) return undefined;
    if (!this.#copy) {
      this.#copy = this.#context.createMediaStreamDestination();
      this.#source.connect(this.#copy);
    }
    return this.#copy.stream.getAudioTracks()[0];
  }

  level(): number {
    return this.#isMuted || performance.now() - this.#levelAt > FRESH_MS ? 0 : this.#level;
  }

  devices(): Promise<Device[]> {
    return listDevices("audioinput");
  }

  /** Asks for a microphone; call it in a gesture, before anything is awaited. */
  async ask(deviceId = "", isExact = false): Promise<MediaStream> {
    try {
      return await navigator.mediaDevices.getUserMedia({
        audio: {
          echoCancellation: true,
          noiseSuppression: true,
          autoGainControl: true,
          channelCount: 1,
          ...(deviceId && { deviceId: isExact ? { exact: deviceId } : { ideal: deviceId } }),
        },
      });
    } catch (error) {
      throw microphoneError(error);
    }
  }

  /** Records a stream from now on. */
  record(stream: MediaStream, deviceId = ""): void {
    if (this.#isClosed) {
      stopTracks(stream);
      return;
    }
    this.#node ??= this.#recorder();
    this.#release();
    this.#stream = stream;
    this.#deviceId = deviceId;
    this.#source = this.#context.createMediaStreamSource(stream);
    this.#source.connect(this.#node);
    if (this.#copy) this.#source.connect(this.#copy);
    this.#setEnabled();
    for (const track of stream.getTracks()) track.onended = () => void this.#replace();
  }

  /** Switches to another microphone; "" is the system's. */
  async use(deviceId: string): Promise<void> {
    this.record(await this.ask(deviceId, Boolean(deviceId)), deviceId);
  }

  /** Goes on with the system's microphone if the chosen one is gone. */
  follow(deviceIds: readonly string[]): void {
    if (this.#stream && this.#deviceId && !deviceIds.includes(this.#deviceId)) void this.#replace();
  }

  close(): void {
    this.#isClosed = true;
    this.#release();
    this.#node?.port.postMessage("end");
    this.#node?.disconnect();
  }

  #recorder(): AudioWorkletNode {
    const node = new AudioWorkletNode(this.#context, "pi-voice-microphone", {
      channelCount: 1,
      channelCountMode: "explicit",
    });
    node.port.onmessage = ({ data }: MessageEvent<RecordedPiece>) => {
      if (this.#isMuted || this.#isClosed) return;
      this.#level = data.level;
      this.#levelAt = performance.now();
      this.#listener.onPiece(encode(data.pcm), data.level);
    };
    node.connect(this.#context.destination); // it is silent, and some browsers run only what is connected
    return node;
  }

  async #replace(): Promise<void> {
    if (this.#isClosed) return;
    this.#release();
    try {
      await this.use("");
    } catch (error) {
      this.#listener.onError(error as CallError);
    }
  }

  #setEnabled(): void {
    for (const track of this.#stream?.getTracks() ?? []) track.enabled = !this.#isMuted;
  }

  #release(): void {
    this.#source?.disconnect();
    if (this.#stream) stopTracks(this.#stream);
    this.#stream = undefined;
  }
}

/** Releases a microphone. */
export function stopTracks(stream: MediaStream): void {
  for (const track of stream.getTracks()) {
    track.onended = null;
    track.stop();
  }
}

function microphoneError(cause: unknown): CallError {
  const name = cause instanceof Error ? cause.name : "";
  if (name === "NotAllowedError" || name === "SecurityError") return new CallError("microphone_refused", { cause });
  if (name === "NotFoundError" || name === "OverconstrainedError")
    return new CallError("microphone_missing", { cause });
  return new CallError("microphone_busy", { cause, retryable: true });
}
