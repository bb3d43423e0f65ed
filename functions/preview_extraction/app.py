"""POST /api/v1/voice/extractions/preview: tries an output schema out on a pasted transcript."""

from typing import Final

from pi_voice.errors import InvalidOutputSchema, RateLimited, TranscriptTooLarge
from pi_voice.http import Caller, api
from pi_voice.sessions import ExtractedResults, ExtractionPreview
from pi_voice.wiring import extracting_again

MAX_BODY_BYTES: Final = 4_194_304  # as in complete: a transcript of a megabyte, every letter written as \uXXXX

app = api(MAX_BODY_BYTES)
extractions = extracting_again()


@app.post(
    "/api/v1/voice/extractions/preview",
    summary="Try an output schema out",
    raises=(InvalidOutputSchema, TranscriptTooLarge, RateLimited),
)
async def preview_extraction(order: ExtractionPreview, caller: Caller) -> ExtractedResults:
    """Extract results from a transcript by a schema; nothing is kept."""
    return await extractions.preview(order, caller)


handler = app.handler
