"""POST /api/v1/voice/sessions/{session_id}/participants: another person joins the call."""

from pi_voice.errors import SessionNotActive, SessionNotFound
from pi_voice.http import Caller, Once, api
from pi_voice.ids import SessionId
from pi_voice.sessions import AdmittedParticipant, NewParticipant
from pi_voice.wiring import admission

app = api()
sessions = admission()


@app.post(
    "/api/v1/voice/sessions/{session_id}/participants",
    status_code=201,
    summary="Add a participant",
    raises=(SessionNotFound, SessionNotActive),
    once=Once("session_id"),  # a repeat signs another token for the same person
)
async def add_participant(session_id: SessionId, order: NewParticipant, caller: Caller) -> AdmittedParticipant:
    """Sign a LiveKit token for one more person, good until the session's own expiry."""
    return await sessions.admit(session_id, order, caller)


handler = app.handler
