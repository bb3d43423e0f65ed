/** A sound server without a loudspeaker: Firefox plays nothing, and so starts no worklet, on a machine without any. */

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { end } from "./process.js";
import { until } from "./world.js";

/** Run PulseAudio until `stop`; `variables` are for the programs that should play there. */
export async function runSound(): Promise<{ variables: Record<string, string>; stop: () => Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), "sound-"));
  const socket = join(folder, "native");
  const modules = ["module-null-sink", `module-native-protocol-unix socket=${socket} auth-anonymous=1`];
  const options = ["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"];
  const child = spawn("pulseaudio", [...options, ...modules.map((module) => `--load=${module}`)], {
    env: { ...process.env, HOME: folder, XDG_RUNTIME_DIR: folder },
    stdio: "ignore",
  });
  let failure: Error | undefined;
  child.once("error", (error) => {
    failure = error;
  });
  const stop = async () => {
    await end(child);
    rmSync(folder, { recursive: true, force: true });
  };
  await until("PulseAudio has started", () => {
    if (failure) throw failure;
    return existsSync(socket);
  });
  return { variables: { PULSE_SERVER: `unix:${socket}` }, stop };
}
