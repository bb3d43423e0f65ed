import { SessionApi } from "./api.js";
import { CallAudio } from "./audio.js";
import { Call, type CallParts } from "./call.js";
import { complete, newKey } from "./completion.js";
import { CallError, callError } from "./errors.js";
import { forget, lock, storedCall } from "./persistence.js";
import type {
  CompletedSession,
  CreatedSession,
  RenewedSession,
  ResumeCallOptions,
  SessionConnection,
  StartCallOptions,
} from "./types.js";
import { reportedUsage } from "./usage.js";

const MOST_TURNS = 100; // in one request: 500, and 300,000 bytes
const OVER = ["voice_session_not_active", "renewal_limit_reached"];

/**
 * Starts a call; call it in a user's gesture.
 *
 * Resolves once the agent can be talked to, or once the state is `needs_gesture`; rejects with a CallError.
 */
export async function startCall(options: StartCallOptions): Promise<Call> {
  check(options);
  const { session: given, fetchSession, signal, persist = true } = options;
  if (signal?.aborted) throw new CallError("aborted");
  const audio = openAudio(options);
  const aborting = new AbortController();
  const abort = () => aborting.abort();
  signal?.addEventListener("abort", abort);
  const fetching = given ? Promise.resolve(given) : fetched(fetchSession as NonNullable<typeof fetchSession>, aborting);
  let release: (() => void) | null = null;
  let call: Call | undefined;
  try {
    const [session] = await unlessAborted(aborting.signal, Promise.all([fetching, audio?.open()]));
    release = persist ? await lock(session.session_id) : () => {};
    if (!release) throw new CallError("transcript_taken_over");
    call = new Call({
      ...emptyParts(options, audio),
      sessionId: session.session_id,
      api: new SessionApi(options.apiUrl, session.session_id, session.client_token),
      connection: session.connection,
      isStored: persist,
      isOwner: Boolean(fetchSession),
      release,
      maxSeconds: session.max_duration_seconds ?? null,
    });
    signal?.removeEventListener("abort", abort); // from now on the call listens
    await call.begin();
    return call;
  } catch (error) {
    aborting.abort();
    audio?.close();
    release?.();
    // A session that no call will use would count as active until it expires.
    if (!given && !call) void fetching.then((session) => abandon(options.apiUrl, session, error)).catch(() => {});
    throw callError(error, "api_unavailable");
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/**
 * Goes on with the call that this tab held before its page was reloaded; resolves with null if there is none.
 *
 * A call that had ended and was not completed yet is completed.
 */
export async function resumeCall(options: ResumeCallOptions): Promise<Call | null> {
  checkApiUrl(options.apiUrl);
  const stored = storedCall();
  if (!stored) return null;
  const { sessionId, ending, endsAt } = stored;
  const release = await lock(sessionId);
  if (!release) return null; // another tab has it
  let audio: CallAudio | undefined;
  try {
    const api = new SessionApi(options.apiUrl, sessionId, stored.clientToken);
    const state = await currentState(api);
    if (!ending && state?.status !== "active") {
      forget(sessionId);
      release();
      return null;
    }
    const isOver = state?.hung_up_at ? "stopped" : endsAt !== null && endsAt < Date.now() ? "client_timer" : undefined;
    const endReason = stored.endReason ?? isOver;
    const savedTurns = state?.checkpoint_turns ?? 0;
    const parts = {
      ...emptyParts(options, undefined),
      sessionId,
      api,
      isStored: true,
      isOwner: false,
      release,
      maxSeconds: null,
      beganAt: stored.beganAt,
      endsAt,
      turns: stored.turns,
      savedTurns,
      usage: reportedUsage(state?.usage),
      ending,
    };
    const connection = endReason ? null : await renewed(api, parts);
    if (connection) {
      audio = openAudio(options);
      await audio?.open();
    }
    const call = new Call({
      ...parts,
      audio,
      connection: connection ?? { gemini_live: { url: "", token: "", model: "", setup: {} } },
      savedTurns: connection ? Math.max(savedTurns, stored.turns.length) : savedTurns,
      endReason: endReason ?? (connection ? undefined : "disconnected"),
    });
    await call.begin();
    return call;
  } catch (error) {
    audio?.close();
    release();
    throw callError(error, "api_unavailable");
  }
}

interface State {
  status: string;
  hung_up_at: number | null;
  checkpoint_turns: number;
  usage: Record<string, unknown> | null;
}

// Reads the session; null: it is deleted.
async function currentState(api: SessionApi): Promise<State | null> {
  try {
    return (await api.ask<{ data: State }>("GET", "")).data;
  } catch (error) {
    if (error instanceof CallError && !error.retryable && error.code !== "api_unavailable") return null;
    throw error;
  }
}

// Gets new connections, or null if the call is over. The model goes on from the saved turns, so those that a closing
// page could not send are saved before.
async function renewed(
  api: SessionApi,
  { sessionId, turns, savedTurns }: Pick<CallParts, "sessionId" | "turns" | "savedTurns">,
): Promise<SessionConnection | null> {
  try {
    for (let from = savedTurns; from < turns.length; from += MOST_TURNS)
      await api.ask("POST", "/transcript", { from, turns: turns.slice(from, from + MOST_TURNS) });
    const body = { has_resumption_handle: false };
    const { data } = await api.ask<{ data: RenewedSession }>("POST", "/renew", body);
    api.token = data.client_token;
    return data.connection;
  } catch (error) {
    const { code } = callError(error, "");
    if (OVER.includes(code)) return null;
    if (code !== "voice_transcript_conflict") throw error;
    forget(sessionId);
    throw new CallError("transcript_taken_over", { cause: error });
  }
}

function emptyParts(options: ResumeCallOptions, audio: CallAudio | undefined) {
  return { options, audio, beganAt: null, endsAt: null, turns: [], savedTurns: 0, usage: {} };
}

function openAudio({ audio }: ResumeCallOptions): CallAudio | undefined {
  return audio === false ? undefined : new CallAudio(audio ?? {});
}

async function fetched(fetchSession: (signal: AbortSignal) => Promise<CreatedSession>, aborting: AbortController) {
  let session: CreatedSession;
  try {
    session = await fetchSession(aborting.signal);
  } catch (error) {
    throw callError(error, aborting.signal.aborted ? "aborted" : "api_unavailable", !aborting.signal.aborted);
  }
  checkSession(session);
  return session;
}

function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(new CallError("aborted"));
    signal.addEventListener("abort", abort);
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

function abandon(apiUrl: string, session: CreatedSession, error: unknown): Promise<CompletedSession> {
  const api = new SessionApi(apiUrl, session.session_id, session.client_token);
  const request = { transcript: [], end_reason: callError(error, "failed").code };
  return complete(api, { key: newKey(), request });
}

// ---- Options ----

function check({ session, fetchSession, apiUrl }: StartCallOptions): void {
  checkApiUrl(apiUrl);
  if (Boolean(session) === Boolean(fetchSession)) invalid("Pass either `session` or `fetchSession`.");
  if (session) checkSession(session);
}

function checkApiUrl(apiUrl: string): void {
  if (!/^https?:\/\/[^/?#]/.test(apiUrl)) invalid("`apiUrl` has to be the address of the API, such as https://...");
}

function checkSession(session: CreatedSession): void {
  const { session_id, client_token, connection } = session ?? {};
  if (!session_id || !client_token || !connection?.gemini_live?.url || !connection.gemini_live.setup)
    invalid("The session has to be `data` of the response of POST /sessions.");
}

function invalid(message: string): never {
  throw new CallError("invalid_options", { message });
}
