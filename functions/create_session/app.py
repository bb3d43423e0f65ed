"""POST /api/v1/voice/sessions."""

from pi_voice import container
from pi_voice.domain.connection_api import CreatedSession, CreateSessionRequest
from pi_voice.entrypoints.callers import Caller
from pi_voice.entrypoints.http import Idempotent

app = container.api()
create_session = container.create_session()


@app.post(
    "/api/v1/voice/sessions",
    status_code=201,
    summary="Create a session",
    raises=create_session.ERRORS,
    idempotent=Idempotent("session_id", create_session.repeat_create_session),
)
async def handle(request: CreateSessionRequest, caller: Caller) -> CreatedSession:
    """Provision a LiveKit room and a Gemini Live token for one call. The tokens are returned once."""
    return await create_session(request, caller)


handler = app.handler
