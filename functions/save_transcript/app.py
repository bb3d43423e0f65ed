"""POST /api/v1/voice/sessions/{session_id}/transcript."""

from pi_voice import container
from pi_voice.domain.ids import SessionId
from pi_voice.domain.transcript_api import SavedTranscript, SaveTranscriptRequest
from pi_voice.entrypoints.callers import SessionCaller

app = container.api()
save_transcript = container.save_transcript()


@app.post(
    "/api/v1/voice/sessions/{session_id}/transcript",
    status_code=200,
    summary="Save the transcript during the call",
    raises=save_transcript.ERRORS,
)
async def handle(session_id: SessionId, request: SaveTranscriptRequest, caller: SessionCaller) -> SavedTranscript:
    """Append turns to the transcript of an active session. Turns that are already saved may be sent again."""
    return await save_transcript(session_id, request, caller)


handler = app.handler
