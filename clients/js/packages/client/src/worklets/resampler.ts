const ZERO_CROSSINGS = 16; // of the filter, on each side
const CUTOFF = 0.92; // of the lower Nyquist frequency, so that nothing above it is mirrored

/** Changes the sample rate of a stream by a windowed sinc filter, between any two whole rates in hertz. */
export class Resampler {
  readonly #up: number;
  readonly #down: number;
  readonly #filters: readonly Float32Array[]; // one for each position of an output between two inputs
  readonly #taps: number;
  #rest: Float32Array;
  #phase = 0;

  constructor(from: number, to: number) {
    const divisor = greatestCommonDivisor(from, to);
    this.#up = to / divisor;
    this.#down = from / divisor;
    const cutoff = CUTOFF * Math.min(1, to / from);
    const half = Math.ceil(ZERO_CROSSINGS / cutoff);
    this.#taps = 2 * half;
    this.#filters = Array.from({ length: this.#up }, (_, phase) => filter(half, cutoff, phase / this.#up));
    this.#rest = new Float32Array(half - 1);
  }

  /** Takes the next samples, and returns those that are due at the new rate. */
  push(input: Float32Array): Float32Array {
    const samples = new Float32Array(this.#rest.length + input.length);
    samples.set(this.#rest);
    samples.set(input, this.#rest.length);
    const output = new Float32Array(Math.ceil((samples.length * this.#up) / this.#down) + 1);
    let length = 0;
    let at = 0;
    while (at + this.#taps <= samples.length) {
      const weights = this.#filters[this.#phase] as Float32Array;
      let sum = 0;
      for (let tap = 0; tap < this.#taps; tap++) sum += (samples[at + tap] as number) * (weights[tap] as number);
      output[length++] = sum;
      this.#phase += this.#down;
      at += Math.floor(this.#phase / this.#up);
      this.#phase %= this.#up;
    }
    this.#rest = samples.slice(Math.min(at, samples.length));
    return output.subarray(0, length);
  }
}

// The weights of the inputs around an output that lies `offset` of an input's distance after the middle one.
function filter(half: number, cutoff: number, offset: number): Float32Array {
  const weights = Float32Array.from({ length: 2 * half }, (_, tap) => {
    const distance = tap - half + 1 - offset;
    const angle = Math.PI * cutoff * distance;
    const place = distance / half;
    if (Math.abs(place) >= 1) return 0;
    const blackman = 0.42 + 0.5 * Math.cos(Math.PI * place) + 0.08 * Math.cos(2 * Math.PI * place);
    return (angle === 0 ? 1 : Math.sin(angle) / angle) * blackman;
  });
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

function greatestCommonDivisor(one: number, other: number): number {
  return other ? greatestCommonDivisor(other, one % other) : one;
}
