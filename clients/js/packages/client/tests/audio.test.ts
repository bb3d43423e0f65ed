import { beforeEach, describe, expect, test, vi } from "vitest";
import type { Call } from "../src/call.js";
import { checkDevices } from "../src/devices.js";
import type { CallError } from "../src/errors.js";
import { startCall } from "../src/start.js";
import type { AudioOptions, CreatedSession } from "../src/types.js";
import { API_URL, ScriptedApi, SESSION } from "./support/api.js";
import { FakeContext, type FakeDevices, type FakeNode, fakeAudio } from "./support/audio.js";
import { agentText, interrupted, ScriptedSocket, scriptSockets, spoken, turnComplete } from "./support/socket.js";

const SECOND = Buffer.alloc(48_000).toString("base64"); // of the agent's voice

let devices: FakeDevices;

beforeEach(() => {
  vi.useFakeTimers();
  new ScriptedApi();
  scriptSockets();
  devices = fakeAudio();
});

const seconds = (count: number) => vi.advanceTimersByTimeAsync(count * 1_000);
const start = (audio: AudioOptions = {}) =>
  startCall({ session: SESSION as CreatedSession, apiUrl: API_URL, audio, persist: false });

async function started(audio?: AudioOptions): Promise<Call> {
  const starting = start(audio);
  await seconds(0);
  ScriptedSocket.latest.setUp();
  return await starting;
}

const microphone = (): FakeNode => FakeContext.latest.worklet("pi-voice-microphone");
const player = (): FakeNode => FakeContext.latest.worklet("pi-voice-playback");
const piece = (level = 0.1) => ({ pcm: new Int16Array([1, 2]).buffer, level });
const failureOf = (work: Promise<unknown>): Promise<CallError> =>
  work.then(
    () => Promise.reject(new Error("It did not fail.")),
    (error) => error,
  );

describe("the microphone", () => {
  test("is asked for with echo cancellation", async () => {
    await started();

    expect(devices.asked[0]).toMatchObject({ echoCancellation: true, channelCount: 1 });
  });

  test("is recorded before the connection is there", async () => {
    const starting = start();
    await seconds(0);
    microphone().reports(piece());

    ScriptedSocket.latest.setUp();
    await starting;

    expect(ScriptedSocket.latest.audio).toEqual(["AQACAA=="]);
  });

  test("that is muted says that it pauses, and sends nothing", async () => {
    const call = await started();

    call.mic.muted = true;
    microphone().reports(piece());

    expect(ScriptedSocket.latest.audio).toEqual([]);
    expect(ScriptedSocket.latest.sent.at(-1)).toEqual({ realtimeInput: { audioStreamEnd: true } });
    expect(devices.streams[0]?.tracks[0]?.enabled).toBe(false);
    expect(call.mic.level()).toBe(0);

    call.mic.muted = false;
    microphone().reports(piece());
    expect(ScriptedSocket.latest.audio).toHaveLength(1);
  });

  test("has a level, which ends with the sound", async () => {
    const call = await started();

    microphone().reports(piece(0.3));
    expect(call.mic.level()).toBe(0.3);
    await seconds(1);

    expect(call.mic.level()).toBe(0);
  });

  test.each([
    ["NotAllowedError", "microphone_refused"],
    ["NotFoundError", "microphone_missing"],
    ["NotReadableError", "microphone_busy"],
  ])("that fails with %s refuses the call with %s", async (name, code) => {
    devices.failure = name;

    expect(await failureOf(start())).toMatchObject({ code });
    expect(FakeContext.latest.state).toBe("closed");
  });

  test("is not asked for where the caller only listens", async () => {
    await started({ microphone: false });

    expect(devices.asked).toEqual([]);
  });

  test("can be switched in the call, and the old one is stopped", async () => {
    const call = await started();

    await call.mic.use("mic-2");

    expect(devices.asked.at(-1)).toMatchObject({ deviceId: { exact: "mic-2" } });
    expect(devices.streams.map(({ tracks }) => tracks[0]?.isStopped)).toEqual([true, false]);
    expect(FakeContext.latest.sources.map(({ outputs }) => outputs.size)).toEqual([0, 1]);
  });

  test("that stays muted when it is switched", async () => {
    const call = await started();
    call.mic.muted = true;

    await call.mic.use("mic-2");

    expect(devices.streams.at(-1)?.tracks[0]?.enabled).toBe(false);
  });

  test("that cannot be switched goes on as it is", async () => {
    const call = await started();
    devices.failure = "OverconstrainedError";

    expect(await failureOf(call.mic.use("mic-9"))).toMatchObject({ code: "microphone_missing" });
    expect(devices.streams[0]?.tracks[0]?.isStopped).toBe(false);
  });

  test("that is lost is replaced by the system's", async () => {
    await started({ microphoneId: "mic-2" });

    devices.streams[0]?.tracks[0]?.onended?.();
    await seconds(0);

    expect(devices.asked.at(-1)).not.toHaveProperty("deviceId");
    expect(devices.streams).toHaveLength(2);
  });

  test("that is lost without another one is an error that the call survives", async () => {
    const call = await started();
    const errors: string[] = [];
    call.on("error", ({ code }) => errors.push(code));
    devices.failure = "NotFoundError";

    devices.streams[0]?.tracks[0]?.onended?.();
    await seconds(0);

    expect(errors).toEqual(["microphone_missing"]);
    expect(call.state).not.toBe("failed");
  });

  test("is released at the end", async () => {
    const call = await started();

    void call.hangUp();
    await seconds(0);

    expect(devices.streams[0]?.tracks[0]?.isStopped).toBe(true);
    expect(FakeContext.latest.state).toBe("closed");
  });

  test("that is allowed after the call was given up is released", async () => {
    const controller = new AbortController();
    let allow: () => void = () => {};
    const getUserMedia = devices.getUserMedia.bind(devices);
    devices.getUserMedia = async (constraints) => {
      await new Promise<void>((resolve) => (allow = resolve));
      return getUserMedia(constraints);
    };
    const options = { session: SESSION as CreatedSession, apiUrl: API_URL, signal: controller.signal };
    const failing = failureOf(startCall(options));
    await seconds(0);
    controller.abort();
    expect(await failing).toMatchObject({ code: "aborted" });

    allow();
    await seconds(0);

    expect(devices.streams[0]?.tracks[0]?.isStopped).toBe(true);
  });
});

