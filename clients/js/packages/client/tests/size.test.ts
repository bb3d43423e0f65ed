import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { beforeAll, expect, test } from "vitest";
import { bundle } from "../build.js";

const LIMIT = 15_000;

let files: Record<string, string>;

beforeAll(async () => {
  files = await bundle();
});

test("the package and its worklets are small", () => {
  const sizes = Object.entries(files).map(([name, code]) => [name, gzipSync(code, { level: 9 }).length] as const);
  // Only pages with LiveKit load livekit.js.
  const total = sizes.reduce((sum, [name, size]) => sum + (name === "livekit.js" ? 0 : size), 0);

  console.info(`${sizes.map(([name, size]) => `${name} ${size}`).join(", ")}; without LiveKit ${total} bytes gzipped`);
  expect(Object.keys(files).sort()).toEqual(["index.js", "livekit.js", "microphone.worklet.js", "playback.worklet.js"]);
  expect(total).toBeLessThan(LIMIT);
});

test("the package makes no code at run time, which a strict policy would forbid", () => {
  expect(Object.values(files).join("\n")).not.toMatch(/\beval\(|new Function\(|createObjectURL|data:text\/javascript/);
});

test("LiveKit is not in the package, and bundlers let it be missing", async () => {
  const stdin = { contents: files["index.js"] ?? "" }; // without a folder, so nothing is found

  const { outputFiles } = await build({ stdin, bundle: true, format: "esm", write: false, external: ["./livekit.js"] });

  expect(outputFiles[0]?.text).toContain('import("livekit-client")');
});

test.each(["microphone", "playback"])("bundlers find the worklet of the %s", (name) => {
  expect(files["index.js"]).toContain(`new URL("./${name}.worklet.js",import.meta.url)`);
});

test("worklets import nothing", () => {
  expect(files["microphone.worklet.js"]).not.toMatch(/\bimport\b/);
  expect(files["playback.worklet.js"]).not.toMatch(/\bimport\b/);
});
