import { expect, test } from "vitest";
import { addUsage, reportedUsage, type Usage } from "../src/usage.js";

function added(...reports: Record<string, unknown>[]): Usage {
  const totals: Usage = {};
  for (const usageMetadata of reports) addUsage(totals, { usageMetadata });
  return totals;
}

test("all reports are added up by modality", () => {
  const report = {
    promptTokenCount: 30,
    promptTokensDetails: [
      { modality: "TEXT", tokenCount: 10 },
      { modality: "AUDIO", tokenCount: 20 },
    ],
    responseTokensDetails: [{ modality: "AUDIO", tokenCount: 5 }],
    thoughtsTokenCount: 3,
  };

  expect(added(report, report)).toEqual({
    input_tokens: { text: 20, audio: 40 },
    output_tokens: { audio: 10 },
    thinking_tokens: 6,
  });
});

test("what the details lack is other", () => {
  expect(added({ promptTokenCount: 30, promptTokensDetails: [{ modality: "TEXT", tokenCount: 10 }] })).toEqual({
    input_tokens: { text: 10, other: 20 },
  });
});

test("older models name the output differently", () => {
  expect(added({ candidatesTokenCount: 7 })).toEqual({ output_tokens: { other: 7 } });
});

test("what is not known is left out", () => {
  expect(added({})).toEqual({});
  expect(addUsage({}, {})).toBe(false);
});

test("what is no number is left out", () => {
  const odd = { promptTokenCount: "30", responseTokensDetails: [{ tokenCount: -1 }, null], thoughtsTokenCount: 0.5 };

  expect(added(odd)).toEqual({});
});

test("a report goes on from what the API has", () => {
  const usage = reportedUsage({
    input_tokens: { text: 5 },
    output_tokens: null,
    thinking_tokens: 2,
    reported_by: "client",
  });

  addUsage(usage, { usageMetadata: { promptTokenCount: 1 } });

  expect(usage).toEqual({ input_tokens: { text: 5, other: 1 }, thinking_tokens: 2 });
});
