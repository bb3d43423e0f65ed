/** What a whole call with the example agent has in the end, however it went. */

import { expect } from "vitest";
import { AGENT, CLOSING, type Json, lines, SAYS, type World, wordsOf } from "./world.js";

/** The turns of a call in which nothing was cut off. */
export const WHOLE_CALL: string[] = [
  "agent: Linden by the lake, this is Mia, how nice that you call! What is your name?",
  `user: ${SAYS[0]}`,
  "agent: Thank you. For how many people?",
  `user: ${SAYS[1]}`,
  "agent: All right. On which day and at what time?",
  `user: ${SAYS[2]}`,
  "agent: Good. Would you like to sit inside or on the terrace?",
  `user: ${SAYS[3]}`,
  "agent: Done: T12 on the terrace. Do you need a high chair?",
  `user: ${SAYS[4]}`,
  `agent: ${CLOSING}`,
];

/** What the example call has as results. */
export const RESULTS = { guest_name: "Ana Torres", party_size: 6, area: "terrace", high_chair: true };

/** Expect a completed session in which every line was said once, every question was asked, and nothing was lost. */
export async function expectWholeCall(world: World, session: Json, results: Json): Promise<Json> {
  const state = await world.state(session);
  expect(state).toMatchObject({
    status: "completed",
    completed_by: "client",
    end_reason: "agent_hung_up",
    extraction: { status: "succeeded" },
    results: RESULTS,
  });
  expect(results.results).toEqual(state.results);
  expect(lines(results.transcript)).toEqual(lines(state.transcript));
  expect(wordsOf("user", state.transcript)).toEqual(SAYS);
  const agent = wordsOf("agent", state.transcript);
  for (const question of AGENT.questions) expect(agent.join(" ")).toContain(question);
  expect(agent.at(-1)).toBe(CLOSING);
  return state;
}
