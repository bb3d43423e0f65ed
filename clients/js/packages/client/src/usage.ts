// Gemini reports the tokens of each of its turns, whose input is the whole conversation so far, and bills them all. So
// the reports are added up, over all connections.

import type { ServerMessage } from "./types.js";

const NAMES = {
  input_tokens: [["promptTokenCount", "promptTokensDetails"]],
  // Models differ in the names for the output.
  output_tokens: [
    ["responseTokenCount", "responseTokensDetails"],
    ["candidatesTokenCount", "candidatesTokensDetails"],
  ],
  tool_use_tokens: [["toolUsePromptTokenCount", "toolUsePromptTokensDetails"]],
  cached_tokens: [["cachedContentTokenCount", "cacheTokensDetails"]],
} as const;
const FIELDS = Object.keys(NAMES) as (keyof typeof NAMES)[];

type Tokens = Record<string, number>;

/** The totals of a session, as `POST /sessions/{session_id}/usage` takes them. */
export type Usage = { -readonly [field in keyof typeof NAMES]?: Tokens } & { thinking_tokens?: number };

/** Returns the totals that the API already has, to go on from after a reload of the page. */
export function reportedUsage(usage: Record<string, unknown> | null | undefined): Usage {
  const totals: Usage = {};
  for (const field of FIELDS) if (isObject(usage?.[field])) totals[field] = { ...(usage[field] as Tokens) };
  if (typeof usage?.thinking_tokens === "number") totals.thinking_tokens = usage.thinking_tokens;
  return totals;
}

/** Adds what a message of Gemini reports to the totals; returns whether it reports anything. */
export function addUsage(totals: Usage, message: ServerMessage): boolean {
  const report = message.usageMetadata;
  if (!isObject(report)) return false;
  for (const field of FIELDS) {
    for (const [counted, detailed] of NAMES[field]) {
      const counts = byModality(report[counted], report[detailed]);
      if (!Object.keys(counts).length) continue;
      totals[field] ??= {};
      for (const [modality, count] of Object.entries(counts)) add(totals[field], modality, count);
      break;
    }
  }
  const { thoughtsTokenCount: thoughts } = report;
  if (isCount(thoughts)) totals.thinking_tokens = (totals.thinking_tokens ?? 0) + thoughts;
  return true;
}

// Returns the tokens by modality; those of the count that no detail has are `other`.
function byModality(count: unknown, details: unknown): Tokens {
  const counts: Tokens = {};
  for (const detail of Array.isArray(details) ? details : []) {
    if (isCount(detail?.tokenCount)) add(counts, String(detail.modality || "other").toLowerCase(), detail.tokenCount);
  }
  const rest = isCount(count) ? count - Object.values(counts).reduce((sum, each) => sum + each, 0) : 0;
  if (rest > 0) add(counts, "other", rest);
  return counts;
}

function add(tokens: Tokens, name: string, count: number): void {
  tokens[name] = (tokens[name] ?? 0) + count;
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;
