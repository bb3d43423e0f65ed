"""POST /api/v1/voice/sessions/{session_id}/renew: a call goes on with new connections."""

from pi_voice.errors import (
    GeminiError,
    GeminiUnavailable,
    LiveKitError,
    LiveKitUnavailable,
    SessionNotActive,
    SessionNotFound,
    UpstreamTimeout,
)
from pi_voice.http import SessionCaller, api
from pi_voice.ids import SessionId
from pi_voice.sessions import Renewal, RenewedSession
from pi_voice.wiring import renewing

app = api()
calls = renewing()


@app.post(
    "/api/v1/voice/sessions/{session_id}/renew",
    status_code=200,
    summary="Renew a session's connections",
    raises=(
        SessionNotFound,
        SessionNotActive,
        LiveKitError,
        LiveKitUnavailable,
        GeminiError,
        GeminiUnavailable,
        UpstreamTimeout,
    ),
)
async def renew_session(session_id: SessionId, order: Renewal, caller: SessionCaller) -> RenewedSession:
    """Give the client fresh tokens for the same room and the same agent, up to an hour after the call began."""
    return await calls.renew(session_id, order, caller)


handler = app.handler
