import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    environment: "node",
    testTimeout: 30_000,
    restoreMocks: true,
    unstubGlobals: true,
    setupFiles: ["tests/support/setup.ts"],
  },
});
