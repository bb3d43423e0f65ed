"""Extract results from the transcript in the request, to try out an output schema."""

import time

from pi_voice.domain import transcripts
from pi_voice.domain.errors import ErrorDetail, InvalidOutputSchema, InvalidRequest, RateLimited, TranscriptTooLarge
from pi_voice.domain.extraction_api import ExtractedResults, PreviewExtractionRequest
from pi_voice.domain.ids import Clock
from pi_voice.domain.output_schema import compile_output_schema
from pi_voice.domain.output_schema_validation import validate_output_schema
from pi_voice.ports import Caller, RateLimiter
from pi_voice.use_cases.extractor import (
    CallTranscript,
    ExtractionRequest,
    Extractor,
    seconds_for_extraction,
    sent_schema,
)


class PreviewExtraction:
    """Extracts results without storing them."""

    ERRORS = (InvalidOutputSchema, TranscriptTooLarge, RateLimited)

    def __init__(self, extractor: Extractor, rate_limiter: RateLimiter, clock: Clock = time.time) -> None:
        self._extractor = extractor
        self._rate_limiter = rate_limiter
        self._clock = clock

    async def __call__(
        self, request: PreviewExtractionRequest, caller: Caller, *, explain: bool = False
    ) -> ExtractedResults:
        """Extract results from the request's transcript, by its schema; to explain, return the schema that was sent.

        Raises InvalidRequest, InvalidOutputSchema, TranscriptTooLarge, RateLimited.
        """
        workspace = await caller.workspace()
        warnings = validate_output_schema(request.output_schema, request.output_schema_strict)
        schema = compile_output_schema(request.output_schema, request.output_schema_strict)
        if schema is None:
            message = "Is required, unless output_schema_strict is given."
            raise InvalidRequest(details=[ErrorDetail("output_schema", message)])
        transcripts.check_size(request.transcript)
        await self._rate_limiter.acquire(workspace)
        called_at = int(self._clock()) if request.called_at is None else request.called_at
        call = CallTranscript(request.transcript, called_at, request.duration_seconds)
        extraction_request = ExtractionRequest(schema, request.evidence)
        outcome = await self._extractor.extract(extraction_request, call, seconds_for_extraction())
        return ExtractedResults.model_construct(
            session_id=None,
            results=outcome.results,
            extraction=outcome.extraction.model_copy(update={"extracted_at": int(self._clock())}),
            warnings=warnings,
            sent_schema=sent_schema(schema, has_evidence=request.evidence) if explain else None,
        )
