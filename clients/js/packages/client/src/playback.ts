import { canChooseSpeaker, listDevices } from "./devices.js";
import { CallError } from "./errors.js";
import { decode, SPOKEN_RATE } from "./pcm.js";
import { sleep } from "./timing.js";
import type { Device, SpeakerControl } from "./types.js";
import type { PlaybackReport } from "./worklets/player.js";

const FRESH_MS = 200; // a loudness that is older is none
const LONGEST_SECONDS = 600; // of sound that waits to be played
const PATIENCE_SECONDS = 3; // beyond the length of what is to be played

/** The agent's voice, and how much of it was heard. */
export class Playback implements SpeakerControl {
  readonly #context: AudioContext;
  readonly #node: AudioWorkletNode;
  readonly #gain: GainNode;
  readonly #onChange: () => void;
  #copy: MediaStreamAudioDestinationNode | undefined;
  #taken = 0; // samples at 24 kHz that were passed on
  #position = 0; // of these, played or dropped
  #turnBegan = 0;
  #level = 0;
  #levelAt = 0;
  #volume = 1;
  #isMuted = false;

  /** @param onChange is called when the agent's voice begins and when it has ended */
  constructor(context: AudioContext, onChange: () => void) {
    this.#context = context;
    this.#onChange = onChange;
    this.#node = new AudioWorkletNode(context, "pi-voice-playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#gain = context.createGain();
    this.#node.connect(this.#gain).connect(context.destination);
    this.#node.port.onmessage = ({ data }: MessageEvent<PlaybackReport>) => this.#report(data);
  }

  get volume(): number {
    return this.#volume;
  }

  set volume(volume: number) {
    this.#volume = Math.max(0, Math.min(1, volume));
    this.#setGain();
  }

  get muted(): boolean {
    return this.#isMuted;
  }

  set muted(isMuted: boolean) {
    this.#isMuted = isMuted;
    this.#setGain();
  }

  /** The agent's voice at full volume, for LiveKit. */
  get track(): MediaStreamTrack | undefined {
    if (!this.#copy) {
      this.#copy = this.#context.createMediaStreamDestination();
      this.#node.connect(this.#copy);
    }
    return this.#copy.stream.getAudioTracks()[0];
  }

  /** Whether something is still to be played. */
  get isPlaying(): boolean {
    return this.#position < this.#taken;
  }

  level(): number {
    return performance.now() - this.#levelAt > FRESH_MS ? 0 : this.#level;
  }

  /** Plays 24 kHz PCM after what is to be played. */
  play(base64: string): void {
    if (this.#taken - this.#position > LONGEST_SECONDS * SPOKEN_RATE) return;
    const samples = decode(base64);
    const wasPlaying = this.isPlaying;
    this.#taken += samples.length;
    this.#node.port.postMessage(samples.buffer, [samples.buffer]);
    if (!wasPlaying) this.#onChange();
  }

  /** Says that the next sound belongs to the agent's next turn. */
  beginTurn(): void {
    this.#turnBegan = this.#taken;
  }

  /** Drops what is not played yet; returns the share of the agent's turn that was heard. */
  clear(): number {
    const heard = this.isPlaying ? this.#position - this.#latency * SPOKEN_RATE : this.#position;
    const length = this.#taken - this.#turnBegan;
    const share = length ? Math.max(0, Math.min(1, (heard - this.#turnBegan) / length)) : 1;
    this.#position = this.#taken;
    this.#level = 0;
    this.#node.port.postMessage("clear");
    this.#onChange();
    return share;
  }

  /** Waits until everything was heard. */
  async finished(): Promise<void> {
    const end = performance.now() + ((this.#taken - this.#position) / SPOKEN_RATE + PATIENCE_SECONDS) * 1000;
    while (this.isPlaying && performance.now() < end) await sleep(0.05);
    await sleep(this.#latency);
  }

  async devices(): Promise<Device[]> {
    return canChooseSpeaker() ? listDevices("audiooutput") : [];
  }

  /** Switches to another loudspeaker; "" is the system's. */
  async use(deviceId: string): Promise<void> {
    try {
      await (this.#context as AudioContext & { setSinkId(id: string): Promise<void> }).setSinkId(deviceId);
    } catch (cause) {
      throw new CallError("invalid_options", { message: "The loudspeaker cannot be chosen.", cause });
    }
  }

  close(): void {
    this.#node.port.postMessage("end");
    this.#node.disconnect();
    this.#gain.disconnect();
    this.#position = this.#taken;
  }

  // Between the worklet and the ear, in seconds.
  get #latency(): number {
    return this.#context.outputLatency || this.#context.baseLatency || 0;
  }

  #setGain(): void {
    this.#gain.gain.value = this.#isMuted ? 0 : this.#volume;
  }

  #report({ position, level }: PlaybackReport): void {
    const wasPlaying = this.isPlaying;
    this.#position = Math.max(this.#position, Math.min(position, this.#taken)); // a report may be older than `clear`
    this.#level = level;
    this.#levelAt = performance.now();
    if (wasPlaying && !this.isPlaying) this.#onChange();
  }
}
