"""POST /api/v1/voice/sessions/{session_id}/transcript: what was said so far is kept."""

from pi_voice.errors import (
    SessionNotActive,
    SessionNotFound,
    TranscriptConflict,
    TranscriptGap,
    TranscriptTooLarge,
)
from pi_voice.http import SessionCaller, api
from pi_voice.ids import SessionId
from pi_voice.sessions import Checkpoint, Kept
from pi_voice.wiring import checkpoint_keeping

app = api()
transcripts = checkpoint_keeping()


@app.post(
    "/api/v1/voice/sessions/{session_id}/transcript",
    status_code=200,
    summary="Keep turns of a running call",
    raises=(SessionNotFound, SessionNotActive, TranscriptGap, TranscriptConflict, TranscriptTooLarge),
)
async def keep_transcript(session_id: SessionId, sent: Checkpoint, caller: SessionCaller) -> Kept:
    """Append turns to the transcript; those that are kept already may be sent again."""
    return await transcripts.keep(session_id, sent, caller)


handler = app.handler
