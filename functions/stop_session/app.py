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
    summary="Stop a session",
    raises=stop_session.ERRORS,
)
async def handle(session_id: SessionId, caller: SessionCaller) -> Session:
    """Hang up the call and close its room. The session can still be completed."""
    return await stop_session(session_id, caller)


handler = app.handler
