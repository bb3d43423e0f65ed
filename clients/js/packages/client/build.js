// Builds `dist/`: the package, its two worklets, and its types.

import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const common = { absWorkingDir: here, bundle: true, minify: true, format: "esm", target: "es2022", legalComments: "none" };

rmSync(join(here, "dist"), { recursive: true, force: true });
await build({
  ...common,
  entryPoints: ["src/index.ts"],
  outfile: "dist/index.js",
  external: ["livekit-client"],
  sourcemap: true,
});
for (const name of ["microphone", "playback"])
  await build({ ...common, entryPoints: [`src/worklets/${name}.worklet.ts`], outfile: `dist/${name}.worklet.js` });

const compiler = createRequire(import.meta.url).resolve("typescript/bin/tsc");
execFileSync(process.execPath, [compiler, "--project", "tsconfig.build.json"], { cwd: here, stdio: "inherit" });
