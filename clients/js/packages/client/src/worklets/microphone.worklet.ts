import { Recorder } from "./recorder.js";

class MicrophoneProcessor extends AudioWorkletProcessor {
  readonly #recorder = new Recorder(sampleRate);
  #isOver = false;

  constructor() {
    super();
    this.port.onmessage = () => {
      this.#isOver = true;
    };
  }

  process([input]: Float32Array[][]): boolean {
    if (input?.[0]) this.#recorder.push(input[0], (piece) => this.port.postMessage(piece, [piece.pcm]));
    return !this.#isOver;
  }
}

registerProcessor("pi-voice-microphone", MicrophoneProcessor);
