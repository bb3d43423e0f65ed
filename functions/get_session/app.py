"""GET /api/v1/voice/sessions/{session_id}: all that is known of one call."""

from pi_voice.errors import SessionNotFound
from pi_voice.http import SessionCaller, api
from pi_voice.ids import SessionId
from pi_voice.sessions import SessionState
from pi_voice.wiring import history

app = api()
sessions = history()


@app.get("/api/v1/voice/sessions/{session_id}", summary="Get a session", raises=(SessionNotFound,))
async def get_session(session_id: SessionId, caller: SessionCaller) -> SessionState:
    """Return a session's state, with its transcript and results once it is completed."""
    return await sessions.get(session_id, caller)


handler = app.handler
