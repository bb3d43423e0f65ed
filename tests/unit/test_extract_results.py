import asyncio
import json
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.deadline import answer_within
from pi_voice.domain.agents import Agent
from pi_voice.domain.duties import Duties, Duty
from pi_voice.domain.errors import (
    GeminiError,
    GeminiMisconfigured,
    GeminiUnavailable,
    Misconfiguration,
    StorageError,
    UpstreamTimeout,
)
from pi_voice.domain.extractions import ErrorInfo, Evidence, Extraction, ExtractionRun
from pi_voice.domain.ids import AgentId, SessionId, TranscriptId
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.ports import ModelRequest, ModelResponse, SessionQueues
from pi_voice.use_cases.call_content import CallContent
from pi_voice.use_cases.extract_results import ExtractionUnfinished, ExtractResults
from pi_voice.use_cases.extractor import Extractor, TokenPrices
from tests.support.fakes import (
    FakeAgents,
    FakeClock,
    FakeExtractionModel,
    FakeSessionQueue,
    FakeSessions,
    FakeToolCalls,
    FakeTranscripts,
    QueueThatCannotPut,
    SessionsThatCannotGet,
    SessionsThatCannotSaveExtraction,
    no_pause,
)
from tests.unit.examples import (
    CLOSED,
    GEMINI_UNAVAILABLE,
    INTERNAL_ERROR,
    NOW,
    SESSION_ID,
    SUCCEEDED,
    TURNS,
    agent,
    new_extraction,
    session,
    without_events,
)

TRANSCRIPT_ID = TranscriptId("019a0000-0000-7000-8000-0000000000aa")
CITY = agent(output_schema={"city": "string"})
OSLO = '{"city": "Oslo"}'
TRUNCATED = ModelResponse("", "fake-model-001", "truncated", input_tokens=9)
BROKEN = ModelResponse("", "fake-model-001", "broken")
CAUSES: list[Misconfiguration] = ["key", "permission", "model"]


def completed(status: Any = "pending", attempts: int = 0, **changes: Any) -> Session:
    """Return a completed session with an extraction of this status."""
    completed_session = replace(
        session(),
        status="completed",
        transcript_id=TRANSCRIPT_ID,
        turns=2,
        extraction=Extraction(status=status, attempts=attempts),
        duties=Duties().plus(close_room=NOW + 120, extract=NOW + 120),
    )
    return replace(completed_session, **changes)


class Setup:
    """An ExtractResults on fakes."""

    def __init__(
        self,
        *answers: str | Exception,
        with_agent: Agent = CITY,
        sessions: FakeSessions | None = None,
        transcripts: FakeTranscripts | None = None,
        queue: FakeSessionQueue | None = None,
        agents: FakeAgents | None = None,
        model: FakeExtractionModel | None = None,
        prices: TokenPrices | None = None,
    ) -> None:
        self.agents = agents or FakeAgents(with_agent)
        self.sessions = sessions or FakeSessions(completed())
        self.transcripts = transcripts or FakeTranscripts()
        self.transcripts.stored.setdefault((SESSION_ID, TRANSCRIPT_ID), TURNS)
        self.queue = queue or FakeSessionQueue()
        self.event_queue = FakeSessionQueue()
        self.model = model or FakeExtractionModel(*(answers or [OSLO]))
        self.clock = FakeClock(NOW)
        self.prices = prices

    @property
    def extract_results(self) -> ExtractResults:
        extractor = Extractor(self.model, prices=self.prices, clock=self.clock, sleep=no_pause)
        return ExtractResults(
            self.agents,
            self.sessions,
            CallContent(self.transcripts, FakeToolCalls()),
            extractor,
            SessionQueues(self.queue, self.event_queue),
            self.clock,
        )

    def extract_for_caller(
        self, turns: list[TranscriptTurn] = TURNS, *, is_room_closed: bool = True, seconds_left: float = 28.0
    ) -> Session:
        """Extract while a caller waits and the room is closed."""

        async def closing_room() -> bool:
            return is_room_closed

        async def extract() -> Session:
            with answer_within(seconds_left):
                current, _ = await self.extract_results.for_caller(self.session, turns, closing_room())
                return current

        return asyncio.run(extract())

    def extract_from_queue(self, *, is_last: bool = False) -> None:
        """Extract as the queue's function does."""
        asyncio.run(self.extract_results(SESSION_ID, 60.0, is_last=is_last))

    def race(self, *calls: Awaitable[Any]) -> list[Any]:
        """Run calls concurrently, and return their results and exceptions."""

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*calls, return_exceptions=True)

        return asyncio.run(all_of_them())

    @property
    def session(self) -> Session:
        return self.sessions.stored[SESSION_ID]

    @property
    def extraction(self) -> Extraction:
        assert self.session.extraction is not None
        return self.session.extraction