describe("the agent's voice", () => {
  test("is played, and the state follows it to its end", async () => {
    const call = await started();

    ScriptedSocket.latest.says(spoken(SECOND), turnComplete);
    expect(call.state).toBe("speaking");
    player().reports({ position: 12_000, level: 0.2 });
    expect(call.speaker.level()).toBe(0.2);
    expect(call.state).toBe("speaking");
    player().reports({ position: 24_000, level: 0 });

    expect(call.state).toBe("listening");
    expect((player().posted[0] as ArrayBuffer).byteLength).toBe(48_000);
  });

  test("that is interrupted is dropped, and its turn cut to what was heard", async () => {
    const call = await started();
    ScriptedSocket.latest.says(spoken(SECOND), agentText("We are open from nine to five every day."));
    player().reports({ position: 12_000, level: 0.2 });

    ScriptedSocket.latest.says(interrupted, turnComplete);

    expect(player().posted).toContain("clear");
    expect(call.turns[0]?.text).toBe("We are open from nine");
    expect(call.state).toBe("listening");
  });

  test("of an earlier turn does not count for the next one", async () => {
    const call = await started();
    ScriptedSocket.latest.says(spoken(SECOND), agentText("One two."), turnComplete);
    player().reports({ position: 24_000, level: 0 });
    ScriptedSocket.latest.says(spoken(SECOND), agentText("We are open from nine to five every day."));
    player().reports({ position: 36_000, level: 0.2 });

    ScriptedSocket.latest.says(interrupted);

    expect(call.turns.map(({ text }) => text)).toEqual(["One two.", "We are open from nine"]);
  });

  test("that was heard to its end keeps its words", async () => {
    const call = await started();
    ScriptedSocket.latest.says(spoken(SECOND), agentText("We are open"));
    player().reports({ position: 24_000, level: 0 });

    ScriptedSocket.latest.says(interrupted, agentText(" every day."));

    expect(call.turns[0]?.text).toBe("We are open every day.");
  });

  test("is played to its end before the agent hangs up", async () => {
    const call = await started();
    ScriptedSocket.latest.says(
      spoken(SECOND),
      agentText("Goodbye!"),
      { toolCall: { functionCalls: [{ id: "c-1", name: "hang_up" }] } },
      turnComplete,
    );

    await seconds(2);
    expect(call.state).toBe("speaking");
    player().reports({ position: 24_000, level: 0 });
    await seconds(2);

    expect(await call.results).toMatchObject({ end_reason: "agent_hung_up" });
  });

  test("does not keep the call if nothing plays it", async () => {
    const call = await started();
    ScriptedSocket.latest.says(
      spoken(SECOND),
      { toolCall: { functionCalls: [{ id: "c-1", name: "hang_up" }] } },
      turnComplete,
    );

    await seconds(10);

    expect(await call.results).toMatchObject({ end_reason: "agent_hung_up" });
  });

  test("has a volume, and can be muted", async () => {
    const call = await started();
    const [gain] = player().outputs;

    call.speaker.volume = 0.5;
    expect(gain?.gain.value).toBe(0.5);
    call.speaker.muted = true;
    expect(gain?.gain.value).toBe(0);
    call.speaker.muted = false;
    call.speaker.volume = 7;

    expect([gain?.gain.value, call.speaker.volume]).toEqual([1, 1]);
  });

  test("can go to another loudspeaker, and comes back when that is gone", async () => {
    const call = await started();
    const seen: unknown[] = [];
    call.on("devices", (found) => seen.push(found));

    await call.speaker.use("out-1");
    expect(FakeContext.latest.sinkId).toBe("out-1");
    devices.devices = devices.devices.filter(({ kind }) => kind !== "audiooutput");
    devices.dispatchEvent(new Event("devicechange"));
    await seconds(0);

    expect(FakeContext.latest.sinkId).toBe("");
    expect(seen).toMatchObject([{ speakers: [], microphones: [{ deviceId: "mic-1" }, { deviceId: "mic-2" }] }]);
  });
});

