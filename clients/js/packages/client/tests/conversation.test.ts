import { beforeEach, describe, expect, test, vi } from "vitest";
import { Conversation } from "../src/conversation.js";
import type { CallError } from "../src/errors.js";
import { SpokenAudio } from "../src/spoken-audio.js";
import { Transcript } from "../src/transcript.js";
import type { GeminiLiveConnection } from "../src/types.js";
import { LIVE } from "./support/api.js";
import {
  agentSays,
  agentText,
  callerText,
  goAway,
  handle,
  ScriptedSocket,
  scriptSockets,
  spoken,
  turnComplete,
} from "./support/socket.js";

const GREETING = "The caller is on the line. Open the call now.";
const GO_ON = /^The connection was interrupted and is back\./;

let transcript: Transcript;
let audio: SpokenAudio;
let conversation: Conversation;
let renewals: boolean[];
let renewed: GeminiLiveConnection | null;
let lost: number;
let setUps: boolean[];

beforeEach(() => {
  vi.useFakeTimers();
  scriptSockets();
  transcript = new Transcript();
  audio = new SpokenAudio();
  renewals = [];
  renewed = { ...LIVE, token: "auth_tokens/renewed" };
  lost = 0;
  setUps = [];
  prepare();
});

function prepare(live: GeminiLiveConnection = LIVE): void {
  const renew = async (hasHandle: boolean) => {
    renewals.push(hasHandle);
    return renewed;
  };
  conversation = new Conversation(live, transcript, audio, renew, {
    onSetUp: (isResumed) => setUps.push(isResumed),
    onLost: () => lost++,
    onMessage: () => {},
  });
}

const seconds = (count: number) => vi.advanceTimersByTimeAsync(count * 1_000);

async function begun(): Promise<ScriptedSocket> {
  conversation.run().catch(() => {});
  await seconds(0);
  const socket = ScriptedSocket.latest.setUp();
  await seconds(0);
  return socket;
}

/** The next socket, once it is there. */
async function next(after = 0): Promise<ScriptedSocket> {
  const count = ScriptedSocket.all.length;
  await seconds(after + 0.01);
  expect(ScriptedSocket.all).toHaveLength(count + 1);
  return ScriptedSocket.latest;
}

function record(pieces: number, level = 0): void {
  for (let piece = 0; piece < pieces; piece++) {
    vi.advanceTimersByTime(32);
    audio.hold(`p${Math.round(performance.now())}`, level, performance.now());
    conversation.speak();
  }
}

describe("a connection", () => {
  test("begins with the setup as it is, and resumption", async () => {
    const socket = await begun();

    expect(socket.url).toBe("wss://live.example.com/ws?access_token=auth_tokens/secret");
    expect(socket.setup).toEqual({ ...LIVE.setup.setup, sessionResumption: {} });
  });

  test("sends nothing before it is set up", async () => {
    void conversation.run();
    await seconds(0);
    record(10, 0.5);
    conversation.say("Hello?");

    const socket = ScriptedSocket.latest.opens();
    record(10, 0.5);

    expect(socket.sent).toHaveLength(1);
  });

  test("that is not set up in time is given up", async () => {
    void conversation.run();
    await seconds(0);
    ScriptedSocket.latest.opens();

    await seconds(20);
    await seconds(1);

    expect(ScriptedSocket.all).toHaveLength(2);
  });

  test("that does not take audio any more is given up", async () => {
    const socket = await begun();
    socket.says(handle("h-1"));
    socket.isDead = true;
    socket.isStalled = true;

    record(130);
    expect(ScriptedSocket.all).toHaveLength(1);
    const second = (await next(2)).setUp();
    await seconds(0);

    expect(second.audio).toEqual(Array.from({ length: 130 }, (_, piece) => `p${32 * (piece + 1)}`));
  });

  test("that is slow with much audio at once is kept", async () => {
    void conversation.run();
    await seconds(0);
    record(500);
    const socket = ScriptedSocket.latest;
    socket.isStalled = true;
    socket.setUp();
    await seconds(0);
    expect(socket.bufferedAmount).toBeGreaterThan(9_000);

    for (let piece = 0; piece < 200; piece++) {
      socket.bufferedAmount -= 40;
      record(1);
    }

    expect(socket.readyState).toBe(ScriptedSocket.OPEN);
    expect(socket.audio).toHaveLength(700);
  });

  test("without JSON in a message goes on", async () => {
    const socket = await begun();

    socket.onmessage?.({ data: "no JSON" });
    socket.says(...agentSays("Hello."));

    expect(transcript.turns).toEqual([{ role: "agent", text: "Hello." }]);
  });

  test("takes text frames, too", async () => {
    const socket = await begun();

    socket.onmessage?.({ data: JSON.stringify(agentText("Hello.")) });

    expect(transcript.turns).toEqual([{ role: "agent", text: "Hello." }]);
  });

  test("takes nothing once it is being closed", async () => {
    const socket = await begun();
    conversation.close();

    socket.says(...agentSays("Hello."));

    expect(transcript.turns).toEqual([]);
  });
});

