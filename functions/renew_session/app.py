"""POST /api/v1/voice/sessions/{session_id}/renew."""

from pi_voice import container
from pi_voice.domain.connection_api import RenewedSession, RenewSessionRequest
from pi_voice.domain.ids import SessionId
from pi_voice.entrypoints.callers import SessionCaller

app = container.api()
renew_session = container.renew_session()


@app.post(
    "/api/v1/voice/sessions/{session_id}/renew",
    status_code=200,
    summary="Renew a session",
    raises=renew_session.ERRORS,
)
async def handle(session_id: SessionId, request: RenewSessionRequest, caller: SessionCaller) -> RenewedSession:
    """Issue new tokens for the same room and agent version, up to one hour after the session was created."""
    return await renew_session(session_id, request, caller)


handler = app.handler
