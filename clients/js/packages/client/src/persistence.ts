// What a call needs after a reload of its page. It lies in `sessionStorage`, which belongs to one tab; a duplicated tab
// gets a copy, so a lock says which of them has the call.

import type { Turn } from "./types.js";

const KEY = "pi-voice-call";
const LOCK_SECONDS = 3; // a page that is reloaded releases its lock a moment later

/** A call as it is stored. */
export interface StoredCall {
  sessionId: string;
  clientToken: string;
  /** When the call began, and when its time is over, in milliseconds since 1970. */
  beganAt: number;
  endsAt: number | null;
  turns: readonly Turn[];
  /** Why the call has ended. */
  endReason?: string;
  /** The request that completes the session, and its idempotency key. */
  ending?: { key: string; request: object };
}

/** Returns the tab's call, or null. */
export function storedCall(): StoredCall | null {
  try {
    const stored: unknown = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    return isStoredCall(stored) ? stored : null;
  } catch {
    return null; // not allowed, or not ours
  }
}

/** Stores the tab's call, as far as the browser allows it. */
export function store(call: StoredCall): void {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(call));
  } catch {
    forget(call.sessionId); // an old state would be worse than none
  }
}

/** Forgets the tab's call, unless it is another one by now. */
export function forget(sessionId: string): void {
  try {
    if (storedCall()?.sessionId === sessionId) sessionStorage.removeItem(KEY);
  } catch {
    // Storage is not allowed, so there is nothing to forget.
  }
}

/** Takes the call for this page; resolves with how to release it, or with null if another page has it. */
export async function lock(sessionId: string): Promise<(() => void) | null> {
  if (!globalThis.navigator?.locks) return () => {}; // the API refuses the second writer of a transcript
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), LOCK_SECONDS * 1000);
  try {
    return await new Promise<() => void>((resolve, reject) => {
      const hold = () => new Promise<void>((release) => resolve(release));
      navigator.locks.request(`${KEY}-${sessionId}`, { signal: patience.signal }, hold).catch(reject);
    });
  } catch {
    return patience.signal.aborted ? null : () => {}; // a page that may not use locks may still call
  } finally {
    clearTimeout(timer);
  }
}

function isStoredCall(value: unknown): value is StoredCall {
  const call = value as StoredCall | null;
  return (
    typeof call?.sessionId === "string" &&
    typeof call.clientToken === "string" &&
    Number.isFinite(call.beganAt) &&
    Array.isArray(call.turns)
  );
}
