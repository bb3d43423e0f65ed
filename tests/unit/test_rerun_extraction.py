import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain.agents import Agent
from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import (
    GeminiUnavailable,
    InvalidApiKey,
    InvalidOutputSchema,
    RateLimited,
    SessionActive,
    SessionNotCompleted,
    SessionNotFound,
    StorageError,
    VoiceError,
)
from pi_voice.domain.extraction_api import ExtractedResults, RerunExtractionRequest
from pi_voice.domain.extractions import Evidence, Extraction, ExtractionRun
from pi_voice.domain.ids import TranscriptId
from pi_voice.domain.sessions import Session
from pi_voice.ports import Caller, ModelRequest, ModelResponse
from pi_voice.use_cases.call_content import CallContent
from pi_voice.use_cases.extractor import Extractor
from pi_voice.use_cases.rerun_extraction import RerunExtraction
from tests.support.fakes import (
    FakeAgents,
    FakeCaller,
    FakeClock,
    FakeExtractionModel,
    FakeRateLimiter,
    FakeSessions,
    FakeToolCalls,
    FakeTranscripts,
    UnknownCaller,
    no_pause,
)
from tests.unit.examples import (
    AGENT_ID,
    GEMINI_UNAVAILABLE,
    NOW,
    SESSION_ID,
    SUCCEEDED,
    TURNS,
    agent,
    new_extraction,
    session,
    without_events,
)

ACME = FakeCaller()
GLOBEX = FakeCaller("globex")
TRANSCRIPT_ID = TranscriptId("019a0000-0000-7000-8000-0000000000aa")
CITY = agent(output_schema={"city": "string"})
OSLO = '{"city": "Oslo"}'
BERGEN = '{"city": "Bergen"}'
FIRST = new_extraction(**SUCCEEDED, extracted_at=NOW + 90)
STRICT: JsonValue = {"type": "object", "properties": {"mood": {"type": "string", "pattern": "^[a-z]+$"}}}


def completed_session(extraction: Extraction | None = FIRST, **changes: Any) -> Session:
    """Make a completed session, with results if its extraction succeeded."""
    ended = replace(
        session(),
        status="completed",
        completed_at=NOW + 85,
        duration_seconds=60,
        transcript_id=TRANSCRIPT_ID,
        turns=2,
        results={"city": "Trondheim"} if extraction and extraction.status == "succeeded" else None,
        extraction=extraction,
        duties=Duties(),
    )
    return replace(ended, **changes)


def rerun_request(**fields: JsonValue) -> RerunExtractionRequest:
    """Parse a request for another extraction."""
    return RerunExtractionRequest.model_validate_json(json.dumps(fields))


def extraction_run(at: int, city: str | None = None, **fields: Any) -> ExtractionRun:
    """Return a run of the history: successful if it has a city, else failed."""
    defaults: dict[str, Any] = {
        "status": "succeeded" if city else "failed",
        "agent_version": 1,
        "model": "fake-model-001",
        "results": {"city": city} if city else None,
        "error": None,
    }
    return ExtractionRun(**{"at": at, **defaults, **fields})


PENDING = Duties().plus(close_room=NOW + 3_600, extract=NOW + 60)


class Setup:
    """A RerunExtraction on fakes."""

    def __init__(
        self,
        *answers: str | ModelResponse | Exception,
        with_agent: Agent = CITY,
        sessions: FakeSessions | None = None,
        rate_limiter: FakeRateLimiter | None = None,
        model: FakeExtractionModel | None = None,
    ) -> None:
        self.agents = FakeAgents(with_agent)
        self.sessions = sessions or FakeSessions(completed_session())
        self.transcripts = FakeTranscripts()
        self.transcripts.stored[SESSION_ID, TRANSCRIPT_ID] = TURNS
        self.rate_limiter = rate_limiter or FakeRateLimiter()
        self.model = model or FakeExtractionModel(*(answers or [OSLO]))
        self.clock = FakeClock(NOW + 1_000)

    @property
    def rerun_extraction(self) -> RerunExtraction:
        extractor = Extractor(self.model, clock=self.clock, sleep=no_pause)
        return RerunExtraction(
            self.agents,
            self.sessions,
            CallContent(self.transcripts, FakeToolCalls()),
            extractor,
            self.rate_limiter,
            self.clock,
        )

    def rerun(self, request: RerunExtractionRequest | None = None, caller: Caller = ACME) -> ExtractedResults:
        """Extract again, one second later than before."""
        self.clock.now += 1
        return asyncio.run(self.rerun_extraction(SESSION_ID, request or rerun_request(), caller))

    @property
    def session(self) -> Session:
        """The stored session."""
        return self.sessions.stored[SESSION_ID]

    @property
    def extraction(self) -> Extraction:
        """The stored extraction."""
        assert self.session.extraction is not None
        return self.session.extraction


