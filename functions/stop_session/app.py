"""POST /api/v1/voice/sessions/{session_id}/stop."""

from pi_voice import container
from pi_voice.domain.ids import SessionId
from pi_voice.domain.session_api import Session
from pi_voice.entrypoints.callers import SessionCaller

app = container.api()
stop_session = container.stop_session()


@app.post(
    "/api/v1/voice/sessions/{session_id}/stop",
    status_code=200,
    summary="Stop a call",
    raises=stop_session.ERRORS,
)
async def handle(session_id: SessionId, caller: SessionCaller) -> Session:
    """Close the room and keep it closed. Complete the session with its transcript afterwards."""
    return await stop_session(session_id, caller)


handler = app.handler
