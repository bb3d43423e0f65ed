import type { LiveKitConnection } from "./types.js";

const JOINING_SECONDS = 20;
const LEAVING_SECONDS = 2;
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
  /** The room was lost, for one of LiveKit's reasons. */
  onLost(reason: number): void;
}

/**
 * Joins the room with the microphone and the agent's voice, so that others hear both; returns how to leave it.
 *
 * Imports nothing of this package: it is a file of its own, which only pages with LiveKit load.
 */
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
  room.on("disconnected", (reason = 0) => {
    if (!hasJoined || reason === LEFT) return;
    if (HUNG_UP.includes(reason)) listener.onStopped();
    else listener.onLost(reason);
  });
  const join = async () => {
    await room.connect(connection.url, connection.token);
    for (const [name, track] of Object.entries(tracks))
      if (track) await room.localParticipant.publishTrack(track, { name, source: "microphone" });
    hasJoined = true;
  };
  const leave = () => within(LEAVING_SECONDS, room.disconnect()).catch(() => {}); // it is left in any case
  try {
    await within(JOINING_SECONDS, join());
    return leave;
  } catch (error) {
    await leave();
    throw error;
  }
}

async function within<T>(seconds: number, work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new DOMException("LiveKit does not answer.", "TimeoutError")), seconds * 1000);
  });
  return await Promise.race([work, late]).finally(() => clearTimeout(timer));
}
