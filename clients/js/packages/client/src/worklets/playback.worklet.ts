import { type PlaybackReport, Player } from "./player.js";

const REPORT_SECONDS = 0.04;

class PlaybackProcessor extends AudioWorkletProcessor {
  readonly #player = new Player(sampleRate);
  #isOver = false;
  #frames = 0; // since the last report
  #energy = 0;
  #reported = 0;

  constructor() {
    super();
    // Samples are played, "clear" drops them, "end" stops the worklet.
    this.port.onmessage = ({ data }: MessageEvent<ArrayBuffer | "clear" | "end">) => {
      if (data === "clear") this.#player.clear();
      else if (data === "end") this.#isOver = true;
      else this.#player.push(new Int16Array(data));
    };
  }

  process(_: Float32Array[][], [outputs]: Float32Array[][]): boolean {
    const [output] = outputs ?? [];
    if (!output) return !this.#isOver;
    this.#player.pull(output);
    for (const sample of output) this.#energy += sample * sample;
    this.#frames += output.length;
    const { position, isPlaying } = this.#player;
    const isNews = position !== this.#reported && (!isPlaying || this.#frames >= REPORT_SECONDS * sampleRate);
    if (isNews) {
      const report: PlaybackReport = { position, level: isPlaying ? Math.sqrt(this.#energy / this.#frames) : 0 };
      this.port.postMessage(report);
      this.#reported = position;
    }
    if (isNews || this.#frames > sampleRate) this.#frames = this.#energy = 0;
    return !this.#isOver;
  }
}

registerProcessor("pi-voice-playback", PlaybackProcessor);