describe("the greeting", () => {
  test("is asked for once the connection is set up", async () => {
    expect((await begun()).texts).toEqual([GREETING]);
  });

  test("is asked for once more without an answer", async () => {
    const socket = await begun();

    await seconds(4);
    await seconds(60);

    expect(socket.texts).toEqual([GREETING, GREETING]);
  });

  test("is not asked for again after an answer", async () => {
    const socket = await begun();

    socket.says(spoken());
    await seconds(5);

    expect(socket.texts).toEqual([GREETING]);
  });

  test("is asked for again if the content was empty", async () => {
    const socket = await begun();

    socket.says({ serverContent: {}, usageMetadata: { promptTokenCount: 1 } });
    await seconds(5);

    expect(socket.texts).toEqual([GREETING, GREETING]);
  });

  test("waits while the caller's first words are answered", async () => {
    void conversation.run();
    await seconds(0);
    record(20, 0.5);

    const socket = ScriptedSocket.latest.setUp();
    await seconds(0);

    expect(socket.texts).toEqual([]);
    expect(socket.audio).toHaveLength(20);
    await seconds(4);
    expect(socket.texts).toEqual([GREETING]);
  });

  test("is asked for again only after the caller has finished speaking", async () => {
    const socket = await begun();
    for (let second = 0; second < 8; second++) record(31, 0.5);
    await seconds(2);
    expect(socket.texts).toEqual([GREETING]);

    await seconds(8);

    expect(socket.texts).toEqual([GREETING, GREETING]);
  });

  test("is asked for again in a noisy place, too", async () => {
    const socket = await begun();
    for (let second = 0; second < 30; second++) {
      record(31, 0.5);
      await seconds(0);
    }

    expect(socket.texts).toEqual([GREETING, GREETING]);
  });

  test("is left out where the caller has typed before", async () => {
    conversation.say("Hello?");

    expect((await begun()).texts).toEqual(["Hello?"]);
  });

  test("is not left out for what the agent is told", async () => {
    conversation.tell("The cart holds two shirts.");

    const { texts } = await begun();

    expect(texts).toHaveLength(2);
    expect(texts).toContain(GREETING);
  });
});

