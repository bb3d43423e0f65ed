import type { SessionApi } from "./api.js";
import { callError } from "./errors.js";
import type { CompletedSession } from "./types.js";

const COMPLETING_SECONDS = 600;
const NOT_ACTIVE = "voice_session_not_active";

/** Returns a new idempotency key; `crypto.randomUUID` exists only on pages that are served securely. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Completes a session; retries under one idempotency key complete it once. */
export async function complete(
  api: SessionApi,
  { key, request }: { key: string; request: object },
): Promise<CompletedSession> {
  try {
    return await api.insist<CompletedSession>(COMPLETING_SECONDS, "POST", "/complete", request, { key, keepalive: true });
  } catch (error) {
    if (callError(error, "").code !== NOT_ACTIVE) throw error;
    // Another request has completed it.
    const { data } = await api.insist<{ data: CompletedSession }>(COMPLETING_SECONDS, "GET", "", undefined);
    return data;
  }
}
