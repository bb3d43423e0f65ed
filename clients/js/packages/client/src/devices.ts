import type { Device, DeviceCheck } from "./types.js";

/** Lists the browser's devices of a kind; before the microphone is allowed, browsers hide them. */
export async function listDevices(kind: "audioinput" | "audiooutput"): Promise<Device[]> {
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return all
    .filter((device) => device.kind === kind && device.deviceId)
    .map(({ deviceId, label }) => ({ deviceId, label }));
}

/** Whether the browser can play on another loudspeaker than the system's. */
export const canChooseSpeaker = (): boolean =>
  typeof AudioContext === "function" && "setSinkId" in AudioContext.prototype;

/** Lists microphones and loudspeakers. */
export async function bothDevices(): Promise<{ microphones: Device[]; speakers: Device[] }> {
  const [microphones, speakers] = await Promise.all([
    listDevices("audioinput"),
    canChooseSpeaker() ? listDevices("audiooutput") : [],
  ]);
  return { microphones, speakers };
}

/** Checks what the browser offers for a call, without opening the microphone. */
export async function checkDevices(): Promise<DeviceCheck> {
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const isMissing = !all.some(({ kind }) => kind === "audioinput");
  return {
    microphone: isMissing ? "missing" : await permission(),
    ...(await bothDevices()),
    worklet: typeof AudioWorkletNode === "function",
    websocket: typeof WebSocket === "function",
  };
}

async function permission(): Promise<PermissionState> {
  try {
    return (await navigator.permissions.query({ name: "microphone" as PermissionName })).state;
  } catch {
    return "prompt"; // a browser that cannot be asked, asks the caller
  }
}
