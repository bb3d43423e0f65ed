// Prints, as JSON, the gzipped sizes of this package and of comparable ones, bundled by the same method.
//
//     node bench/sizes.js FOLDER      installs the other packages into the folder

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";
import { bundle } from "../packages/client/build.js";

const OTHERS = {
  "ultravox-client": "0.5.0",
  "@vapi-ai/web": "2.7.1",
  "retell-client-js-sdk": "2.0.8",
  "@elevenlabs/client": "1.25.0",
};
const INSTALL_MS = 300_000;

const gzipped = (files) => files.reduce((total, code) => total + gzipSync(code, { level: 9 }).length, 0);

// Bundles all that packages export for a browser, as a page does that imports them whole.
async function sizeOf(folder, ...names) {
  const { outputFiles } = await build({
    stdin: { contents: names.map((name, n) => `export * as all${n} from "${name}";`).join("\n"), resolveDir: folder },
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    legalComments: "none",
    outdir: folder,
    write: false,
    logLevel: "error",
  });
  // As in the build of this package.
  const files = outputFiles.map(({ text }) => minify(text, { module: true, ecma: 2020, compress: { passes: 3 } }));
  return gzipped((await Promise.all(files)).map(({ code }) => code));
}

const folder = resolve(process.argv[2]);
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, dependencies: OTHERS }));
// Scripts of other packages are not run.
execFileSync(
  "npm",
  ["install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"],
  {
    cwd: folder,
    stdio: ["ignore", "ignore", "inherit"],
    timeout: INSTALL_MS,
  },
);

const { "livekit.js": room, ...files } = await bundle();
const own = gzipped(Object.values(files));
const livekit = await sizeOf(import.meta.dirname, "livekit-client");
const sizes = [
  ["@pi-voice/client, with both worklets", own],
  ["@pi-voice/client with livekit-client, loaded only when asked for", own + gzipped([room]) + livekit],
];
for (const [name, version] of Object.entries(OTHERS)) sizes.push([`${name} ${version}`, await sizeOf(folder, name)]);
console.log(JSON.stringify(sizes));
