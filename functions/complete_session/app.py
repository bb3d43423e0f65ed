"""POST /api/v1/voice/sessions/{session_id}/complete."""

from typing import Final

from pi_voice import container
from pi_voice.domain.ids import SessionId
from pi_voice.domain.session_api import Session
from pi_voice.domain.transcript_api import CompleteSessionRequest
from pi_voice.entrypoints.callers import RequestHash, SessionCaller
from pi_voice.entrypoints.http import Idempotent

MAX_BODY_BYTES: Final = 4_194_304  # a transcript of 1 MB with every character escaped as \uXXXX

app = container.api(MAX_BODY_BYTES)
complete_session = container.complete_session()


@app.post(
    "/api/v1/voice/sessions/{session_id}/complete",
    enveloped=False,
    summary="Complete a session",
    raises=complete_session.ERRORS,
    idempotent=Idempotent("session_id", container.read_sessions().get_session),
)
async def handle(
    session_id: SessionId, request: CompleteSessionRequest, caller: SessionCaller, request_hash: RequestHash
) -> Session:
    """Store the transcript, then extract the results, and return the session without the data envelope."""
    return await complete_session(session_id, request, caller, request_hash)


handler = app.handler
