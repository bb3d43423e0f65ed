"""DELETE /api/v1/voice/sessions/{session_id}: an ended call is forgotten."""

from pi_voice.errors import SessionActive, SessionNotFound
from pi_voice.http import Caller, api
from pi_voice.ids import SessionId
from pi_voice.wiring import history

app = api()
sessions = history()


@app.delete("/api/v1/voice/sessions/{session_id}", summary="Delete a session", raises=(SessionNotFound, SessionActive))
async def delete_session(session_id: SessionId, caller: Caller) -> None:
    """Remove an ended session with its transcript and its results."""
    await sessions.delete(session_id, caller)


handler = app.handler
