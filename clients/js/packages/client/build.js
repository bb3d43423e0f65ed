// Builds `dist/`: the package, its two worklets, and its types.

import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { createRequire } from "node:module";
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
  const compiler = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  execFileSync(process.execPath, [compiler, "--project", "tsconfig.build.json"], { cwd: here, stdio: "inherit" });
}
