"""POST /api/v1/voice/sessions/{session_id}/usage."""

from pi_voice import container
from pi_voice.domain.ids import SessionId
from pi_voice.domain.session_api import Usage
from pi_voice.domain.usage_api import ReportUsageRequest
from pi_voice.entrypoints.callers import SessionCaller

app = container.api()
report_usage = container.report_usage()


@app.post("/api/v1/voice/sessions/{session_id}/usage", summary="Report the usage of a call", raises=report_usage.ERRORS)
async def handle(session_id: SessionId, request: ReportUsageRequest, caller: SessionCaller) -> Usage:
    """Store the Gemini tokens that the client counted. The larger of each number counts, so repeats change nothing."""
    return await report_usage(session_id, request, caller)


handler = app.handler
