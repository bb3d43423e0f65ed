// Builds `dist/`: the package and its two worklets; TypeScript adds the types.

import { rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));

/** Bundles the package and its worklets; returns the files if `write` is false. */
export async function bundle({ write = true } = {}) {
  const { outputFiles } = await build({
    absWorkingDir: here,
    entryPoints: {
      index: "src/index.ts",
      "microphone.worklet": "src/worklets/microphone.worklet.ts",
      "playback.worklet": "src/worklets/playback.worklet.ts",
    },
    outdir: "dist",
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    external: ["livekit-client"],
    legalComments: "none",
    write,
  });
  return outputFiles ?? [];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  rmSync(join(here, "dist"), { recursive: true, force: true });
  await bundle();
}
