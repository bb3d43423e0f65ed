import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

/** The folder of a package. */
const folderOf = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));

/** The files of a built package as npm packs it, except the types. */
function packed(name: string): string[] {
  const answer = execFileSync("npm", ["pack", "--dry-run", "--json"], { cwd: folderOf(name), encoding: "utf8" });
  const [{ files }] = JSON.parse(answer) as [{ files: { path: string }[] }];
  return files.map(({ path }) => path);
}

test.each([
  ["client", ["index.js", "livekit.js", "microphone.worklet.js", "playback.worklet.js"]],
  ["react", ["index.js"]],
])("the package %s has its code, its types, its license and what it is for", (name, code) => {
  const files = packed(name);

  expect(files.filter((file) => !file.endsWith(".d.ts")).sort()).toEqual(
    ["LICENSE", "README.md", ...code.map((file) => `dist/${file}`), "package.json"].sort(),
  );
  const { exports } = JSON.parse(readFileSync(`${folderOf(name)}/package.json`, "utf8"));
  const exported = JSON.stringify(exports).match(/(?<="\.\/)[\w./-]+(?="[,}])/g);
  expect(files).toEqual(expect.arrayContaining(exported ?? []));
  expect(exported).toContain("dist/index.d.ts");
});