def counted(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """Return the metrics that were written, each with its cause."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    return [(line["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Name"], line["cause"]) for line in lines]


class ModelWithConcurrentWrite(FakeExtractionModel):
    """While the model answers, another request replaces the session, or deletes it if the new one is None."""

    def __init__(self, answer: str | Exception, sessions: FakeSessions, replacement: Session | None) -> None:
        super().__init__(answer)
        self._sessions = sessions
        self._replacement = replacement

    async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
        self._sessions.stored = {SESSION_ID: self._replacement} if self._replacement else {}
        return await super().generate(request, seconds)


# ---- For a waiting caller -------------------------------------------------------------------------------


def test_results_are_stored_and_the_room_is_to_be_closed_once_more() -> None:
    setup = Setup()

    returned = setup.extract_for_caller()

    assert returned == setup.session
    assert returned.results == {"city": "Oslo"}
    assert returned.extraction == new_extraction(**SUCCEEDED, extracted_at=NOW)
    assert (without_events(returned.duties), setup.queue.session_ids) == (CLOSED, [])
    assert setup.model.requests[0].seconds == 20.0


@pytest.mark.parametrize("error", [GeminiUnavailable(), UpstreamTimeout("Too slow.")], ids=repr)
def test_if_the_provider_is_unavailable_the_extraction_is_queued(error: Any) -> None:
    setup = Setup(error)

    returned = setup.extract_for_caller()

    assert returned == setup.session
    assert returned.extraction == new_extraction(
        status="pending", model="fake-model", attempts=3, error=ErrorInfo(code=error.code, message=error.message)
    )
    assert returned.results is None
    assert setup.queue.session_ids == [SESSION_ID]
    assert returned.duties == CLOSED.plus(extract=NOW + 3_600)  # longer than the queue retries


def test_a_broken_answer_is_asked_for_again_and_then_queued() -> None:
    setup = Setup(model=FakeExtractionModel(BROKEN))

    returned = setup.extract_for_caller()

    assert (setup.extraction.status, setup.extraction.attempts) == ("pending", 3)
    assert setup.extraction.error is not None
    assert setup.extraction.error.code == "answer_invalid"
    assert (setup.queue.session_ids, returned.duties) == ([SESSION_ID], CLOSED.plus(extract=NOW + 3_600))


@pytest.mark.parametrize("cause", CAUSES)
def test_an_extraction_that_gemini_refuses_for_the_deployment_stays_pending(
    cause: Misconfiguration, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = Setup(GeminiMisconfigured(cause))

    setup.extract_for_caller()

    assert (setup.extraction.status, setup.extraction.attempts) == ("pending", 1)
    assert setup.extraction.error == ErrorInfo(code="gemini_error", message=GeminiError.default_message)
    assert setup.queue.session_ids == [SESSION_ID]
    assert counted(capsys) == [("ExtractionsMisconfigured", cause)]


def test_without_time_left_the_model_is_not_asked_and_the_extraction_queued() -> None:
    setup = Setup()

    returned = setup.extract_for_caller(seconds_left=6.0)

    assert setup.model.requests == []
    assert (setup.extraction.status, setup.extraction.attempts) == ("pending", 0)
    assert (setup.queue.session_ids, returned.duties) == ([SESSION_ID], CLOSED.plus(extract=NOW + 3_600))


def test_in_a_slow_request_the_model_gets_what_is_left_without_a_reserve() -> None:
    setup = Setup()

    setup.extract_for_caller(seconds_left=16.0)

    assert 0 < setup.model.requests[0].seconds <= 10


@pytest.mark.parametrize(
    ("answer", "code"),
    [(GeminiError("Gemini refused the extraction request."), "gemini_error"), (TRUNCATED, "answer_truncated")],
    ids=str,
)
def test_an_extraction_that_cannot_succeed_fails_at_once_with_the_reason(answer: Any, code: str) -> None:
    setup = Setup(answer)

    returned = setup.extract_for_caller()

    assert returned == setup.session
    assert setup.extraction.status == "failed"
    assert setup.extraction.error is not None
    assert setup.extraction.error.code == code
    assert (setup.extraction.attempts, without_events(returned.duties), setup.queue.session_ids) == (1, CLOSED, [])


@pytest.mark.parametrize("status", ["succeeded", "failed", "skipped"])
def test_if_the_extraction_is_not_pending_the_model_is_not_asked(status: Any) -> None:
    closing = Duties().plus(close_room=NOW + 120)
    setup = Setup(sessions=FakeSessions(completed(status, duties=closing)))

    assert setup.extract_for_caller() == setup.session == completed(status, duties=CLOSED)
    assert setup.model.requests == []


@pytest.mark.parametrize("status", ["pending", "succeeded", "failed", "skipped"])
@pytest.mark.parametrize("answer", [OSLO, "{}", GeminiUnavailable()], ids=["results", "invalid", "unavailable"])
def test_a_room_that_is_not_closed_stays_a_duty(status: Any, answer: Any) -> None:
    setup = Setup(answer, sessions=FakeSessions(completed(status)))

    returned = setup.extract_for_caller(is_room_closed=False)

    assert returned == setup.session
    assert returned.duties.get("close_room") == Duty(NOW + 120)


def test_a_session_deleted_while_its_room_is_closed_is_not_stored_again() -> None:
    sessions = FakeSessions(completed("skipped"))
    setup = Setup(sessions=sessions)
    before = setup.session
    sessions.stored.clear()

    async def extract() -> Session:
        current, _ = await setup.extract_results.for_caller(before, [], asyncio.sleep(0, result=True))
        return current

    assert asyncio.run(extract()) == before
    assert sessions.stored == {}


def test_without_an_output_schema_the_extraction_is_skipped() -> None:
    setup = Setup(with_agent=agent())

    assert setup.extract_for_caller().extraction == setup.extraction
    assert setup.extraction == Extraction(status="skipped", agent_version=1, extracted_at=NOW)
    assert (setup.session.duties, setup.queue.session_ids) == (CLOSED, [])


def test_an_extraction_that_cannot_be_queued_stays_due_for_the_sweeper() -> None:
    setup = Setup(GeminiUnavailable(), queue=QueueThatCannotPut())

    assert setup.extract_for_caller() == setup.session
    assert (setup.extraction.status, setup.extraction.error) == ("pending", GEMINI_UNAVAILABLE)
    assert setup.session.duties.due_at == NOW + 120


def test_results_that_cannot_be_stored_are_returned() -> None:
    setup = Setup(sessions=SessionsThatCannotSaveExtraction(completed()))

    returned = setup.extract_for_caller()

    assert returned.results == {"city": "Oslo"}
    assert returned.extraction is not None
    assert returned.extraction.status == "succeeded"
    assert setup.session == completed()  # still due, for the sweeper


def test_results_stored_by_a_concurrent_request_are_returned() -> None:
    stored_by_other = completed("succeeded", 1, results={"city": "Bergen"}, duties=Duties())
    sessions = FakeSessions(completed())
    setup = Setup(sessions=sessions, model=ModelWithConcurrentWrite(OSLO, sessions, stored_by_other))

    assert setup.extract_for_caller() == setup.session == stored_by_other


@pytest.mark.parametrize(
    "setup",
    [
        Setup(RuntimeError("the caller said: my card is 4711")),
        Setup(sessions=FakeSessions(completed(agent_version=7))),
        Setup(sessions=FakeSessions(completed(agent_id=AgentId("019a0000-0000-7000-8000-00000000000f")))),
    ],
    ids=["a bug", "no version", "no agent"],
)
def test_an_unexpected_error_is_retried_later_and_reported_as_an_internal_error(setup: Setup) -> None:
    returned = setup.extract_for_caller()

    assert returned.extraction == setup.extraction == Extraction(status="pending", attempts=1, error=INTERNAL_ERROR)
    assert setup.queue.session_ids == [SESSION_ID]


def test_if_the_agent_cannot_be_read_the_extraction_stays_pending() -> None:
    class UnreadableAgents(FakeAgents):
        async def version(self, agent_id: AgentId, version: int) -> Agent:
            await super().version(agent_id, version)
            raise StorageError

    setup = Setup(agents=UnreadableAgents(CITY))

    assert setup.extract_for_caller().extraction == Extraction(status="pending", attempts=1, error=INTERNAL_ERROR)


# ---- From the queue -------------------------------------------------------------------------------------


def test_results_from_the_queue_are_stored_and_attempts_are_added_up() -> None:
    setup = Setup(GeminiUnavailable(), OSLO, sessions=FakeSessions(completed(attempts=3)))

    setup.extract_from_queue()

    assert setup.session.results == {"city": "Oslo"}
    assert setup.extraction == new_extraction(**{**SUCCEEDED, "attempts": 5}, extracted_at=NOW)
    assert without_events(setup.session.duties) == Duties().plus(close_room=NOW + 120)
    assert setup.queue.session_ids == []
    assert setup.model.requests[0].seconds == 60.0
    assert TURNS[1]["text"] in setup.model.requests[0].text


def test_if_the_provider_is_still_unavailable_the_message_is_retried_and_the_extraction_pending() -> None:
    setup = Setup(GeminiUnavailable(), sessions=FakeSessions(completed(attempts=3)))

    with pytest.raises(ExtractionUnfinished):
        setup.extract_from_queue()

    assert setup.extraction == new_extraction(
        status="pending", model="fake-model", attempts=6, error=GEMINI_UNAVAILABLE
    )
    assert setup.session.duties.get("extract") == Duty(NOW + 3_600)
    assert setup.queue.session_ids == []  # the queue delivers the message again


def test_after_the_last_delivery_the_extraction_is_failed_and_the_message_a_dead_letter() -> None:
    setup = Setup(GeminiUnavailable(), sessions=FakeSessions(completed(attempts=15)))

    with pytest.raises(ExtractionUnfinished):
        setup.extract_from_queue(is_last=True)

    assert setup.extraction == new_extraction(
        status="failed", model="fake-model", attempts=18, error=GEMINI_UNAVAILABLE, extracted_at=NOW
    )
    assert without_events(setup.session.duties).due_at == NOW + 120


def test_after_the_last_delivery_a_misconfigured_extraction_still_waits_for_the_operator() -> None:
    setup = Setup(GeminiMisconfigured("key"))

    with pytest.raises(ExtractionUnfinished):
        setup.extract_from_queue(is_last=True)

    assert setup.extraction.status == "pending"
    assert setup.session.duties.get("extract") == Duty(NOW + 172_800)


def test_a_redriven_dead_letter_gets_its_results() -> None:
    setup = Setup(sessions=FakeSessions(completed("failed", 18, duties=Duties())))

    setup.extract_from_queue()

    assert setup.extraction == new_extraction(**{**SUCCEEDED, "attempts": 19}, extracted_at=NOW)
    assert setup.session.results == {"city": "Oslo"}


@pytest.mark.parametrize("is_last", [False, True], ids=["first", "last"])
def test_an_extraction_that_cannot_succeed_is_not_retried(*, is_last: bool) -> None:
    setup = Setup(GeminiError("Gemini refused the extraction request."))

    setup.extract_from_queue(is_last=is_last)

    assert setup.extraction == new_extraction(
        status="failed",
        model="fake-model",
        attempts=1,
        extracted_at=NOW,
        error=ErrorInfo(code="gemini_error", message="Gemini refused the extraction request."),
    )
    assert without_events(setup.session.duties).due_at == NOW + 120


def test_a_message_delivered_twice_is_processed_once() -> None:
    setup = Setup()

    setup.extract_from_queue()
    processed = setup.session
    setup.extract_from_queue()

    assert setup.session == processed
    assert len(setup.model.requests) == 1


def test_of_two_concurrent_deliveries_only_one_stores_its_results() -> None:
    setup = Setup(OSLO, '{"city": "Bergen"}')

    outcomes = setup.race(*(setup.extract_results(SESSION_ID, 60.0, is_last=False) for _ in range(2)))

    assert outcomes == [None, None]
    assert setup.session.results == {"city": "Oslo"}
    assert setup.extraction == new_extraction(**SUCCEEDED, extracted_at=NOW)


def test_a_delivery_that_loses_the_race_to_a_pending_extraction_is_retried() -> None:
    still_pending = completed(attempts=3)
    sessions = FakeSessions(completed())
    setup = Setup(sessions=sessions, model=ModelWithConcurrentWrite(OSLO, sessions, still_pending))

    with pytest.raises(ExtractionUnfinished):
        setup.extract_from_queue()  # the concurrent write is not overwritten

    assert setup.session == still_pending


def test_a_delivery_that_fails_while_another_one_succeeds_is_not_retried() -> None:
    stored_by_other = completed("succeeded", 1, results={"city": "Oslo"}, duties=Duties())
    sessions = FakeSessions(completed())
    setup = Setup(sessions=sessions, model=ModelWithConcurrentWrite(GeminiUnavailable(), sessions, stored_by_other))

    setup.extract_from_queue()

    assert setup.session == stored_by_other


@pytest.mark.parametrize(
    "stored",
    [
        None,
        session(),
        replace(session(), status="failed"),
        completed("succeeded", 1),
        completed("skipped"),
        replace(completed(), extraction=None),
    ],
    ids=["deleted", "active", "failed", "succeeded", "skipped", "none"],
)
def test_a_message_for_a_session_without_an_open_extraction_is_dropped(stored: Session | None) -> None:
    setup = Setup(sessions=FakeSessions(*([stored] if stored else [])))

    setup.extract_from_queue()

    assert setup.sessions.stored == ({SESSION_ID: stored} if stored else {})
    assert setup.model.requests == []


def test_a_session_deleted_while_the_model_answers_is_not_stored_again() -> None:
    sessions = FakeSessions(completed())
    setup = Setup(sessions=sessions, model=ModelWithConcurrentWrite(OSLO, sessions, None))

    setup.extract_from_queue()

    assert setup.sessions.stored == {}


def test_without_a_stored_transcript_the_extraction_is_skipped() -> None:
    setup = Setup()
    setup.transcripts.stored.clear()

    setup.extract_from_queue()

    assert setup.extraction == Extraction(status="skipped", agent_version=1, extracted_at=NOW)
    assert setup.model.requests == []


class UnreadableTranscripts(FakeTranscripts):
    async def get(self, session_id: SessionId, transcript_id: TranscriptId) -> list[TranscriptTurn] | None:
        await super().get(session_id, transcript_id)
        raise StorageError


@pytest.mark.parametrize("is_last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(
    "setup",
    [
        Setup(sessions=SessionsThatCannotGet(completed())),
        Setup(sessions=SessionsThatCannotSaveExtraction(completed())),
        Setup(transcripts=UnreadableTranscripts()),
    ],
    ids=["read session", "save extraction", "read transcript"],
)
def test_after_a_storage_error_the_message_is_retried_and_the_session_stays_due(setup: Setup, *, is_last: bool) -> None:
    with pytest.raises(StorageError):
        setup.extract_from_queue(is_last=is_last)

    assert setup.session == completed()


def test_an_unexpected_error_counts_as_an_attempt_and_is_retried() -> None:
    setup = Setup(RuntimeError("a bug"))

    with pytest.raises(ExtractionUnfinished):
        setup.extract_from_queue()
    assert setup.extraction == Extraction(status="pending", attempts=1, error=INTERNAL_ERROR)

    with pytest.raises(ExtractionUnfinished):
        setup.extract_from_queue(is_last=True)
    assert setup.extraction == Extraction(status="failed", attempts=2, error=INTERNAL_ERROR, extracted_at=NOW)


# ---- Cost and details -----------------------------------------------------------------------------------


def test_the_cost_of_all_attempts_is_added_up() -> None:
    before = new_extraction(
        status="pending",
        attempts=3,
        milliseconds=700,
        input_tokens=50,
        output_tokens=5,
        cost_usd=0.5,
        error=GEMINI_UNAVAILABLE,
    )
    model = FakeExtractionModel(ModelResponse(OSLO, "fake-model-001", input_tokens=100, output_tokens=10))
    setup = Setup(sessions=FakeSessions(completed(extraction=before)), model=model, prices=TokenPrices(10_000, 100_000))

    setup.extract_from_queue()

    extraction = setup.extraction
    assert (extraction.status, extraction.error, extraction.attempts) == ("succeeded", None, 4)
    assert (extraction.milliseconds, extraction.input_tokens, extraction.output_tokens) == (700, 150, 15)
    assert extraction.cost_usd == 2.5


@pytest.mark.parametrize(("before", "total"), [(None, None), (0.25, 0.25)])
def test_an_attempt_without_a_price_does_not_change_the_cost(before: float | None, total: float | None) -> None:
    pending = new_extraction(status="pending", attempts=3, cost_usd=before)
    setup = Setup(sessions=FakeSessions(completed(extraction=pending)))

    setup.extract_from_queue()

    assert setup.extraction.cost_usd == total


def test_runs_of_a_rerun_extraction_stay_in_the_history() -> None:
    rerun = ExtractionRun(
        at=NOW - 60, status="failed", agent_version=1, model="fake-model", results=None, error=GEMINI_UNAVAILABLE
    )
    pending = new_extraction(status="pending", attempts=3, runs=[rerun])
    setup = Setup(sessions=FakeSessions(completed(extraction=pending)))

    setup.extract_from_queue()

    assert (setup.extraction.status, setup.extraction.runs) == ("succeeded", [rerun])


def test_an_agent_with_evidence_gets_evidence() -> None:
    claim = {"path": "city", "status": "found", "turn": 1, "quote": "oslo"}
    setup = Setup(
        json.dumps({"results": {"city": "Oslo"}, "evidence": [claim]}),
        with_agent=agent(output_schema={"city": "string"}, evidence=True),
    )

    assert setup.extract_for_caller().results == {"city": "Oslo"}
    assert setup.extraction.fields == {"city": Evidence(status="found", turn=1, role="user", quote="oslo")}


def test_the_duration_of_the_call_gives_the_coverage_of_the_transcript() -> None:
    setup = Setup(sessions=FakeSessions(completed(duration_seconds=20)))
    turns: list[TranscriptTurn] = [{**turn, "end_ms": 10_000} for turn in TURNS]

    setup.extract_for_caller(turns)

    assert setup.extraction.transcript is not None
    assert setup.extraction.transcript.coverage == 0.5


def test_a_message_with_an_invalid_session_id_is_dropped() -> None:
    setup = Setup()

    asyncio.run(setup.extract_results(SessionId("no-id"), 60.0, is_last=False))

    assert setup.session == completed()


# ---- Events ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "is_last", "types"),
    [
        (OSLO, False, ["extraction.succeeded"]),
        (GeminiUnavailable(), True, ["extraction.failed"]),
        (GeminiError(), False, ["extraction.failed"]),
    ],
)
def test_an_extraction_that_ended_in_the_queue_is_queued_for_its_event(
    answer: str | Exception, types: list[str], *, is_last: bool
) -> None:
    setup = Setup(answer)

    with suppress(ExtractionUnfinished):
        setup.extract_from_queue(is_last=is_last)

    assert [event.type for event in setup.session.owed_events] == types
    assert (setup.event_queue.session_ids, setup.event_queue.pauses) == ([SESSION_ID], [0])


def test_an_extraction_that_is_retried_sends_no_event() -> None:
    setup = Setup(GeminiUnavailable())

    with pytest.raises(ExtractionUnfinished):
        setup.extract_from_queue()

    assert (setup.session.owed_events, setup.event_queue.session_ids) == ((), [])
