"""POST /api/v1/voice/sessions: one call, two real-time connections."""

from pi_voice.errors import (
    AgentNotFound,
    GeminiError,
    GeminiUnavailable,
    LiveKitError,
    LiveKitUnavailable,
    SessionNotActive,
    SessionNotFound,
    TtlTooShort,
    UpstreamTimeout,
)
from pi_voice.http import Caller, Once, api
from pi_voice.sessions import NewSession, StartedSession
from pi_voice.wiring import provisioning

app = api()
sessions = provisioning()


@app.post(
    "/api/v1/voice/sessions",
    status_code=201,
    summary="Start a session",
    raises=(
        AgentNotFound,
        SessionNotFound,
        SessionNotActive,
        TtlTooShort,
        LiveKitError,
        LiveKitUnavailable,
        GeminiError,
        GeminiUnavailable,
        UpstreamTimeout,
    ),
    once=Once("session_id", sessions.again),
)
async def create_session(order: NewSession, caller: Caller) -> StartedSession:
    """Make the LiveKit room and the Gemini Live token of one call and return both, once."""
    return await sessions.start(order, caller)


handler = app.handler