# ---- Results --------------------------------------------------------------------------------------------


def test_the_new_results_replace_the_session_s_results_and_become_a_run() -> None:
    setup = Setup()

    extracted = setup.rerun()

    assert (extracted.session_id, extracted.results, extracted.warnings) == (SESSION_ID, {"city": "Oslo"}, [])
    assert extracted.extraction.runs == [extraction_run(NOW + 1_001, "Oslo"), extraction_run(NOW + 90, "Trondheim")]
    assert (extracted.extraction.status, extracted.extraction.extracted_at) == ("succeeded", NOW + 1_001)
    assert (setup.session.results, setup.extraction) == (extracted.results, extracted.extraction)
    assert setup.session.duties == Duties().plus(send_events=NOW + 1_011)
    assert [event.type for event in setup.session.owed_events] == ["extraction.succeeded"]


def test_the_model_gets_the_stored_transcript_and_20_seconds() -> None:
    setup = Setup()

    extracted = setup.rerun()

    [asked] = setup.model.requests
    assert asked.seconds == 20.0
    assert "Friday, 2027-01-15 08:00 UTC" in asked.text
    assert TURNS[1]["text"] in asked.text
    assert extracted.extraction.agent_version == 1


def test_the_agent_s_current_schema_is_used() -> None:
    setup = Setup('{"mood": "calm"}')
    edited = agent(version=2, output_schema={"mood": "string"})
    assert asyncio.run(setup.agents.save(session().workspace, edited))

    extracted = setup.rerun()

    assert extracted.results == {"mood": "calm"}
    assert extracted.extraction.agent_version == 2


def test_the_session_s_agent_version_is_used_if_the_agent_was_deleted() -> None:
    setup = Setup()
    setup.agents.heads.clear()

    extracted = setup.rerun()

    assert (extracted.results, extracted.extraction.agent_version) == ({"city": "Oslo"}, 1)


def test_a_schema_in_the_request_is_used_once_and_not_stored() -> None:
    setup = Setup('{"mood": "calm"}')

    extracted = setup.rerun(rerun_request(output_schema_strict=STRICT, output_schema={"city": "string"}))

    assert extracted.results == {"mood": "calm"}
    assert (extracted.extraction.agent_version, extracted.extraction.runs[0].agent_version) == (None, None)
    assert [warning.path for warning in extracted.warnings] == ["output_schema_strict#/properties/mood/pattern"]
    assert setup.agents.heads[AGENT_ID].agent == CITY


WITH_EVIDENCE = (
    '{"results": {"city": "Oslo"}, "evidence": [{"path": "city", "status": "found", "turn": 1, "quote": "Oslo"}]}'
)


@pytest.mark.parametrize(
    ("of_agent", "requested", "is_returned"),
    [(False, None, False), (True, None, True), (False, True, True), (True, False, False)],
)
@pytest.mark.parametrize("schema", [{}, {"output_schema": {"city": "string"}}], ids=["agent's", "requested"])
def test_evidence_is_returned_as_the_request_says_or_else_as_the_agent_says(
    schema: dict[str, JsonValue], *, of_agent: bool, requested: bool | None, is_returned: bool
) -> None:
    setup = Setup(
        WITH_EVIDENCE if is_returned else OSLO, with_agent=agent(output_schema={"city": "string"}, evidence=of_agent)
    )

    extracted = setup.rerun(rerun_request(evidence=requested, **schema))

    evidence = {"city": Evidence(status="found", turn=1, role="user", quote="Oslo")}
    assert extracted.extraction.fields == (evidence if is_returned else None)


def test_an_agent_without_a_schema_is_skipped_and_the_session_is_unchanged() -> None:
    setup = Setup(with_agent=agent())

    extracted = setup.rerun()

    assert (extracted.results, extracted.extraction.status) == (None, "skipped")
    assert setup.session == completed_session()
    assert setup.model.requests == []


@pytest.mark.parametrize("turns", [0, 2], ids=["no turns", "transcript expired"])
def test_a_session_without_a_transcript_is_skipped(turns: int) -> None:
    setup = Setup(sessions=FakeSessions(completed_session(turns=turns)))
    setup.transcripts.stored.clear()

    assert setup.rerun().extraction.status == "skipped"
    assert setup.session.results == {"city": "Trondheim"}


