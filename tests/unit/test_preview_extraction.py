import asyncio
import json

import pytest
from pydantic import JsonValue, ValidationError

from pi_voice.domain.errors import (
    InvalidApiKey,
    InvalidOutputSchema,
    InvalidRequest,
    RateLimited,
    TranscriptTooLarge,
    VoiceError,
)
from pi_voice.domain.extraction_api import ExtractedResults, PreviewExtractionRequest
from pi_voice.domain.extractions import Evidence
from pi_voice.ports import Caller
from pi_voice.use_cases.extractor import Extractor
from pi_voice.use_cases.preview_extraction import PreviewExtraction
from tests.support.fakes import FakeCaller, FakeClock, FakeExtractionModel, FakeRateLimiter, UnknownCaller, no_pause
from tests.unit.examples import NOW, SUCCEEDED, TURNS, new_extraction

ACME = FakeCaller()
STRICT: JsonValue = {"type": "object", "properties": {"mood": {"type": "string", "pattern": "^[a-z]+$"}}}


def preview_request(**fields: JsonValue) -> PreviewExtractionRequest:
    """Parse a request for a preview of TURNS."""
    turns: list[JsonValue] = [{**turn} for turn in TURNS]  # type: ignore[dict-item]
    defaults: dict[str, JsonValue] = {"transcript": turns, "output_schema": {"city": "string"}}
    return PreviewExtractionRequest.model_validate_json(json.dumps({**defaults, **fields}))


class Setup:
    """A PreviewExtraction on fakes."""

    def __init__(self, answer: str = '{"city": "Oslo"}', rate_limiter: FakeRateLimiter | None = None) -> None:
        self.model = FakeExtractionModel(answer)
        self.rate_limiter = rate_limiter or FakeRateLimiter()
        self.clock = FakeClock(NOW + 1_000)

    def preview(
        self, request: PreviewExtractionRequest | None = None, caller: Caller = ACME, *, explain: bool = False
    ) -> ExtractedResults:
        extractor = Extractor(self.model, clock=self.clock, sleep=no_pause)
        preview_extraction = PreviewExtraction(extractor, self.rate_limiter, self.clock)
        return asyncio.run(preview_extraction(request or preview_request(), caller, explain=explain))


def test_results_are_extracted_from_the_transcript_of_the_request() -> None:
    setup = Setup()

    extracted = setup.preview()

    assert (extracted.session_id, extracted.results, extracted.warnings) == (None, {"city": "Oslo"}, [])
    assert extracted.extraction == new_extraction(**{**SUCCEEDED, "agent_version": None}, extracted_at=NOW + 1_000)
    assert setup.rate_limiter.acquired == ["acme"]


def test_a_strict_schema_wins_over_hints_and_its_warnings_are_returned() -> None:
    extracted = Setup('{"mood": "calm"}').preview(preview_request(output_schema_strict=STRICT))

    assert extracted.results == {"mood": "calm"}
    assert [warning.path for warning in extracted.warnings] == ["output_schema_strict#/properties/mood/pattern"]


def test_evidence_is_returned_on_request() -> None:
    answer = (
        '{"results": {"city": "Oslo"}, "evidence": [{"path": "city", "status": "found", "turn": 1, "quote": "Oslo"}]}'
    )

    extracted = Setup(answer).preview(preview_request(evidence=True))

    assert extracted.extraction.fields == {"city": Evidence(status="found", turn=1, role="user", quote="Oslo")}


@pytest.mark.parametrize(
    ("called_at", "began"),
    [
        (None, "Friday, 2027-01-15 08:16 UTC"),
        (0, "Thursday, 1970-01-01 00:00 UTC"),
        (NOW, "Friday, 2027-01-15 08:00 UTC"),
    ],
)
def test_the_model_gets_the_start_of_the_call_or_else_the_current_time(called_at: int | None, began: str) -> None:
    setup = Setup()

    setup.preview(preview_request(called_at=called_at))

    assert setup.model.requests[0].text.partition("\n")[0].endswith(f"{began}.")
    assert setup.model.requests[0].seconds == 20.0


@pytest.mark.parametrize("evidence", [False, True])
def test_the_schema_that_was_sent_is_returned_on_request(*, evidence: bool) -> None:
    setup = Setup('{"results": {"city": "Oslo"}, "evidence": []}' if evidence else '{"city": "Oslo"}')
    request = preview_request(evidence=evidence)

    explained = setup.preview(request, explain=True)

    assert explained.sent_schema == setup.model.requests[0].schema
    assert setup.preview(request).sent_schema is None


def test_the_transcript_s_quality_uses_the_requested_duration() -> None:
    turns: JsonValue = [{"role": "user", "text": "Oslo.", "start_ms": 0, "end_ms": 5_000}]

    extracted = Setup().preview(preview_request(transcript=turns, duration_seconds=20))

    assert extracted.extraction.transcript is not None
    assert (extracted.extraction.transcript.coverage, extracted.extraction.transcript.agent_turns) == (0.25, 0)


def test_a_failed_preview_returns_its_error() -> None:
    extracted = Setup("{}").preview()

    assert (extracted.results, extracted.extraction.status) == (None, "failed")
    assert extracted.extraction.error is not None
    assert extracted.extraction.error.code == "schema_violation"


def test_a_workspace_over_its_rate_limit_gets_the_time_to_wait() -> None:
    setup = Setup(rate_limiter=FakeRateLimiter(limit=1))
    setup.preview()

    with pytest.raises(RateLimited) as raised:
        setup.preview()

    assert raised.value.retry_after_seconds == 41.5
    assert len(setup.model.requests) == 1


@pytest.mark.parametrize(
    ("fields", "error", "path"),
    [
        ({"output_schema": None}, InvalidRequest, "output_schema"),
        ({"output_schema": {}}, InvalidRequest, "output_schema"),
        ({"output_schema": {"a": 1}}, InvalidOutputSchema, "output_schema.a"),
        ({"output_schema_strict": {}}, InvalidOutputSchema, "output_schema_strict#"),
        ({"transcript": [{"role": "user", "text": "x" * 20_001}]}, TranscriptTooLarge, "transcript.0.text"),
        ({"transcript": [{"role": "user", "text": "x" * 19_999}] * 55}, TranscriptTooLarge, "transcript"),
    ],
)
def test_a_rejected_request_does_not_count_toward_the_rate_limit(
    fields: dict[str, JsonValue], error: type[VoiceError], path: str
) -> None:
    setup = Setup()

    with pytest.raises(error) as raised:
        setup.preview(preview_request(**fields))

    assert [detail.path for detail in raised.value.details] == [path]
    assert (setup.rate_limiter.acquired, setup.model.requests) == ([], [])


def test_a_caller_with_an_unknown_key_previews_nothing() -> None:
    setup = Setup()

    with pytest.raises(InvalidApiKey):
        setup.preview(caller=UnknownCaller())

    assert (setup.rate_limiter.acquired, setup.model.requests) == ([], [])


def test_a_preview_needs_a_turn() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        preview_request(transcript=[])