describe("the caller's words", () => {
  test("from before the setup are sent after it, in order", async () => {
    void conversation.run();
    await seconds(0);
    record(5);

    const socket = ScriptedSocket.latest.setUp();
    await seconds(0);
    record(2);

    expect(socket.audio).toEqual(["p32", "p64", "p96", "p128", "p160", "p192", "p224"]);
    expect(socket.sent.at(-1)).toMatchObject({ realtimeInput: { audio: { mimeType: "audio/pcm;rate=16000" } } });
  });

  test("of the last seconds are sent again after a connection was lost", async () => {
    const socket = await begun();
    socket.says(...agentSays("For how many?"), handle("h-1"));
    record(50, 0.5);
    socket.ends(1006);
    const second = await next();
    record(10, 0.5);

    second.setUp();
    await seconds(0);

    expect(second.audio.slice(0, 50)).toEqual(socket.audio);
    expect(second.audio).toHaveLength(60);
  });

  test("that were transcribed are not sent again", async () => {
    const socket = await begun();
    socket.says(...agentSays("For how many?"), handle("h-1"));
    record(50, 0.5);
    socket.says(callerText("Six."), spoken());
    socket.ends(1006);

    const second = (await next()).setUp();
    await seconds(0);

    expect(second.audio).toEqual([]);
  });

  test("that a lost connection took are told to the agent", async () => {
    const socket = await begun();
    socket.says(...agentSays("For how many?"), handle("h-1"), callerText('Six, at "Mia\'s".'), spoken());
    socket.ends(1006);

    const second = (await next()).setUp();
    await seconds(0);

    expect(second.texts).toHaveLength(1);
    expect(second.texts[0]).toMatch(GO_ON);
    expect(second.texts[0]).toContain(JSON.stringify('Six, at "Mia\'s".'));
  });

  test("that the handle knows are not told again", async () => {
    const socket = await begun();
    socket.says(callerText("Six."), ...agentSays("Thank you."), handle("h-1"), spoken());
    socket.ends(1006);

    const second = (await next()).setUp();
    await seconds(0);

    expect(second.texts[0]).toMatch(GO_ON);
    expect(second.texts[0]).not.toContain("Six");
  });

  test("that were typed and not answered are sent again", async () => {
    const socket = await begun();
    socket.says(...agentSays("For how many?"), handle("h-1"));
    conversation.say("Six.");
    socket.ends(1006);

    const second = (await next()).setUp();
    await seconds(0);

    expect(second.texts).toEqual(["Six."]);
    expect(transcript.turns.at(-1)).toEqual({ role: "user", text: "Six." });
  });

  test("that were typed and answered are not sent again", async () => {
    const socket = await begun();
    socket.says(...agentSays("For how many?"));
    conversation.say("Six.");
    socket.says(...agentSays("Thank you."), handle("h-1"));
    socket.ends(1006);

    const second = (await next()).setUp();
    await seconds(0);

    expect(second.texts).toEqual([]);
  });

  test("end with audioStreamEnd where the microphone pauses", async () => {
    const socket = await begun();

    conversation.pause();

    expect(socket.sent.at(-1)).toEqual({ realtimeInput: { audioStreamEnd: true } });
  });
});

describe("what the agent is told", () => {
  test("goes as context to a model that takes it", async () => {
    prepare({ ...LIVE, model: "models/gemini-3.8-live" });
    const socket = await begun();

    conversation.tell("The cart holds two shirts.");

    expect(socket.sent.at(-1)).toEqual({
      clientContent: {
        turns: [{ role: "user", parts: [{ text: "The cart holds two shirts." }] }],
        turnComplete: false,
      },
    });
    expect(transcript.turns).toEqual([]);
  });

  test("goes as a text not to answer to a model that takes nothing else", async () => {
    const socket = await begun();

    conversation.tell("The cart holds two shirts.");

    expect(socket.texts.at(-1)).toMatch(/Do not answer this.*The cart holds two shirts\./);
    expect(transcript.turns).toEqual([]);
  });
});

