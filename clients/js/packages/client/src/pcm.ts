/** Sample rate of what Gemini hears, in hertz. */
export const HEARD_RATE = 16_000;
/** Sample rate of what Gemini says, in hertz. */
export const SPOKEN_RATE = 24_000;
/** Samples in one message of the microphone: 32 ms. */
export const PIECE_SAMPLES = 512;

/** Returns samples as base64. */
export function encode(samples: ArrayBuffer): string {
  return btoa(String.fromCharCode(...new Uint8Array(samples)));
}

/** Returns the whole 16-bit samples of base64. */
export function decode(base64: string): Int16Array<ArrayBuffer> {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length - (text.length % 2));
  for (let place = 0; place < bytes.length; place++) bytes[place] = text.charCodeAt(place);
  return new Int16Array(bytes.buffer);
}
