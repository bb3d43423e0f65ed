/** The faults of the Gemini stand-ins that the tests use, a set for each stand-in; see docs/operations.md. */
export const FAULTS = [
  "",
  "late_text,bundled,silent_greeting",
  "sentences,doubled_speech",
  "late_speech,late_text",
  "go_away",
  "late_text,bundled,go_away",
  "go_away_now",
  "drop",
  "hang_up",
  "go_away_now,resume_1011",
  "drop,resume_1011",
  "drop,resume_1007",
  "tool_cancelled",
  "claims_tool",
] as const;

export type Faults = (typeof FAULTS)[number];

/** The models of the APIs; the turns of the second one end at an interaction status. */
export const MODELS = ["gemini-3.1-flash-live-preview", "gemini-3.8-live-extended-thinking"] as const;

export type Model = (typeof MODELS)[number];
