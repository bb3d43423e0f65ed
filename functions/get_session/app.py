"""GET /api/v1/voice/sessions/{session_id}."""

from pi_voice import container
from pi_voice.domain.errors import SessionNotFound
from pi_voice.domain.ids import SessionId
from pi_voice.domain.session_api import Session
from pi_voice.entrypoints.callers import SessionCaller

app = container.api()
read_sessions = container.read_sessions()


@app.get("/api/v1/voice/sessions/{session_id}", summary="Get a session", raises=(SessionNotFound,))
async def handle(session_id: SessionId, caller: SessionCaller) -> Session:
    """Return a session, with its transcript and results once it is completed."""
    return await read_sessions.get_session(session_id, caller)


handler = app.handler
