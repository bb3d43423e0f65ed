import { bothDevices, canChooseSpeaker, listDevices } from "./devices.js";
import { CallError, callError } from "./errors.js";
import { Microphone } from "./microphone.js";
import { Playback } from "./playback.js";
import { SpokenAudio } from "./spoken-audio.js";
import type { AudioOptions, Device } from "./types.js";

/** What the audio tells its call. */
export interface AudioListener {
  /** The caller was recorded: `spoken` has another piece, of this loudness. */
  onSpoken(level: number): void;
  onMuted(isMuted: boolean): void;
  onError(error: CallError): void;
  /** The agent's voice begins or has ended, or the browser blocks or allows sound. */
  onChange(): void;
  onDevices(devices: { microphones: Device[]; speakers: Device[] }): void;
}

/** The microphone and the loudspeaker of a call. */
export class CallAudio {
  /** What the caller said and was not sent yet. */
  readonly spoken = new SpokenAudio();
  readonly microphone: Microphone;
  playback: Playback | undefined;
  /** The call, once there is one. */
  listener: AudioListener | undefined;
  readonly #options: AudioOptions;
  readonly #context: AudioContext;
  #isClosed = false;

  /** Call it in a gesture, before anything is awaited: browsers unlock sound only then. */
  constructor(options: AudioOptions) {
    this.#options = options;
    try {
      this.#context = options.context ?? new AudioContext({ latencyHint: "interactive" });
    } catch (cause) {
      throw new CallError("worklet_unavailable", { cause });
    }
    if (!this.#context.audioWorklet) throw new CallError("worklet_unavailable");
    this.microphone = new Microphone(this.#context, {
      onPiece: (base64, level) => {
        this.spoken.hold(base64, level, performance.now());
        this.listener?.onSpoken(level);
      },
      onMuted: (isMuted) => this.listener?.onMuted(isMuted),
      onError: (error) => this.listener?.onError(error),
    });
    void this.unlock();
  }

  /** Whether the browser waits for a gesture before it plays sound. */
  get isBlocked(): boolean {
    return !this.#isClosed && this.#context.state !== "running";
  }

  /** Asks the browser to play sound; in a gesture it agrees. */
  async unlock(): Promise<void> {
    const silence = this.#context.createBufferSource();
    silence.buffer = this.#context.createBuffer(1, 1, this.#context.sampleRate);
    silence.connect(this.#context.destination);
    silence.start(); // Safari is unlocked by a sound, and not by `resume` alone
    // Without a gesture, browsers neither resume nor refuse, so nothing waits for this.
    await this.#context.resume().catch(() => {});
  }

  /** Opens the microphone and loads the worklets. */
  async open(): Promise<void> {
    const { microphone = true, microphoneId, speakerId } = this.#options;
    const asking = microphone ? this.#asked(microphoneId) : undefined;
    const loading = this.#load();
    try {
      const [stream] = await Promise.all([asking, loading]);
      if (this.#isClosed) return stream?.getTracks().forEach((track) => track.stop());
      this.playback = new Playback(this.#context, () => this.listener?.onChange());
      if (stream) this.microphone.record(stream, microphoneId);
      if (speakerId && canChooseSpeaker()) await this.useSpeaker(speakerId).catch(() => {}); // then on the system's
    } catch (error) {
      void asking?.then((stream) => stream.getTracks().forEach((track) => track.stop())).catch(() => {});
      throw error;
    }
    this.#context.addEventListener("statechange", this.#onState);
    navigator.mediaDevices?.addEventListener("devicechange", this.#onDevices);
  }

  /** Switches to another loudspeaker; "" is the system's. */
  async useSpeaker(deviceId: string): Promise<void> {
    if (!canChooseSpeaker())
      throw new CallError("invalid_options", { message: "This browser plays on the system's loudspeaker only." });
    await this.playback?.use(deviceId).catch((error: unknown) => {
      throw callError(error, "invalid_options");
    });
  }

  /** Lists the loudspeakers, if the browser can choose one. */
  async speakers(): Promise<Device[]> {
    return canChooseSpeaker() ? await listDevices("audiooutput") : [];
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#context.removeEventListener("statechange", this.#onState);
    navigator.mediaDevices?.removeEventListener("devicechange", this.#onDevices);
    this.microphone.close();
    this.playback?.close();
    if (!this.#options.context) void this.#context.close().catch(() => {}); // it may be closed already
  }

  async #asked(deviceId?: string): Promise<MediaStream> {
    if (!navigator.mediaDevices) throw new CallError("microphone_missing");
    return this.microphone.ask(deviceId);
  }

  async #load(): Promise<void> {
    const { workletUrl } = this.#options;
    const folder = workletUrl && new URL(workletUrl, document.baseURI);
    // Bundlers find the files by these two expressions.
    const microphone = folder
      ? new URL("microphone.worklet.js", folder)
      : new URL("./microphone.worklet.js", import.meta.url);
    const playback = folder ? new URL("playback.worklet.js", folder) : new URL("./playback.worklet.js", import.meta.url);
    try {
      await Promise.all([microphone, playback].map((url) => this.#context.audioWorklet.addModule(url)));
    } catch (error) {
      throw callError(error, "worklet_unavailable");
    }
  }

  readonly #onState = (): void => this.listener?.onChange();

  readonly #onDevices = (): void => {
    void bothDevices().then((devices) => {
      if (this.#isClosed) return;
      this.microphone.follow(devices.microphones.map(({ deviceId }) => deviceId));
      const { sinkId } = this.#context as AudioContext & { sinkId?: unknown };
      if (typeof sinkId === "string" && sinkId && !devices.speakers.some(({ deviceId }) => deviceId === sinkId))
        void this.useSpeaker("").catch(reportError);
      this.listener?.onDevices(devices);
    }, reportError);
  };
}
