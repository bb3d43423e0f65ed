// A whole call with openapi-fetch and the types of openapi-typescript: openapi_fetch.js BASE_URL API_KEY prints its responses.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Schemas = components["schemas"];

const turns: Schemas["TranscriptTurn"][] = [
  { role: "agent", text: "What is your name?" },
  { role: "user", text: "My name is Ana Torres.", start_ms: 1200, end_ms: 2400 },
];
const hints = { guest_name: "Full name of the guest" };

function connect(baseUrl: string, token: string) {
  return createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
}

function done<Data>(answer: { data?: Data; error?: Schemas["ErrorResponse"] }): Data {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

const [base = "", apiKey = ""] = process.argv.slice(2);
const client = connect(base, apiKey);

const voices = done(await client.GET("/api/v1/voice/voices"));
const body: Schemas["CreateAgentRequest"] = {
  name: "Mia",
  instructions: "You take reservations.",
  behaviors: { speaking_pace: "fast", closing_message: "Bye!" },
  output_schema: hints,
  voice: { name: "Aoede" },
  metadata: { restaurant: "Linden" },
};
const agent = done(await client.POST("/api/v1/voice/agents", { body })).data;
const { agent_id } = agent;
const patch: Schemas["UpdateAgentRequest"] = { purpose: "Take a reservation", behaviors: { closing_message: null } };
const path = { agent_id };
const updated = done(await client.PATCH("/api/v1/voice/agents/{agent_id}", { params: { path }, body: patch })).data;
const got = done(await client.GET("/api/v1/voice/agents/{agent_id}", { params: { path } })).data;
const listed = done(await client.GET("/api/v1/voice/agents", { params: { query: { limit: 1 } } })).data;

const order: Schemas["CreateSessionRequest"] = {
  agent_id,
  participant: { identity: "guest" },
  ttl_seconds: 900,
  media: ["microphone", "camera"],
};
const once = { header: { "Idempotency-Key": agent_id } };
const session = done(await client.POST("/api/v1/voice/sessions", { params: once, body: order })).data;
const repeated = done(await client.POST("/api/v1/voice/sessions", { params: once, body: order })).data;
const { session_id } = session;
const params = { path: { session_id } };
const added = done(
  await client.POST("/api/v1/voice/sessions/{session_id}/participants", {
    params,
    body: { identity: "friend", name: "Bo" },
  }),
).data;

const caller = connect(base, session.client_token);
const saved = done(
  await caller.POST("/api/v1/voice/sessions/{session_id}/transcript", { params, body: { from: 0, turns } }),
).data;
const renewed = done(
  await caller.POST("/api/v1/voice/sessions/{session_id}/renew", { params, body: { has_resumption_handle: true } }),
).data;
const stopped = done(await caller.POST("/api/v1/voice/sessions/{session_id}/stop", { params })).data;
const ending: Schemas["CompleteSessionRequest"] = { duration_seconds: 3 };
const completed = done(
  await caller.POST("/api/v1/voice/sessions/{session_id}/complete", { params, body: ending }),
);
const completedAgain = await caller.POST("/api/v1/voice/sessions/{session_id}/complete", { params });

const state = done(await client.GET("/api/v1/voice/sessions/{session_id}", { params })).data;
const sessions = done(
  await client.GET("/api/v1/voice/sessions", { params: { query: { status: "completed", agent_id } } }),
);
const rerun = done(
  await client.POST("/api/v1/voice/sessions/{session_id}/extract", { params, body: { evidence: true, preview: true } }),
).data;
const tried = done(
  await client.POST("/api/v1/voice/extractions/preview", { body: { transcript: turns, output_schema: hints } }),
).data;

const deleted = await client.DELETE("/api/v1/voice/sessions/{session_id}", { params });
const agentDeleted = await client.DELETE("/api/v1/voice/agents/{agent_id}", { params: { path } });
const gone = await client.GET("/api/v1/voice/sessions/{session_id}", { params });

const keys = (results: unknown) => Object.keys(results as object);
console.log(
  JSON.stringify({
    voice: voices.data[0]?.name,
    versions: [agent.version, updated.version],
    warnings: updated.warnings.map((warning) => warning.path),
    agent: [got.language, got.purpose, got.behaviors.speaking_pace, got.behaviors.closing_message],
    metadata: got.metadata,
    agents: listed.map((each) => each.agent_id === agent_id),
    session: [session.status, session.max_duration_seconds, session.participant.name],
    repeated: repeated.session_id === session_id,
    connections: [
      session.connection.livekit.url.split(":")[0],
      session.connection.gemini_live.url.split(":")[0],
      added.connection.livekit.room === session_id,
      renewed.connection.livekit.room === session_id,
    ],
    setup: Object.keys(session.connection.gemini_live.setup),
    saved: saved.next,
    stopped: [stopped.status, stopped.hung_up_at !== null],
    completed: [completed.status, completed.completed_by, completed.end_reason, completed.duration_seconds],
    completed_again: completedAgain.error?.error.code,
    transcript: state.transcript,
    results: [keys(completed.results), keys(rerun.results), keys(tried.results)],
    extraction: state.extraction?.status,
    evidence: rerun.extraction.fields && Object.keys(rerun.extraction.fields),
    sessions: sessions.data.map((each) => each.session_id === session_id),
    next_cursor: sessions.next_cursor,
    deleted: [deleted.response.status, agentDeleted.response.status, gone.error?.error.code],
  }),
);
