/** Starts the local API once a model for all tests, with a Gemini stand-in for each set of faults. */

import type { TestProject } from "vitest/node";
import { type Running, runModule } from "./process.js";
import { FAULTS, MODELS, type Model } from "./stand_ins.js";

declare module "vitest" {
  interface ProvidedContext {
    apis: Record<Model, Api>;
    /** The URL of each Gemini stand-in by its faults. */
    gemini: Record<string, string>;
  }
}

interface Api {
  url: string;
  key: string;
}

/** Agents speak twenty times as fast as a person, but for the sound, which a browser plays as it is. */
const PACE = "20";

export default async function setUp(project: TestProject): Promise<() => Promise<void>> {
  const running: Running[] = [];
  const started = async (program: Promise<Running>) => {
    running.unshift(await program);
    return (await program).output;
  };
  const tearDown = async () => {
    for (const program of running.splice(0)) await program.stop();
  };
  try {
    const stand_ins = runModule(["tests.browser.gemini_stand_ins", ...FAULTS], /^READY$/m, {
      GEMINI_STAND_IN_PACE: PACE,
    });
    const { key, urls } = JSON.parse(found(/^(\{.+\})$/m, await started(stand_ins))) as Gemini;
    const api = async (model: Model): Promise<Api> => {
      const variables = { GEMINI_API_KEY: key, GOOGLE_GEMINI_BASE_URL: urls[""] ?? "", GEMINI_LIVE_MODEL: model };
      const output = await started(runModule(["local", "--port", "0"], /^curl -s /m, variables));
      return { url: found(/export BASE="(.+)"/, output), key: found(/export API_KEY="(.+)"/, output) };
    };
    const apis = await Promise.all(MODELS.map(async (model) => [model, await api(model)]));
    project.provide("gemini", urls);
    project.provide("apis", Object.fromEntries(apis));
    return tearDown;
  } catch (error) {
    await tearDown();
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
