// What browsers have and Node lacks. Errors of the page's own functions are collected, as `window.onerror` would.

import { afterEach, beforeEach } from "vitest";

/** The errors that were reported to the page during a test. */
export const reported: unknown[] = [];

beforeEach(() => {
  reported.length = 0;
  globalThis.reportError = (error: unknown) => void reported.push(error);
});

afterEach(() => {
  Reflect.deleteProperty(globalThis, "reportError");
});