def test_a_preview_returns_results_and_stores_nothing() -> None:
    setup = Setup()

    extracted = setup.rerun(rerun_request(preview=True))

    assert (extracted.results, extracted.extraction.runs) == ({"city": "Oslo"}, [])
    assert (extracted.session_id, extracted.extraction.extracted_at) == (SESSION_ID, NOW + 1_001)
    assert setup.session == completed_session()
    assert setup.rate_limiter.acquired == ["acme"]


# ---- Failed runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [("{}", "schema_violation"), (GeminiUnavailable(), "gemini_unavailable")],
    ids=["schema", "busy"],
)
def test_a_failed_run_is_recorded_and_keeps_the_earlier_results(answer: str | Exception, code: str) -> None:
    setup = Setup(answer)

    extracted = setup.rerun()

    assert (extracted.results, extracted.extraction.status) == (None, "failed")
    assert extracted.extraction.error is not None
    assert extracted.extraction.error.code == code
    assert setup.session.results == {"city": "Trondheim"}
    assert setup.extraction == FIRST.model_copy(update={"runs": extracted.extraction.runs})
    failed, first = extracted.extraction.runs
    assert (failed.at, failed.status, failed.results, failed.error) == (
        NOW + 1_001,
        "failed",
        None,
        extracted.extraction.error,
    )
    assert first == extraction_run(NOW + 90, "Trondheim")
    assert setup.session.owed_events == ()


def test_a_failed_run_replaces_an_earlier_failure() -> None:
    before = new_extraction(status="failed", attempts=18, error=GEMINI_UNAVAILABLE, extracted_at=NOW + 90)
    setup = Setup("{}", sessions=FakeSessions(completed_session(before)))

    extracted = setup.rerun()

    assert setup.extraction == extracted.extraction
    assert [each.error.code for each in extracted.extraction.runs if each.error] == [
        "schema_violation",
        "gemini_unavailable",
    ]
    assert [event.type for event in setup.session.owed_events] == ["extraction.failed"]


def test_a_run_that_succeeds_after_failures_stores_its_results() -> None:
    setup = Setup("{}", "{}", OSLO)

    setup.rerun()
    setup.rerun()

    assert setup.session.results == {"city": "Oslo"}
    assert [each.status for each in setup.extraction.runs] == ["succeeded", "failed", "succeeded"]


@pytest.mark.parametrize(("answer", "status"), [(OSLO, "succeeded"), ("{}", "pending")], ids=["good", "bad"])
def test_a_pending_extraction_stays_pending_unless_the_run_succeeds(answer: str, status: str) -> None:
    pending = new_extraction(status="pending", attempts=3, error=GEMINI_UNAVAILABLE)
    setup = Setup(
        answer,
        sessions=FakeSessions(completed_session(pending, duties=PENDING)),
    )

    extracted = setup.rerun()

    assert setup.extraction.status == status
    assert without_events(setup.session.duties) == (PENDING if status == "pending" else PENDING.without("extract"))
    assert len(extracted.extraction.runs) == 1
    assert setup.extraction.runs == extracted.extraction.runs


def test_a_queued_extraction_that_ended_after_a_run_is_in_the_history() -> None:
    earlier_run = extraction_run(NOW + 100)
    from_queue = new_extraction(**SUCCEEDED, extracted_at=NOW + 500, runs=[earlier_run])
    setup = Setup(sessions=FakeSessions(completed_session(from_queue)))

    extracted = setup.rerun()

    assert [each.at for each in extracted.extraction.runs] == [NOW + 1_001, NOW + 500, NOW + 100]
    assert extracted.extraction.runs[1].results == {"city": "Trondheim"}


def test_an_extraction_without_an_end_time_is_dated_by_the_session_s_completion() -> None:
    setup = Setup(sessions=FakeSessions(completed_session(Extraction(status="succeeded", model="old", attempts=1))))

    extracted = setup.rerun()

    assert extracted.extraction.runs[1] == extraction_run(NOW + 85, "Trondheim", agent_version=None, model="old")


@pytest.mark.parametrize("before", [None, Extraction(status="skipped")], ids=["none", "skipped"])
def test_the_history_starts_with_the_new_run_if_there_was_no_extraction(before: Extraction | None) -> None:
    setup = Setup(sessions=FakeSessions(completed_session(before)))

    assert [each.at for each in setup.rerun().extraction.runs] == [NOW + 1_001]


# ---- History --------------------------------------------------------------------------------------------


