/** Writes into the file that FIRST_SOUND names when each step of a call was done, for some calls. */

import { writeFileSync } from "node:fs";
import { expect, inject, test } from "vitest";
import { openChromium } from "../tests/browser/support/chromium.js";
import { Site } from "../tests/browser/support/site.js";
import { MODELS } from "../tests/browser/support/stand_ins.js";
import { AGENT, type Json } from "../tests/browser/support/world.js";

const CALLS = 20;
const STEPS = ["created", "opened", "set up", "received", "heard"];

test("measures the time from the click to the agent's first sound", { timeout: 390_000 }, async () => {
  const api = inject("apis")[MODELS[0]];
  const site = await Site.for(api.url, (inject("gemini")[""] ?? "").replace("http", "ws"));
  const browser = await openChromium();
  const calls: Json[] = [];
  try {
    const { agent_id } = await post(api, "/agents", { ...AGENT, variables: undefined, tools: undefined });
    const order = { agent_id, participant: { identity: "guest-17" } };
    for (let number = 0; number <= CALLS; number++) {
      const page = await browser.newPage();
      await page.goto(site.url);
      await page.evaluate('import("/client/index.js").then((client) => Object.assign(window, client))');
      const milliseconds = await page.evaluate(hold, { apiUrl: api.url, key: api.key, order });
      if (number) calls.push(milliseconds); // the first call fills the caches of the browser and of the API
      await page.close();
    }
  } finally {
    await browser.close();
    await site.close();
  }
  expect(calls.every((call) => STEPS.every((step) => step in call))).toBe(true);
  writeFileSync(String(process.env.FIRST_SOUND), JSON.stringify(calls));
});

async function post({ url, key }: { url: string; key: string }, path: string, body: Json): Promise<Json> {
  const response = await fetch(`${url}/api/v1/voice${path}`, {
    method: "POST",
    headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  expect(response.status).toBe(201);
  return ((await response.json()) as Json).data;
}

/** Holds a call in the page until the agent is heard; returns the milliseconds from the click to the end of each step. */
async function hold({ apiUrl, key, order }: { apiUrl: string; key: string; order: Json }): Promise<Json> {
  const { startCall } = window as Json;
  const began = performance.now();
  const steps: Record<string, number> = {};
  const done = (step: string) => {
    steps[step] ??= performance.now() - began;
  };
  window.WebSocket = class extends WebSocket {
    constructor(url: string | URL) {
      super(url);
      this.addEventListener("open", () => done("opened"));
      this.addEventListener("message", ({ data }) => {
        const message = JSON.parse(typeof data === "string" ? data : new TextDecoder().decode(data));
        if (message.setupComplete) done("set up");
        if (message.serverContent?.modelTurn) done("received");
      });
    }
  };
  const call = await startCall({
    apiUrl,
    fetchSession: async (signal: AbortSignal) => {
      const response = await fetch(`${apiUrl}/api/v1/voice/sessions`, {
        method: "POST",
        headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
        body: JSON.stringify(order),
        signal,
      });
      const { data } = await response.json();
      done("created");
      return data;
    },
  });
  while (call.speaker.level() === 0) await new Promise((resolve) => setTimeout(resolve, 2));
  done("heard");
  await call.hangUp();
  return steps;
}
