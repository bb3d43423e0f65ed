// Builds `dist/`: the package and its two worklets, beside a copy of the project's license; TypeScript adds the types.

import { copyFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { minify } from "terser";

const here = dirname(fileURLToPath(import.meta.url));

/** Bundles the package and its worklets; returns the code of each file by its name. */
export async function bundle() {
  const common = {
    absWorkingDir: here,
    outdir: "dist",
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: true,
    write: false,
  };
  const built = await Promise.all([
    build({
      ...common,
      entryPoints: ["src/index.ts", "src/livekit.ts"],
      splitting: true, // livekit.js is loaded only by pages that want it
      external: ["livekit-client"],
    }),
    // Some browsers load no imports in a worklet, so each is one file.
    build({ ...common, entryPoints: ["src/worklets/microphone.worklet.ts", "src/worklets/playback.worklet.ts"] }),
  ]);
  /** @type {Record<string, string>} */
  const files = {};
  for (const { path, text } of built.flatMap(({ outputFiles }) => outputFiles)) {
    const { code } = await minify(text, { module: true, ecma: 2020, compress: { passes: 3 } });
    files[path.slice(path.lastIndexOf("/") + 1)] = code;
  }
  return files;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const dist = join(here, "dist");
  rmSync(dist, { recursive: true, force: true });
  mkdirSync(dist);
  for (const [name, code] of Object.entries(await bundle())) writeFileSync(join(dist, name), code);
  copyFileSync(join(here, "../../../../LICENSE"), join(here, "LICENSE"));
}
