import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: {
    // The client's sources, so that tests need no build.
    alias: { "@pi-voice/client": fileURLToPath(new URL("../client/src/index.ts", import.meta.url)) },
  },
  test: { include: ["tests/**/*.test.tsx"], testTimeout: 90_000 },
});