describe("a browser that waits for a gesture", () => {
  test("is shown, and nothing is connected before the gesture", async () => {
    FakeContext.isAllowed = false;
    const starting = start();
    await seconds(2);
    const call = await starting;
    expect(call.state).toBe("needs_gesture");
    expect(ScriptedSocket.all).toEqual([]);

    FakeContext.isAllowed = true;
    void call.resumeAudio();
    await seconds(0);
    ScriptedSocket.latest.setUp();

    expect(call.state).toBe("thinking");
  });

  test("in the middle of a call is shown, too", async () => {
    const call = await started();

    FakeContext.latest.becomes("interrupted");
    expect(call.state).toBe("needs_gesture");
    await call.resumeAudio();

    expect(call.state).not.toBe("needs_gesture");
  });
});

describe("worklets", () => {
  test("are files beside the code", async () => {
    await started();

    expect(FakeContext.latest.modules).toEqual([
      new URL("../src/microphone.worklet.js", import.meta.url).href,
      new URL("../src/playback.worklet.js", import.meta.url).href,
    ]);
  });

  test("can lie in another folder of the page", async () => {
    await started({ workletUrl: "assets/" });

    expect(FakeContext.latest.modules[0]).toBe("https://page.example.com/shop/assets/microphone.worklet.js");
  });

  test("that cannot be loaded refuse the call, and release the microphone", async () => {
    class Blocked extends FakeContext {
      override audioWorklet = { addModule: () => Promise.reject(new DOMException("blocked", "AbortError")) };
    }
    vi.stubGlobal("AudioContext", Blocked);

    expect(await failureOf(start())).toMatchObject({ code: "worklet_unavailable" });
    await seconds(0);
    expect(devices.streams[0]?.tracks[0]?.isStopped).toBe(true);
  });

  test("that the browser lacks refuse the call", async () => {
    class Old extends FakeContext {
      override audioWorklet = undefined;
    }
    vi.stubGlobal("AudioContext", Old);

    expect(await failureOf(start())).toMatchObject({ code: "worklet_unavailable" });
  });

  test("in a context of the page leave it open", async () => {
    const context = new FakeContext();
    const call = await started({ context: context as unknown as AudioContext });

    void call.hangUp();
    await seconds(0);

    expect(context.state).toBe("running");
    expect(player().posted).toContain("end");
  });
});

describe("a check of the devices", () => {
  test("lists them", async () => {
    expect(await checkDevices()).toEqual({
      microphone: "granted",
      microphones: [
        { deviceId: "mic-1", label: "Built-in" },
        { deviceId: "mic-2", label: "Headset" },
      ],
      speakers: [{ deviceId: "out-1", label: "Speaker" }],
      worklet: true,
      websocket: true,
    });
  });

  test("says that there is no microphone", async () => {
    devices.devices = [];

    expect(await checkDevices()).toMatchObject({ microphone: "missing", microphones: [] });
  });

  test("works where the page is not served securely", async () => {
    vi.stubGlobal("navigator", {});
    vi.stubGlobal("AudioWorkletNode", undefined);

    expect(await checkDevices()).toMatchObject({ microphone: "missing", worklet: false });
  });
});
