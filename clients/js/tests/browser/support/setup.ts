/** Starts the local API once for all tests, with a Gemini stand-in for each set of faults. */

import type { TestProject } from "vitest/node";
import { runModule } from "./process.js";
import { FAULTS } from "./stand_ins.js";

declare module "vitest" {
  interface ProvidedContext {
    api: { url: string; key: string };
    /** The URL of each Gemini stand-in by its faults. */
    gemini: Record<string, string>;
  }
}

/** Agents speak twenty times as fast as a person, but for the sound, which a browser plays as it is. */
const PACE = "20";

export default async function setUp(project: TestProject): Promise<() => Promise<void>> {
  const stand_ins = await runModule(["tests.browser.gemini_stand_ins", ...FAULTS], /^READY$/m, {
    GEMINI_STAND_IN_PACE: PACE,
  });
  try {
    const { key, urls } = JSON.parse(found(/^(\{.+\})$/m, stand_ins.output)) as Gemini;
    const api = await runModule(["local", "--port", "0"], /^curl -s /m, {
      GEMINI_API_KEY: key,
      GOOGLE_GEMINI_BASE_URL: urls[""] ?? "",
    });
    project.provide("gemini", urls);
    project.provide("api", {
      url: found(/export BASE="(.+)"/, api.output),
      key: found(/export API_KEY="(.+)"/, api.output),
    });
    return async () => {
      await api.stop();
      await stand_ins.stop();
    };
  } catch (error) {
    await stand_ins.stop();
    throw error;
  }
}

interface Gemini {
  key: string;
  urls: Record<string, string>;
}

function found(pattern: RegExp, output: string): string {
  const match = pattern.exec(output)?.[1];
  if (match === undefined) throw new Error(`${pattern} was not printed:\n${output}`);
  return match;
}
