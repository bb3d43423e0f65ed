"""POST /api/v1/voice/sessions/{session_id}/extract: a completed session's results, once more."""

from pi_voice.errors import InvalidOutputSchema, RateLimited, SessionActive, SessionNotCompleted, SessionNotFound
from pi_voice.http import Caller, api
from pi_voice.ids import SessionId
from pi_voice.sessions import ExtractedResults, NewExtraction
from pi_voice.wiring import extracting_again

app = api()
extractions = extracting_again()


@app.post(
    "/api/v1/voice/sessions/{session_id}/extract",
    summary="Extract a session's results again",
    raises=(SessionNotFound, SessionActive, SessionNotCompleted, InvalidOutputSchema, RateLimited),
)
async def extract_again(session_id: SessionId, order: NewExtraction, caller: Caller) -> ExtractedResults:
    """Extract by the agent's current schema or by one given here, and keep what comes of it, unless it is a preview."""
    return await extractions.extract(session_id, order, caller)


handler = app.handler
