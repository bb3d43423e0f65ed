"""POST /api/v1/voice/extractions/preview."""

from typing import Final

from pi_voice import container
from pi_voice.domain.extraction_api import ExtractedResults, PreviewExtractionQuery, PreviewExtractionRequest
from pi_voice.entrypoints.callers import Caller

MAX_BODY_BYTES: Final = 4_194_304  # a transcript of 1 MB with every character escaped as \uXXXX

app = container.api(MAX_BODY_BYTES)
preview_extraction = container.preview_extraction()


@app.post(
    "/api/v1/voice/extractions/preview",
    summary="Preview an extraction",
    raises=preview_extraction.ERRORS,
)
async def handle(request: PreviewExtractionRequest, query: PreviewExtractionQuery, caller: Caller) -> ExtractedResults:
    """Extract results from the transcript in the request. Nothing is stored."""
    return await preview_extraction(request, caller, explain=query.explain)


handler = app.handler
