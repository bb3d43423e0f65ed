// What to do about the errors that the API does not know. Errors of the API have their advice in the message.
const ADVICE = {
  microphone_refused: ["The microphone is not allowed.", "Allow the microphone for this page."],
  microphone_missing: ["There is no microphone.", "Connect a microphone, or start the call without one."],
  microphone_busy: ["The microphone cannot be opened.", "Close other programs that use the microphone."],
  worklet_unavailable: ["The page cannot process audio.", "Serve the page over HTTPS, with the worklet files."],
  offline: ["The browser is offline.", "Connect to the internet."],
  session_expired: ["The session has expired.", "Start a new call."],
  model_unavailable: ["Gemini does not know the Live model.", "Set another Live model in the deployment."],
  api_unavailable: ["The API does not answer.", "Check `apiUrl` and the allowed origins, and try again."],
  gemini_unreachable: ["There is no connection to Gemini.", "Check that the network allows WebSockets."],
  livekit_failed: ["The LiveKit room cannot be used.", "Check that the network allows WebRTC."],
  livekit_missing: ["livekit-client is not installed.", "Run `npm install livekit-client`."],
  aborted: ["The call was aborted.", "Start a new call."],
  transcript_taken_over: ["Another page has taken over the call.", "Go on in the other page."],
  invalid_options: ["The options are not valid.", "Correct the options."],
} satisfies Record<string, [message: string, advice: string]>;

/** A code of this package, which editors complete, or one of the API. */
export type CallErrorCode = keyof typeof ADVICE | (string & {});

/** Whatever can go wrong in a call: `code` for programs, `message` and `advice` for people. */
export class CallError extends Error {
  override readonly name = "CallError";
  /** A code of the API, or one of this package. */
  readonly code: CallErrorCode;
  /** Whether the same thing may succeed later. */
  readonly retryable: boolean;
  /** What to do. */
  readonly advice: string;
  /** Id of the request that failed. */
  readonly requestId?: string | undefined;
  /**
   * The error's own part of the response.
   * @internal
   */
  readonly details: ErrorDetails;

  constructor(code: CallErrorCode, details: ErrorDetails = {}) {
    const { message, retryable = false, requestId, cause } = details;
    const [standard = code, advice] = (ADVICE as Record<string, string[]>)[code] ?? [];
    super(message ?? standard, cause === undefined ? undefined : { cause });
    this.code = code;
    this.retryable = retryable;
    this.advice = advice ?? this.message;
    this.requestId = requestId;
    this.details = details;
  }
}

interface ErrorDetails {
  message?: string | undefined;
  retryable?: boolean | undefined;
  requestId?: string | undefined;
  cause?: unknown;
  /** Number of the turn to go on from. */
  next?: number | undefined;
  /** Seconds to wait before the next try. */
  retryAfter?: number;
}

/** Returns a CallError as it is, and anything else as the cause of one. */
export function callError(error: unknown, code: string, retryable = false): CallError {
  return error instanceof CallError ? error : new CallError(code, { cause: error, retryable });
}
