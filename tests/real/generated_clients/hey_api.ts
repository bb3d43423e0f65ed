// A whole call with the client of @hey-api/openapi-ts: hey_api.js BASE_URL API_KEY prints its responses.
import { createClient, createConfig } from "./client/client/index.js";
import {
  addParticipant,
  completeSession,
  createAgent,
  createSession,
  deleteAgent,
  deleteSession,
  getAgent,
  getSession,
  listAgents,
  listSessions,
  listVoices,
  previewExtraction,
  renewSession,
  rerunExtraction,
  saveTranscript,
  stopSession,
  updateAgent,
} from "./client/index.js";
import type {
  CompleteSessionRequest,
  CreateAgentRequest,
  CreateSessionRequest,
  ErrorResponse,
  TranscriptTurn,
  UpdateAgentRequest,
} from "./client/index.js";

const turns: TranscriptTurn[] = [
  { role: "agent", text: "What is your name?" },
  { role: "user", text: "My name is Ana Torres.", start_ms: 1200, end_ms: 2400 },
];
const hints = { guest_name: "Full name of the guest" };

function done<Data>(answer: { data?: Data; error?: ErrorResponse }): Data {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

const [base = "", apiKey = ""] = process.argv.slice(2);
const baseUrl = base as `http://${string}`;
const client = createClient(createConfig({ baseUrl, auth: apiKey }));

const voices = done(await listVoices({ client }));
const body: CreateAgentRequest = {
  name: "Mia",
  instructions: "You take reservations.",
  behaviors: { speaking_pace: "fast", closing_message: "Bye!" },
  output_schema: hints,
  voice: { name: "Aoede" },
  metadata: { restaurant: "Linden" },
};
const agent = done(await createAgent({ client, body })).data;
const { agent_id } = agent;
const patch: UpdateAgentRequest = { purpose: "Take a reservation", behaviors: { closing_message: null } };
const updated = done(await updateAgent({ client, path: { agent_id }, body: patch })).data;
const got = done(await getAgent({ client, path: { agent_id } })).data;
const listed = done(await listAgents({ client, query: { limit: 1 } })).data;

const order: CreateSessionRequest = {
  agent_id,
  participant: { identity: "guest" },
  ttl_seconds: 900,
  media: ["microphone", "camera"],
};
const headers = { "Idempotency-Key": agent_id };
const session = done(await createSession({ client, body: order, headers })).data;
const repeated = done(await createSession({ client, body: order, headers })).data;
const { session_id } = session;
const path = { session_id };
const added = done(await addParticipant({ client, path, body: { identity: "friend", name: "Bo" } })).data;

const caller = createClient(createConfig({ baseUrl, auth: session.client_token }));
const saved = done(await saveTranscript({ client: caller, path, body: { from: 0, turns } })).data;
const renewed = done(await renewSession({ client: caller, path, body: { has_resumption_handle: true } })).data;
const stopped = done(await stopSession({ client: caller, path })).data;
const ending: CompleteSessionRequest = { duration_seconds: 3 };
const completed = done(await completeSession({ client: caller, path, body: ending }));
const completedAgain = await completeSession({ client: caller, path });

const state = done(await getSession({ client, path })).data;
const sessions = done(await listSessions({ client, query: { status: "completed", agent_id } }));
const rerun = done(await rerunExtraction({ client, path, body: { evidence: true, preview: true } })).data;
const tried = done(await previewExtraction({ client, body: { transcript: turns, output_schema: hints } })).data;

const deleted = await deleteSession({ client, path });
const agentDeleted = await deleteAgent({ client, path: { agent_id } });
const gone = await getSession({ client, path });

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
    deleted: [deleted.response?.status, agentDeleted.response?.status, gone.error?.error.code],
  }),
);
