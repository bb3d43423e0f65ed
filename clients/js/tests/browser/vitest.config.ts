import { defineConfig } from "vitest/config";

/** The tests in real browsers; `make test-browser` runs them. */
export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ["*.test.ts"],
    globalSetup: ["support/setup.ts"],
    testTimeout: 150_000,
    hookTimeout: 150_000,
    maxWorkers: 3, // they mostly wait for speech
    retry: 1, // a machine that stands still changes what a browser records and plays
  },
});
