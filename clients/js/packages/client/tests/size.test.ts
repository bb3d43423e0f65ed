import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { bundle } from "../build.js";

const LIMIT = 15_000;

test("the package and its worklets are small", async () => {
  const files = await bundle({ write: false });
  const sizes = files.map(
    ({ path, contents }) => [path.split("/").at(-1), gzipSync(contents, { level: 9 }).length] as const,
  );
  const total = sizes.reduce((sum, [, size]) => sum + size, 0);

  console.info(`${sizes.map(([name, size]) => `${name} ${size}`).join(", ")}; together ${total} bytes gzipped`);
  expect(files).toHaveLength(3);
  expect(total).toBeLessThan(LIMIT);
});

test("the package makes no code at run time, which a strict policy would forbid", async () => {
  const code = (await bundle({ write: false })).map(({ text }) => text).join("\n");

  expect(code).not.toMatch(/\beval\(|new Function\(|createObjectURL|data:text\/javascript/);
});

test("LiveKit is not in the package", async () => {
  const [index] = (await bundle({ write: false })).filter(({ path }) => path.endsWith("/index.js"));

  expect(index?.text).toMatch(/import\("livekit-client"\)/);
});
