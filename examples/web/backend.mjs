// A backend for a web page with a voice agent: it holds the API key, and creates a session for each call.

import { serve } from "./server.mjs";

const { BASE, API_KEY, AGENT_ID, SESSION = "{}" } = process.env;
const MORE = JSON.parse(SESSION); // other fields of POST /sessions

async function createSession() {
  const response = await fetch(`${BASE}/api/v1/voice/sessions`, {
    method: "POST",
    headers: { Authorization: `Bearer ${API_KEY}`, "Content-Type": "application/json" },
    body: JSON.stringify({ agent_id: AGENT_ID, participant: { identity: "guest" }, ...MORE }),
    signal: AbortSignal.timeout(20_000),
  });
  const { data, error } = await response.json();
  if (error) throw Object.assign(new Error(error.message), { code: error.code });
  return data; // all of it is safe for a browser
}

serve(createSession, BASE); // POST /session, and the pages