describe("after goAway", () => {
  test("it moves a second after the end of the turn, with the handle of that turn", async () => {
    const socket = await begun();
    socket.says(spoken(), agentText("For how many?"), goAway("50s"));
    await seconds(3);
    expect(ScriptedSocket.all).toHaveLength(1);

    socket.says(turnComplete, handle("h-2"));
    const second = (await next(1)).opens();

    expect(socket.readyState).toBe(ScriptedSocket.CLOSED);
    expect(second.setup.sessionResumption).toEqual({ handle: "h-2" });
    expect(renewals).toEqual([]);
  });

  test("what the caller says meanwhile is for the next connection", async () => {
    const socket = await begun();
    socket.says(spoken(), goAway("50s"), turnComplete, handle("h-2"));

    record(5, 0.5);
    conversation.say("Six.");
    const second = (await next(1)).setUp();
    await seconds(0);

    expect(socket.audio).toEqual([]);
    expect(second.audio).toHaveLength(5);
    expect(second.texts).toEqual(["Six."]);
    expect(conversation.isConnected).toBe(true);
  });

  test("late text of the turn still counts", async () => {
    const socket = await begun();
    socket.says(spoken(), agentText("See you"), goAway("50s"), turnComplete);

    await seconds(0.5);
    socket.says(agentText(" soon!"));

    expect(transcript.turns).toEqual([{ role: "agent", text: "See you soon!" }]);
  });

  test("it moves five seconds before the end, even in the middle of a turn", async () => {
    const socket = await begun();
    socket.says(handle("h-1"), spoken(), agentText("For how"), goAway("20s"));

    await seconds(14);
    expect(ScriptedSocket.all).toHaveLength(1);
    const second = (await next(1)).setUp();
    await seconds(0);

    expect(second.setup.sessionResumption).toEqual({ handle: "h-1" });
    expect(second.texts[0]).toMatch(GO_ON);
  });

  test("the old socket is closed before the next one is opened", async () => {
    const socket = await begun();
    socket.isDead = true;
    socket.says(handle("h-1"), spoken(), goAway("5s"));

    await seconds(1);
    expect(socket.readyState).toBe(ScriptedSocket.CLOSING);
    expect(ScriptedSocket.all).toHaveLength(1);
    await seconds(1.1);

    expect(ScriptedSocket.all).toHaveLength(2);
  });

  test("without a time it moves at once", async () => {
    const socket = await begun();
    socket.says(handle("h-1"), { goAway: {} });

    await next(0.1);
  });
});

describe("a connection that is lost", () => {
  test("is resumed at once, without asking for a greeting", async () => {
    const socket = await begun();
    socket.says(...agentSays("Hello."), handle("h-1"));
    socket.ends(1006);

    const second = (await next()).setUp();
    await seconds(10);

    expect(second.setup.sessionResumption).toEqual({ handle: "h-1" });
    expect(second.texts).toEqual([]);
    expect(setUps).toEqual([false, true]);
    expect(lost).toBe(1);
  });

  test("keeps its handle while an update is not resumable", async () => {
    const socket = await begun();
    socket.says(handle("h-1"), { sessionResumptionUpdate: { resumable: false } });
    socket.ends(1006);

    expect((await next()).opens().setup.sessionResumption).toEqual({ handle: "h-1" });
  });

  test("keeps its handle until the next connection is set up", async () => {
    const socket = await begun();
    socket.says(handle("h-1"));
    socket.ends(1006);
    (await next()).ends(1006);
    const third = (await next(1)).opens();

    expect(third.setup.sessionResumption).toEqual({ handle: "h-1" });
    third.says({ setupComplete: {} }).ends(1006);
    const fourth = (await next(2)).opens();

    expect(fourth.setup.sessionResumption).toEqual({});
    expect(renewals).toEqual([false]);
  });

  test("without a handle begins anew, and the agent goes on", async () => {
    const socket = await begun();
    socket.says(...agentSays("Hello."));
    socket.ends(1006);

    const second = (await next(1)).setUp();
    await seconds(0);

    expect(renewals).toEqual([false]);
    expect(second.url).toContain("renewed");
    expect(second.texts[0]).toMatch(GO_ON);
    expect(setUps).toEqual([false, false]);
  });

  test("with 1011 is renewed first, and then resumed", async () => {
    const socket = await begun();
    socket.says(handle("h-1"));
    socket.ends(1011);

    const second = (await next()).opens();

    expect(renewals).toEqual([true]);
    expect(second.url).toContain("renewed");
    expect(second.setup.sessionResumption).toEqual({ handle: "h-1" });
  });

  test.each([1007, 1008])("whose handle is refused with %d begins anew", async (code) => {
    const socket = await begun();
    socket.says(handle("h-1"), ...agentSays("Hello."));
    socket.ends(1006);
    (await next()).opens().ends(code);

    const third = (await next(1)).opens();

    expect(third.setup.sessionResumption).toEqual({});
    expect(renewals).toEqual([false]);
  });

  test("whose handle is refused twice with 1011 begins anew", async () => {
    const socket = await begun();
    socket.says(handle("h-1"), ...agentSays("Hello."));
    socket.ends(1006);
    (await next()).opens().ends(1011);
    const third = (await next(1)).opens();
    expect(third.setup.sessionResumption).toEqual({ handle: "h-1" });
    third.ends(1011);

    const fourth = (await next(2)).opens();

    expect(fourth.setup.sessionResumption).toEqual({});
    expect(renewals).toEqual([true, false]);
  });

  test("waits for the network", async () => {
    const socket = await begun();
    socket.says(handle("h-1"));
    const browser = new EventTarget();
    vi.stubGlobal("navigator", { onLine: false });
    vi.stubGlobal("addEventListener", browser.addEventListener.bind(browser));
    vi.stubGlobal("removeEventListener", browser.removeEventListener.bind(browser));
    socket.ends(1006);
    await seconds(30);
    expect(ScriptedSocket.all).toHaveLength(1);

    browser.dispatchEvent(new Event("online"));
    await seconds(0);

    expect(ScriptedSocket.all).toHaveLength(2);
  });

  test("is tried six times", async () => {
    const running = conversation.run();
    const failure = running.then(
      () => null,
      (error: CallError) => error,
    );
    for (const pause of [0, 1, 2, 4, 8, 16]) (await next(pause)).ends(1006);
    await seconds(60);

    expect(await failure).toMatchObject({ code: "gemini_unreachable", retryable: true });
    expect(ScriptedSocket.all).toHaveLength(6);
  });

  test("ends the conversation where the API does not renew it", async () => {
    const running = conversation.run();
    await seconds(0);
    ScriptedSocket.latest.setUp().says(...agentSays("Hello."));
    renewed = null;
    ScriptedSocket.latest.ends(1011);

    await running;

    expect(ScriptedSocket.all).toHaveLength(1);
  });
});

