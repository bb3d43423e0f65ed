import { expect, test } from "vitest";
import { CallPage, openChromium } from "./support/chromium.js";
import { until, World } from "./support/world.js";

test("a refused microphone fails with what to do, and the session can still be used", async () => {
  await using world = await World.with();
  await using browser = await openChromium({ microphone: "refused" });
  await using page = await CallPage.open(browser, world);
  const session = await world.session();

  expect(await page.start({ session, apiUrl: world.api.url })).toBe("failed");

  const { failure } = await page.seen();
  expect(failure).toMatchObject({ name: "CallError", code: "microphone_refused" });
  expect(failure.advice).not.toBe("");
  expect(await page.page.evaluate(() => window.test.checkDevices())).toMatchObject({ microphone: "denied" });
  expect(world.gemini.connections).toEqual([]);
  expect((await world.state(session)).status).toBe("active");
});

test("a machine without a microphone fails with what to do, and can make a typed call", async () => {
  await using world = await World.with();
  await using browser = await openChromium({ microphone: "missing" });
  await using page = await CallPage.open(browser, world);
  const session = await world.session();

  expect(await page.start({ session, apiUrl: world.api.url })).toBe("failed");
  expect((await page.seen()).failure).toMatchObject({ name: "CallError", code: "microphone_missing" });
  expect(await page.page.evaluate(() => window.test.checkDevices())).toMatchObject({
    microphone: "missing",
    microphones: [],
  });

  await page.reload();
  expect(await page.start({ session, apiUrl: world.api.url, audio: false })).toBe("call");
  await until("the agent has greeted", () =>
    page.call((call) => call.turns.length === 1 && call.state === "listening"),
  );
  await page.call((call) => void call.hangUp());
  await page.in("ended");
});

test("the caller changes the microphone in a call", async () => {
  await using world = await World.with();
  await using browser = await openChromium();
  await using page = await CallPage.open(browser, world);
  await watchMicrophones(page);

  await page.start({ session: await world.session(), apiUrl: world.api.url });
  const devices = await page.page.evaluate(() => window.test.call.mic.devices());
  const other = devices.at(-1).deviceId;
  await page.page.evaluate((id) => window.test.call.mic.use(id), other);

  await keepsHearing(world);
  expect(await openMicrophones(page)).toEqual([other]);
  await hangUp(page);
  expect(await openMicrophones(page)).toEqual([]);
});

test("a microphone that is unplugged in a call is replaced by another one", async () => {
  await using world = await World.with();
  await using browser = await openChromium();
  await using page = await CallPage.open(browser, world);
  await watchMicrophones(page);

  await page.start({ session: await world.session(), apiUrl: world.api.url });
  await until("the page sends audio", () => world.gemini.last.audio.length > 10);
  // Chromium's fake devices cannot be unplugged: its track ends, and the page is told so.
  await page.page.evaluate(() => {
    for (const track of window.recording.at(-1)?.getAudioTracks() ?? []) {
      track.stop();
      track.dispatchEvent(new Event("ended"));
    }
    navigator.mediaDevices.dispatchEvent(new Event("devicechange"));
  });

  await until("another microphone is open", async () => (await openMicrophones(page)).length === 1);
  await keepsHearing(world);
  expect((await page.seen()).devices).toBeGreaterThan(0);
  await hangUp(page);
  expect((await page.seen()).failure).toBeNull();
});

test("sound that needs a click waits for it, and the call goes on", async () => {
  await using world = await World.with();
  await using browser = await openChromium({ needsGesture: true });
  const session = await world.session();

  await using page = await CallPage.openAndCall(
    browser,
    world,
    { session, apiUrl: world.api.url },
    "state needs_gesture",
  );
  await page.page.click("#sound");
  await until("the agent is heard", async () => (await page.seen()).loudest.speaker > 0);
  await hangUp(page);

  expect((await page.seen()).states[0]).toBe("needs_gesture");
});

async function hangUp(page: CallPage): Promise<void> {
  await page.call((call) => void call.hangUp());
  await page.in("ended");
}

/** Wait until the page goes on sending what it records. */
async function keepsHearing(world: World): Promise<void> {
  const before = world.gemini.last.audio.length;
  await until("the page goes on sending audio", () => world.gemini.last.audio.length > before + 20);
}

async function watchMicrophones(page: CallPage): Promise<void> {
  await page.page.evaluate(() => {
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    window.recording = [];
    navigator.mediaDevices.getUserMedia = async (wanted) => {
      const stream = await open(wanted);
      window.recording.push(stream);
      return stream;
    };
  });
}

/** The ids of the microphones that record. */
function openMicrophones(page: CallPage): Promise<(string | undefined)[]> {
  return page.page.evaluate(() =>
    window.recording
      .flatMap((stream) => stream.getAudioTracks())
      .filter((track) => track.readyState === "live")
      .map((track) => track.getSettings().deviceId),
  );
}

declare global {
  interface Window {
    recording: MediaStream[];
  }
}
