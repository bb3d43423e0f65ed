"""POST /api/v1/voice/sessions/{session_id}/stop: the call is hung up."""

from pi_voice.errors import (
    LiveKitError,
    LiveKitUnavailable,
    SessionNotActive,
    SessionNotFound,
    UpstreamTimeout,
)
from pi_voice.http import SessionCaller, api
from pi_voice.ids import SessionId
from pi_voice.sessions import SessionState
from pi_voice.wiring import hanging_up

app = api()
calls = hanging_up()


@app.post(
    "/api/v1/voice/sessions/{session_id}/stop",
    status_code=200,
    summary="Stop a call",
    raises=(SessionNotFound, SessionNotActive, LiveKitError, LiveKitUnavailable, UpstreamTimeout),
)
async def stop_session(session_id: SessionId, caller: SessionCaller) -> SessionState:
    """Close the room and keep it closed; complete the session with its transcript afterwards."""
    return await calls.stop(session_id, caller)


handler = app.handler
