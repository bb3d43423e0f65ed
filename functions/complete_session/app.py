"""POST /api/v1/voice/sessions/{session_id}/complete: the call is over, its transcript becomes results."""

from typing import Final

from pi_voice.errors import SessionNotActive, SessionNotFound, TranscriptTooLarge
from pi_voice.http import Once, RequestHash, SessionCaller, api
from pi_voice.ids import SessionId
from pi_voice.sessions import Ending, SessionState
from pi_voice.wiring import completion, history

MAX_BODY_BYTES: Final = 4_194_304  # a transcript of a megabyte takes more with every letter written as \uXXXX

app = api(MAX_BODY_BYTES)
calls = completion()


@app.post(
    "/api/v1/voice/sessions/{session_id}/complete",
    enveloped=False,
    summary="Complete a session",
    raises=(SessionNotFound, SessionNotActive, TranscriptTooLarge),
    once=Once("session_id", history().get),
)
async def complete_session(
    session_id: SessionId, ending: Ending, caller: SessionCaller, request_hash: RequestHash
) -> SessionState:
    """Make what was said durable, then extract the results; the session is answered as it stands."""
    return await calls.complete(session_id, ending, caller, request_hash)


handler = app.handler
