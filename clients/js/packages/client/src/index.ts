export type { Call } from "./call.js";
export { checkDevices } from "./devices.js";
export { CallError, type CallErrorCode } from "./errors.js";
export type { LiveKitModule } from "./livekit.js";
export { resumeCall, startCall } from "./start.js";
export type {
  AudioOptions,
  CallEvents,
  CallState,
  CompletedSession,
  CreatedSession,
  Device,
  DeviceCheck,
  GeminiLiveConnection,
  JsonObject,
  LiveKitConnection,
  MicrophoneControl,
  ResumeCallOptions,
  SessionConnection,
  SpeakerControl,
  StartCallOptions,
  ToolCall,
  ToolHandler,
  Turn,
} from "./types.js";
