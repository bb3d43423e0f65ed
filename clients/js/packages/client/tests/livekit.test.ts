import type { Room } from "livekit-client";
import { beforeEach, expect, expectTypeOf, test, vi } from "vitest";
import type { Call } from "../src/call.js";
import type { CallError } from "../src/errors.js";
import type { LiveKitModule, LiveKitRoom } from "../src/livekit.js";
import { startCall } from "../src/start.js";
import type { CreatedSession, StartCallOptions } from "../src/types.js";
import { API_URL, ScriptedApi, SESSION } from "./support/api.js";
import { fakeAudio } from "./support/audio.js";
import { agentSays, ScriptedSocket, scriptSockets } from "./support/socket.js";

class FakeRoom {
  static latest: FakeRoom;
  static failure: Error | null = null;
  readonly listeners = new Map<string, (value?: unknown) => void>();
  readonly published: unknown[] = [];
  joined: unknown[] = [];
  isLeft = false;
  localParticipant = {
    publishTrack: async (_: unknown, options: unknown) => void this.published.push(options),
  };

  constructor() {
    FakeRoom.latest = this;
  }

  async connect(...given: unknown[]): Promise<void> {
    if (FakeRoom.failure) throw FakeRoom.failure;
    this.joined = given;
  }

  async disconnect(): Promise<void> {
    this.isLeft = true;
    this.listeners.get("disconnected")?.(1);
  }

  on(event: string, listener: (value?: unknown) => void): void {
    this.listeners.set(event, listener);
  }
}

const MODULE: LiveKitModule = { Room: FakeRoom };

beforeEach(() => {
  vi.useFakeTimers();
  new ScriptedApi();
  scriptSockets();
  fakeAudio();
  FakeRoom.failure = null;
});

const seconds = (count: number) => vi.advanceTimersByTimeAsync(count * 1_000);

async function started(options: Partial<StartCallOptions> = {}): Promise<Call> {
  const starting = startCall({
    session: SESSION as CreatedSession,
    apiUrl: API_URL,
    persist: false,
    livekit: async () => MODULE,
    ...options,
  });
  await vi.dynamicImportSettled();
  await seconds(0);
  ScriptedSocket.latest.setUp();
  return await starting;
}

function errorsOf(call: Call): CallError[] {
  const errors: CallError[] = [];
  call.on("error", (error) => errors.push(error));
  return errors;
}

test("LiveKit's own room is what a call expects", () => {
  expectTypeOf<Room>().toExtend<LiveKitRoom>();
  expectTypeOf<typeof import("livekit-client")>().toExtend<LiveKitModule>();
});

test("the room hears the caller and the agent", async () => {
  await started();

  expect(FakeRoom.latest.joined).toEqual(["wss://livekit.example.com", "jwt"]);
  expect(FakeRoom.latest.published).toEqual([
    { name: "caller", source: "microphone" },
    { name: "agent", source: "microphone" },
  ]);
});

test("a call in writing joins without a voice", async () => {
  await started({ audio: false });

  expect(FakeRoom.latest.joined).toHaveLength(2);
  expect(FakeRoom.latest.published).toEqual([]);
});

test("the voice of others is played", async () => {
  await started();
  const track = { kind: "audio", attach: vi.fn(), detach: vi.fn() };

  FakeRoom.latest.listeners.get("trackSubscribed")?.(track);
  FakeRoom.latest.listeners.get("trackUnsubscribed")?.(track);

  expect(track.attach).toHaveBeenCalledOnce();
  expect(track.detach).toHaveBeenCalledOnce();
});

test.each([4, 5, 10])("a room that ends with reason %d has stopped the call", async (reason) => {
  const call = await started();

  FakeRoom.latest.listeners.get("disconnected")?.(reason);
  await seconds(2);

  expect(call.state).toBe("ended");
  expect(await call.results).toMatchObject({ end_reason: "stopped" });
});

test("a room that is lost is an error that the call survives", async () => {
  const call = await started();
  const errors = errorsOf(call);

  FakeRoom.latest.listeners.get("disconnected")?.(3);

  expect(errors.map(({ code }) => code)).toEqual(["livekit_failed"]);
  expect(call.state).not.toBe("ended");
});

test("a room that is lost ends a call that needs it", async () => {
  vi.doMock("livekit-client", () => MODULE);
  await import("livekit-client");
  const call = await started({ livekit: "required" });
  ScriptedSocket.latest.says(...agentSays("Hello."));

  FakeRoom.latest.listeners.get("disconnected")?.(3);
  await seconds(2);

  expect(await call.results).toMatchObject({ end_reason: "disconnected" });
  vi.doUnmock("livekit-client");
});

test("a room that cannot be joined is an error that the call survives, without the token", async () => {
  FakeRoom.failure = new Error("wss://livekit.example.com/rtc?access_token=jwt-secret");
  const starting = started();
  const call = await starting;

  expect(call.error).toMatchObject({ code: "livekit_failed", retryable: true });
  expect(JSON.stringify([call.error?.message, String(call.error?.cause)])).not.toContain("jwt-secret");
  expect(call.state).toBe("thinking");
});

test("a room that cannot be joined refuses a call that needs it", async () => {
  vi.doMock("livekit-client", () => MODULE);
  await import("livekit-client");
  FakeRoom.failure = new Error("no");
  const failing = startCall({
    session: SESSION as CreatedSession,
    apiUrl: API_URL,
    persist: false,
    livekit: "required",
  }).then(
    () => null,
    (error: CallError) => error,
  );
  await seconds(1);

  expect(await failing).toMatchObject({ code: "livekit_failed" });
  expect(ScriptedSocket.all).toEqual([]);
  vi.doUnmock("livekit-client");
});

test("a package that is not installed is an error that says so", async () => {
  const call = await started({ livekit: () => Promise.reject(new Error("Cannot find module")) });

  expect(call.error).toMatchObject({ code: "livekit_missing" });
  expect(call.error?.advice).toContain("npm install livekit-client");
});

test("a session without a room is an error that the call survives", async () => {
  const connection = { gemini_live: SESSION.connection.gemini_live };
  const call = await started({ session: { ...SESSION, connection } as CreatedSession });

  expect(call.error).toMatchObject({ code: "livekit_failed" });
});

test("the room is left at the end", async () => {
  const call = await started();

  void call.hangUp();
  await seconds(2);

  expect(FakeRoom.latest.isLeft).toBe(true);
  expect(await call.results).toMatchObject({ end_reason: "completed" });
});
