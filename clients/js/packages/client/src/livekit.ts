import { CallError } from "./errors.js";
import { atMost } from "./timing.js";
import type { LiveKitConnection } from "./types.js";

const JOINING_SECONDS = 20;
// LiveKit's DisconnectReason: the participant was removed, the room was deleted, the room was closed.
const HUNG_UP = [4, 5, 10];
const LEFT = 1; // the page itself has disconnected

interface LiveKitTrack {
  kind: string;
  attach(): HTMLMediaElement;
  detach(): HTMLMediaElement[];
}

/** The part of LiveKit's Room that a call uses. */
export interface LiveKitRoom {
  connect(url: string, token: string): Promise<void>;
  disconnect(): Promise<void>;
  // biome-ignore lint/suspicious/noExplicitAny: each event of LiveKit has arguments of its own
  on(event: any, listener: (...args: any[]) => void): unknown;
  localParticipant: {
    publishTrack(track: MediaStreamTrack, options?: { name?: string; source?: string }): Promise<unknown>;
  };
}

/** The part of the package livekit-client that a call uses. */
export interface LiveKitModule {
  Room: new () => unknown;
}

/** What the room tells its call. */
export interface RoomListener {
  /** The room was closed for everyone, because the call was stopped or its time is over. */
  onStopped(): void;
  onLost(error: CallError): void;
}

/** Loads the package livekit-client, which is installed only where it is wanted. */
export async function loadLiveKit(livekit: true | "required" | (() => Promise<LiveKitModule>)): Promise<LiveKitModule> {
  try {
    return await (typeof livekit === "function" ? livekit() : import("livekit-client"));
  } catch (cause) {
    throw new CallError("livekit_missing", { cause });
  }
}

/** Joins the room with the microphone and the agent's voice, so that others hear both; returns how to leave it. */
export async function joinRoom(
  module: LiveKitModule,
  connection: LiveKitConnection,
  tracks: Record<string, MediaStreamTrack | undefined>,
  listener: RoomListener,
): Promise<() => Promise<void>> {
  const room = new module.Room() as LiveKitRoom;
  let hasJoined = false;
  room.on("trackSubscribed", (track: LiveKitTrack) => track.kind === "audio" && track.attach());
  room.on("trackUnsubscribed", (track: LiveKitTrack) => track.detach());
  room.on("disconnected", (reason?: number) => {
    if (!hasJoined || reason === LEFT) return;
    if (HUNG_UP.includes(reason ?? 0)) listener.onStopped();
    else listener.onLost(new CallError("livekit_failed", { message: `LiveKit disconnected (reason ${reason}).` }));
  });
  let failure: unknown;
  const join = async () => {
    await room.connect(connection.url, connection.token);
    for (const [name, track] of Object.entries(tracks))
      if (track) await room.localParticipant.publishTrack(track, { name, source: "microphone" });
    hasJoined = true;
  };
  await atMost(
    JOINING_SECONDS,
    join().catch((error: unknown) => (failure = error)),
  );
  if (!hasJoined) {
    await atMost(1, room.disconnect());
    // LiveKit's own error may name the URL with its token.
    const why = failure instanceof Error ? `${failure.name}` : "no answer";
    throw new CallError("livekit_failed", { message: `The LiveKit room cannot be joined (${why}).`, retryable: true });
  }
  return () => atMost(2, room.disconnect());
}
