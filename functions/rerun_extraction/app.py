"""POST /api/v1/voice/sessions/{session_id}/extract."""

from pi_voice import container
from pi_voice.domain.extraction_api import ExtractedResults, RerunExtractionRequest
from pi_voice.domain.ids import SessionId
from pi_voice.entrypoints.callers import Caller

app = container.api()
rerun_extraction = container.rerun_extraction()


@app.post(
    "/api/v1/voice/sessions/{session_id}/extract",
    summary="Rerun an extraction",
    raises=rerun_extraction.ERRORS,
)
async def handle(session_id: SessionId, request: RerunExtractionRequest, caller: Caller) -> ExtractedResults:
    """Extract by the agent's current schema, or by the request's. The results are stored unless it is a preview."""
    return await rerun_extraction(session_id, request, caller)


handler = app.handler
