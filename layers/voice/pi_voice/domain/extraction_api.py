"""Request and response models of the extraction routes: rerun, preview."""

from typing import Annotated, Final

from pydantic import BeforeValidator, Field, JsonValue

from pi_voice.domain.base import Document, JsonObject
from pi_voice.domain.errors import ErrorDetail
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import DAY_SECONDS
from pi_voice.domain.transcripts import WholeTranscript

_YEAR_9999: Final = 253_370_764_800


class RerunExtractionRequest(Document):
    """Request body of POST /sessions/{session_id}/extract."""

    output_schema: JsonObject | None = None
    """Output schema as hints; absent with `output_schema_strict`: the agent's current schema."""
    output_schema_strict: JsonObject | None = None
    """Output schema as JSON Schema; takes precedence over `output_schema`."""
    evidence: bool | None = None
    """Whether to return evidence for each value; absent: the agent's setting."""
    preview: bool = False
    """Whether to return the results without storing them."""


class PreviewExtractionRequest(Document):
    """Request body of POST /extractions/preview."""

    transcript: Annotated[WholeTranscript, Field(min_length=1)]
    """Turns in order."""
    output_schema: JsonObject | None = None
    """Output schema as hints."""
    output_schema_strict: JsonObject | None = None
    """Output schema as JSON Schema; takes precedence over `output_schema`."""
    evidence: bool = False
    """Whether to return evidence for each value."""
    called_at: Annotated[int, Field(ge=0, le=_YEAR_9999)] | None = None
    """When the call began, to resolve words like "tomorrow"; absent: now."""
    duration_seconds: Annotated[float, Field(ge=0, le=DAY_SECONDS)] | None = None
    """Duration of the call in seconds."""


def _word_to_bool(word: object) -> object:
    """Convert a boolean in a query string, where every value is text."""
    return {"true": True, "false": False}.get(word, word) if isinstance(word, str) else word


class PreviewExtractionQuery(Document):
    """Query of POST /extractions/preview."""

    explain: Annotated[bool, BeforeValidator(_word_to_bool)] = False
    """Whether to return the schema that was sent to Gemini."""


class ExtractedResults(Document):
    """Response of POST /sessions/{session_id}/extract and POST /extractions/preview."""

    session_id: SessionId | None
    """Session of the transcript; null for a preview of a transcript in the request."""
    results: JsonValue
    """Results in the output schema; null if there is no schema or the extraction failed."""
    extraction: Extraction
    """State and cost of the extraction."""
    warnings: list[ErrorDetail]
    """What Gemini ignores or reads differently in the output schema, and what is not held, by path."""
    sent_schema: JsonObject | None = None
    """Schema that was sent to Gemini, for a preview with `explain=true`; else null."""
