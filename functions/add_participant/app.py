"""POST /api/v1/voice/sessions/{session_id}/participants."""

from pi_voice import container
from pi_voice.domain.connection_api import AddedParticipant, AddParticipantRequest
from pi_voice.domain.ids import SessionId
from pi_voice.entrypoints.callers import Caller
from pi_voice.entrypoints.http import Idempotent

app = container.api()
add_participant = container.add_participant()


@app.post(
    "/api/v1/voice/sessions/{session_id}/participants",
    status_code=201,
    summary="Add a participant",
    raises=add_participant.ERRORS,
    idempotent=Idempotent("session_id"),  # a repeat issues another token for the same participant
)
async def handle(session_id: SessionId, request: AddParticipantRequest, caller: Caller) -> AddedParticipant:
    """Issue a LiveKit token for another participant of the call, valid until the session expires."""
    return await add_participant(session_id, request, caller)


handler = app.handler
