import { defineConfig } from "vitest/config";

/** The time to the agent's first sound in Chromium; `make bench ARGS="browser"` runs it. */
export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ["*.measure.ts"],
    globalSetup: ["../tests/browser/support/setup.ts"],
    testTimeout: 400_000,
    hookTimeout: 150_000,
  },
});
