import { expect, test } from "vitest";
import { CallPage, openChromium } from "./support/chromium.js";
import { expectWholeCall, WHOLE_CALL } from "./support/expected.js";
import type { Faults } from "./support/stand_ins.js";
import { caller, wavFile } from "./support/wav.js";
import { lines, World } from "./support/world.js";

test.concurrent.each<Faults>(["sentences,doubled_speech", "late_speech,late_text"])(
  "a spoken call with %j has the transcript of a call without faults",
  async (faults) => {
    await using world = await World.with(faults);
    const wav = wavFile(...caller(8));
    await using browser = await openChromium({ wav });
    await using page = await CallPage.open(browser, world);
    const session = await world.session();

    await page.start({ session, apiUrl: world.api.url, tools: { show_table: "answers" } });
    const state = await expectWholeCall(world, session, await page.results());

    expect(lines(state.transcript)).toEqual(WHOLE_CALL);
  },
);