def test_the_history_has_the_latest_ten_runs_newest_first() -> None:
    setup = Setup()

    for _ in range(12):
        setup.rerun()

    assert [each.at for each in setup.extraction.runs] == [NOW + 1_012 - number for number in range(10)]


def test_ten_failures_in_a_row_fill_the_history_and_keep_the_results() -> None:
    setup = Setup("{}")

    for _ in range(12):
        setup.rerun()

    assert setup.session.results == {"city": "Trondheim"}
    assert [each.at for each in setup.extraction.runs] == [NOW + 1_012 - number for number in range(10)]


def test_the_history_has_at_most_120000_bytes_but_always_the_newest_run() -> None:
    setup = Setup(json.dumps({"city": "x" * 45_000}))

    for number, runs in enumerate([2, 3, 2]):
        extracted = setup.rerun()
        assert len(extracted.extraction.runs) == runs, number
    setup.model = FakeExtractionModel(json.dumps({"city": "é" * 49_000}))
    assert len(setup.rerun().extraction.runs) == 1
    assert setup.extraction.runs[0].results == {"city": "é" * 49_000}


def test_two_concurrent_runs_are_both_in_the_history() -> None:
    setup = Setup(OSLO, BERGEN)

    async def race() -> list[ExtractedResults]:
        return await asyncio.gather(*(setup.rerun_extraction(SESSION_ID, rerun_request(), ACME) for _ in range(2)))

    extracted = asyncio.run(race())

    assert [each.results for each in extracted] == [{"city": "Oslo"}, {"city": "Bergen"}]
    stored = [each.results for each in setup.extraction.runs]
    assert len(stored) == 3
    assert {"city": "Trondheim"} in stored
    assert stored[0] == setup.session.results
    assert all(each.results in stored for each in extracted)


def test_a_run_fails_if_every_write_is_overtaken() -> None:
    class AlwaysOvertaken(FakeSessions):
        async def save_extraction(self, before: Session, *_: Any) -> Session:
            number = before.extraction.attempts if before.extraction else 0
            return completed_session(new_extraction(status="pending", attempts=number + 1))

    with pytest.raises(StorageError):
        Setup(sessions=AlwaysOvertaken(completed_session())).rerun()


def test_a_session_that_is_deleted_during_the_run_is_not_stored_again() -> None:
    sessions = FakeSessions(completed_session())

    class DeletingModel(FakeExtractionModel):
        async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
            del sessions.stored[SESSION_ID]
            return await super().generate(request, seconds)

    setup = Setup(sessions=sessions, model=DeletingModel(OSLO))

    with pytest.raises(SessionNotFound):
        setup.rerun()
    assert sessions.stored == {}


# ---- Errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "fields", "caller", "error"),
    [
        (completed_session(), {}, GLOBEX, SessionNotFound),
        (None, {}, ACME, SessionNotFound),
        (session(), {}, ACME, SessionActive),
        (replace(session(), status="failed"), {}, ACME, SessionNotCompleted),
        (completed_session(), {"output_schema": {"city": 1}}, ACME, InvalidOutputSchema),
        (completed_session(), {"output_schema_strict": {"type": "array"}}, ACME, InvalidOutputSchema),
        (completed_session(), {}, UnknownCaller(), InvalidApiKey),
    ],
)
def test_a_rejected_request_does_not_count_toward_the_rate_limit(
    stored: Session | None, fields: dict[str, JsonValue], caller: Caller, error: type[VoiceError]
) -> None:
    setup = Setup(sessions=FakeSessions(*([stored] if stored else [])))

    with pytest.raises(error):
        setup.rerun(rerun_request(**fields), caller)

    assert (setup.rate_limiter.acquired, setup.model.requests) == ([], [])
    assert setup.sessions.stored == ({SESSION_ID: stored} if stored else {})


def test_an_active_session_must_be_completed_first() -> None:
    with pytest.raises(SessionActive):
        Setup(sessions=FakeSessions(session())).rerun()


@pytest.mark.parametrize("preview", [False, True])
def test_a_workspace_over_its_rate_limit_gets_the_time_to_wait(*, preview: bool) -> None:
    setup = Setup(rate_limiter=FakeRateLimiter(limit=1))
    setup.rerun(rerun_request(preview=preview))
    before = setup.session

    with pytest.raises(RateLimited) as raised:
        setup.rerun(rerun_request(preview=preview))

    assert raised.value.retry_after_seconds == 41.5
    assert setup.session == before
    assert len(setup.model.requests) == 1
