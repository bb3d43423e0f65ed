import type { Call } from "./call.js";
import type { CallError } from "./errors.js";
import type { LiveKitModule } from "./livekit.js";

/** An object of JSON. */
export type JsonObject = Record<string, unknown>;

// ---- The API's responses, as far as this package reads them ----

/** How the page connects to Gemini Live: `connection.gemini_live` of a session. */
export interface GeminiLiveConnection {
  url: string;
  token: string;
  model: string;
  setup: { setup: JsonObject } | JsonObject;
  turn_ends_at?: "turnComplete" | "idle";
  tools?: readonly { name: string; where: string; speaks?: string | null }[];
}

/** How the page joins the LiveKit room: `connection.livekit` of a session. */
export interface LiveKitConnection {
  url: string;
  token: string;
  room?: string;
}

/** The two connections of a session. */
export interface SessionConnection {
  gemini_live: GeminiLiveConnection;
  livekit?: LiveKitConnection;
}

/** `data` of the response of `POST /sessions`. */
export interface CreatedSession {
  session_id: string;
  client_token: string;
  max_duration_seconds?: number | null;
  expires_at?: number;
  connection: SessionConnection;
  [field: string]: unknown;
}

/** `data` of the response of `POST /sessions/{session_id}/renew`. */
export interface RenewedSession {
  client_token: string;
  connection: SessionConnection;
}

/** The session once it is completed, with its results. */
export interface CompletedSession {
  session_id: string;
  status: "active" | "completed" | "failed";
  end_reason: string | null;
  transcript: Turn[] | null;
  results: unknown;
  extraction: { status: string; [field: string]: unknown } | null;
  [field: string]: unknown;
}

/** One turn of the conversation; times are milliseconds since the start of the call. */
export interface Turn {
  role: "user" | "agent";
  text: string;
  start_ms?: number;
  end_ms?: number;
}

/** A function that the agent has called. */
export interface ToolCall {
  callId: string;
  name: string;
  arguments: JsonObject;
  status: "running" | "succeeded" | "failed" | "cancelled" | "timeout";
  response?: JsonObject;
}

// ---- What the page passes ----

/** A function of the page that the agent may call; it returns what the agent gets to know. */
export type ToolHandler = (
  args: JsonObject,
  context: { signal: AbortSignal; call: Call; callId: string },
) => object | Promise<object>;

/** The microphone and the loudspeaker of a call. */
export interface AudioOptions {
  /** Whether to open the microphone; false: the caller listens and types. Default: true. */
  microphone?: boolean;
  /** Device id of the microphone; default: the system's. */
  microphoneId?: string;
  /** Device id of the loudspeaker, where the browser can choose one; default: the system's. */
  speakerId?: string;
  /** URL of the folder that holds the two worklet files; default: the folder of this package's code. */
  workletUrl?: string | URL;
  /** An audio context of the page; it is not closed at the end of the call. */
  context?: AudioContext;
}

/** What both ways to begin a call take. */
export interface ResumeCallOptions {
  /** Address of the API, without the path, such as "https://abc.execute-api.eu-west-1.amazonaws.com". */
  apiUrl: string;
  /** The functions of the page that the agent may call, by name. */
  tools?: Record<string, ToolHandler>;
  /** Time limit of a function of the page in seconds. Default: 20. */
  toolTimeoutSeconds?: number;
  /** Microphone and loudspeaker; false: a call in writing. */
  audio?: AudioOptions | false;
  /** Whether to join the LiveKit room; "required": the call fails without it. Default: false. */
  livekit?: boolean | "required" | (() => Promise<LiveKitModule>);
  /** Ends the call when it is aborted. */
  signal?: AbortSignal;
}

/** Options of `startCall`: exactly one of `session` and `fetchSession` is needed. */
export interface StartCallOptions extends ResumeCallOptions {
  /** `data` of the response of `POST /sessions`. */
  session?: CreatedSession;
  /** Asks your backend for a session, while the microphone opens. */
  fetchSession?: (signal: AbortSignal) => Promise<CreatedSession>;
  /** Whether to keep in `sessionStorage` what `resumeCall` needs after a reload of the page. Default: true. */
  persist?: boolean;
}

/** An audio device of the browser. */
export interface Device {
  deviceId: string;
  label: string;
}

/** What the browser offers for a call. */
export interface DeviceCheck {
  microphone: "granted" | "denied" | "prompt" | "missing";
  microphones: Device[];
  speakers: Device[];
  worklet: boolean;
  websocket: boolean;
}

// ---- What the page gets ----

/** The one state of a call. */
export type CallState =
  | "connecting"
  | "needs_gesture"
  | "listening"
  | "thinking"
  | "speaking"
  | "reconnecting"
  | "ended"
  | "failed";

/** The events of a call, and what their listeners get. */
export interface CallEvents {
  state: { state: CallState; reason: string | null };
  turns: readonly Turn[];
  toolCalls: readonly ToolCall[];
  results: CompletedSession;
  /** Also an error that the call survives: only in the state `failed` has it ended the call. */
  error: CallError;
  devices: { microphones: Device[]; speakers: Device[] };
}

/** The caller's side of the audio. */
export interface MicrophoneControl {
  muted: boolean;
  /** Returns the loudness of this moment, 0 to 1. */
  level(): number;
  /** Lists the microphones. */
  devices(): Promise<Device[]>;
  /** Switches to another microphone; "" is the system's. */
  use(deviceId: string): Promise<void>;
}

/** The agent's side of the audio. */
export interface SpeakerControl {
  muted: boolean;
  /** 0 to 1. */
  volume: number;
  /** Returns the loudness of this moment, 0 to 1. */
  level(): number;
  /** Lists the loudspeakers, if the browser can choose one. */
  devices(): Promise<Device[]>;
  /** Switches to another loudspeaker; "" is the system's. */
  use(deviceId: string): Promise<void>;
}

// ---- Messages of Gemini Live, as far as this package reads them ----

/** The content of a message of Gemini. */
export interface ServerContent {
  modelTurn?: { parts?: { inlineData?: { data?: string; mimeType?: string } }[] };
  inputTranscription?: { text?: string };
  outputTranscription?: { text?: string };
  turnComplete?: boolean;
  interrupted?: boolean;
  interactionStatus?: unknown;
}

/** The tokens of a turn of the model. */
export type UsageMetadata = Record<string, unknown>;

/** A message of Gemini. */
export interface ServerMessage {
  setupComplete?: object;
  serverContent?: ServerContent;
  interactionStatus?: unknown;
  goAway?: { timeLeft?: string };
  sessionResumptionUpdate?: { newHandle?: string; resumable?: boolean };
  toolCall?: { functionCalls?: { id?: string; name?: string; args?: JsonObject }[] };
  toolCallCancellation?: { ids?: string[] };
  usageMetadata?: UsageMetadata;
}

/** A message to Gemini. */
export type ClientMessage = JsonObject;
