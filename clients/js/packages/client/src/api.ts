import { CallError } from "./errors.js";
import { isOffline, online, PAUSES, sleep } from "./timing.js";

const ANSWER_SECONDS = 40;
const KEEPALIVE_BYTES = 60_000; // browsers let requests outlive their page up to 64 KB

interface Details {
  /** Idempotency key of the request. */
  key?: string;
  /** Whether the request should outlive the page. */
  keepalive?: boolean;
  signal?: AbortSignal;
  /** Seconds between two tries, which otherwise become ever longer. */
  pause?: number;
}

interface ErrorBody {
  code: string;
  message: string;
  retryable?: boolean;
  next?: number;
}

/** The routes of one session, opened by its client token. */
export class SessionApi {
  token: string;
  readonly #url: string;

  constructor(apiUrl: string, sessionId: string, token: string) {
    this.#url = `${apiUrl.replace(/\/+$/, "")}/api/v1/voice/sessions/${encodeURIComponent(sessionId)}`;
    this.token = token;
  }

  /** Calls a route once; rejects with a CallError. */
  async ask<T>(method: string, action: string, body?: unknown, details: Details = {}): Promise<T> {
    const limit = new AbortController();
    const abort = () => limit.abort();
    const timer = setTimeout(abort, ANSWER_SECONDS * 1000);
    details.signal?.addEventListener("abort", abort);
    try {
      const text = body === undefined ? null : JSON.stringify(body);
      const response = await fetch(this.#url + action, {
        method,
        headers: {
          Authorization: `Bearer ${this.token}`,
          ...(text && { "Content-Type": "application/json" }),
          ...(details.key && { "Idempotency-Key": details.key }),
        },
        body: text,
        keepalive: Boolean(details.keepalive && text && bytesOf(text) < KEEPALIVE_BYTES),
        signal: limit.signal,
      });
      return await answerOf<T>(response);
    } catch (error) {
      if (error instanceof CallError) throw error;
      if (details.signal?.aborted) throw new CallError("aborted", { cause: error });
      throw new CallError(isOffline() ? "offline" : "api_unavailable", { cause: error, retryable: true });
    } finally {
      clearTimeout(timer);
      details.signal?.removeEventListener("abort", abort);
    }
  }

  /** Calls a route again after pauses, while it fails for the moment and the time is not over. */
  async insist<T>(seconds: number, method: string, action: string, body: unknown, details: Details = {}): Promise<T> {
    const end = Date.now() + seconds * 1000;
    for (let failures = 1; ; failures++) {
      try {
        return await this.ask<T>(method, action, body, details);
      } catch (error) {
        if (!(error instanceof CallError && error.retryable) || details.signal?.aborted || Date.now() > end)
          throw error;
        const pause = details.pause ?? PAUSES[Math.min(failures, PAUSES.length - 1)] ?? 0;
        await sleep(Math.max(pause, error.details.retryAfter ?? 0), details.signal);
        await online(60, details.signal);
      }
    }
  }
}

/** Returns how many bytes a text has in UTF-8. */
export const bytesOf = (text: string): number => new TextEncoder().encode(text).length;

async function answerOf<T>(response: Response): Promise<T> {
  const requestId = response.headers.get("x-request-id") ?? undefined;
  const answer = await response.json().catch((cause: unknown) => {
    throw new CallError("api_unavailable", { cause, requestId, retryable: true });
  });
  if (response.ok) return answer as T;
  const retryAfter = Math.min(Number(response.headers.get("retry-after")) || 0, 60);
  const error: ErrorBody | undefined = answer?.error;
  if (error?.code) throw new CallError(error.code, { ...error, requestId, retryAfter });
  // An error of API Gateway itself, or of something before it.
  const retryable = response.status >= 500 || response.status === 429 || response.status === 408;
  throw new CallError("api_unavailable", { requestId, retryable });
}