test("a model that Gemini does not know is given up early", async () => {
  const failure = conversation.run().then(
    () => null,
    (error: CallError) => error,
  );
  (await next()).opens().ends(1008);
  (await next(1)).opens().ends(1008);

  expect(await failure).toMatchObject({ code: "model_unavailable", retryable: false });
});

test("no error names the token", async () => {
  vi.stubGlobal(
    "WebSocket",
    class {
      constructor(url: string) {
        throw new SyntaxError(`The URL '${url}' is invalid.`);
      }
    },
  );

  const failure = conversation.run().then(
    () => null,
    (error: CallError) => error,
  );
  await seconds(60);
  const error = await failure;

  expect(error).toMatchObject({ code: "gemini_unreachable" });
  expect(JSON.stringify([error?.message, error?.cause, error?.stack])).not.toContain("auth_tokens");
});

describe("answers of functions", () => {
  const answer = { id: "c-1", name: "show_table", response: { table: "T12" } };

  test("are held until a lost connection is resumed", async () => {
    const socket = await begun();
    socket.says(...agentSays("One moment."), handle("h-1"));
    socket.ends(1006);
    const second = await next();

    conversation.answer(answer);
    second.setUp();
    await seconds(0);

    expect(second.sent).toContainEqual({ toolResponse: { functionResponses: [answer] } });
  });

  test("are dropped where the conversation begins anew", async () => {
    const socket = await begun();
    socket.says(...agentSays("One moment."));
    socket.ends(1006);
    conversation.answer(answer);

    const second = (await next(1)).setUp();
    await seconds(0);

    expect(second.sent.some((message) => "toolResponse" in message)).toBe(false);
  });

  test("say when the agent speaks about them", async () => {
    prepare({ ...LIVE, tools: [{ name: "show_table", where: "client", speaks: "when_idle" }] });
    const socket = await begun();

    conversation.answer(answer);

    expect(socket.sent.at(-1)).toEqual({
      toolResponse: { functionResponses: [{ ...answer, scheduling: "WHEN_IDLE" }] },
    });
  });
});

test("nothing is opened once the conversation is closed", async () => {
  const socket = await begun();
  conversation.close();
  socket.ends(1000);
  await seconds(60);

  expect(ScriptedSocket.all).toHaveLength(1);
});
