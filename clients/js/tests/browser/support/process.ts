/** Programs of the project, as child processes that are ended by their id. */

import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

/** The root of the repository. */
export const ROOT = fileURLToPath(new URL("../../../../../", import.meta.url));

/** Longer than a start takes on a busy machine. */
const START_MS = 120_000;
const END_MS = 10_000;
const LONGEST_OUTPUT = 200_000;

export interface Running {
  /** What the program has printed until it was ready. */
  output: string;
  stop(): Promise<void>;
}

/** Run a Python module of the project until `stop`; resolves once its output matches. */
export async function runModule(module: string[], ready: RegExp, variables: Record<string, string>): Promise<Running> {
  const child = spawn(`${ROOT}.venv/bin/python`, ["-m", ...module], {
    cwd: ROOT,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, PYTHONPATH: ".:layers/voice", ...variables },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const stop = () => end(child);
  await new Promise<void>((resolve, reject) => {
    const fail = (why: string) => reject(new Error(`${module.join(" ")} ${why}:\n${output}`));
    const timer = setTimeout(() => fail("did not start in time"), START_MS);
    const read = (data: Buffer) => {
      output = (output + data).slice(-LONGEST_OUTPUT);
      if (ready.test(output)) {
        clearTimeout(timer);
        resolve();
      }
    };
    child.stdout?.on("data", read);
    child.stderr?.on("data", read);
    child.once("error", (error) => fail(String(error)));
    void ended.then(() => fail("has ended"));
  }).catch(async (error) => {
    await stop();
    throw error;
  });
  return { output, stop };
}

/** End a child process by its id, and wait until it has ended. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  child.kill("SIGINT");
  const timer = setTimeout(() => child.kill("SIGKILL"), END_MS);
  await ended;
  clearTimeout(timer);
}
