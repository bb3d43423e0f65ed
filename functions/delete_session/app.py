"""DELETE /api/v1/voice/sessions/{session_id}."""

from pi_voice import container
from pi_voice.domain.ids import SessionId
from pi_voice.entrypoints.callers import Caller

app = container.api()
delete_session = container.delete_session()


@app.delete("/api/v1/voice/sessions/{session_id}", summary="Delete a session", raises=delete_session.ERRORS)
async def handle(session_id: SessionId, caller: Caller) -> None:
    """Delete an ended session with its transcript and results."""
    await delete_session(session_id, caller)


handler = app.handler
