import asyncio
import json
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain.agents import Agent
from pi_voice.domain.errors import GeminiError, GeminiUnavailable, StorageError, UpstreamTimeout
from pi_voice.domain.extractions import ErrorInfo, Evidence, Extraction, ExtractionRun
from pi_voice.domain.ids import AgentId, SessionId, TranscriptId
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.ports import ModelRequest, ModelResponse
from pi_voice.use_cases.extract_results import ExtractionUnfinished, ExtractResults
from pi_voice.use_cases.extractor import Extractor, TokenPrices
from tests.fakes import (
    FakeAgents,
    FakeClock,
    FakeExtractionModel,
    FakeExtractionQueue,
    FakeSessions,
    FakeTranscripts,
    QueueThatCannotPut,
    SessionsThatCannotGet,
    SessionsThatCannotRecord,
    no_pause,
)
from tests.unit.examples import ANSWERED, NOW, SESSION_ID, TURNS, agent, an_extraction, session

TRANSCRIPT_ID = TranscriptId("019a0000-0000-7000-8000-0000000000aa")
CITY = agent(output_schema={"city": "string"})
OSLO = '{"city": "Oslo"}'
BUSY = ErrorInfo(code="gemini_unavailable", message="Gemini cannot be reached or is busy. Try again in a moment.")
OURS = ErrorInfo(
    code="internal_error", message="An unexpected error occurred. Try again; if it persists, report the request_id."
)
CUT_OFF = ModelResponse("", "fake-model-001", "truncated", input_tokens=9)


def completed(status: Any = "pending", attempts: int = 0, **changes: Any) -> Session:
    """Make a completed session whose extraction has come so far."""
    ended = replace(
        session(),
        status="completed",
        transcript_id=TRANSCRIPT_ID,
        turns=2,
        extraction=Extraction(status=status, attempts=attempts),
        due_at=NOW + 120,
    )
    return replace(ended, **changes)


class World:
    """All that results need, and what became of them."""

    def __init__(
        self,
        *answers: str | Exception,
        of: Agent = CITY,
        sessions: FakeSessions | None = None,
        transcripts: FakeTranscripts | None = None,
        queue: FakeExtractionQueue | None = None,
        agents: FakeAgents | None = None,
        model: FakeExtractionModel | None = None,
        price: TokenPrices | None = None,
    ) -> None:
        self.agents = agents or FakeAgents(of)
        self.sessions = sessions or FakeSessions(completed())
        self.transcripts = transcripts or FakeTranscripts()
        self.transcripts.kept.setdefault(TRANSCRIPT_ID, TURNS)
        self.queue = queue or FakeExtractionQueue()
        self.model = model or FakeExtractionModel(*(answers or [OSLO]))
        self.clock = FakeClock(NOW)
        self.price = price

    @property
    def results(self) -> ExtractResults:
        extractor = Extractor(self.model, prices=self.price, clock=self.clock, sleep=no_pause)
        return ExtractResults(self.agents, self.sessions, self.transcripts, extractor, self.queue, self.clock)

    def get(self, turns: list[TranscriptTurn] = TURNS, *, is_room_closed: bool = True) -> Session:
        """Extract while a caller waits and the room is closed."""

        async def closing_room() -> bool:
            return is_room_closed

        async def get() -> Session:
            return await self.results.for_caller(self.session, turns, 20.0, closing_room())

        return asyncio.run(get())

    def retry(self, *, is_last: bool = False) -> None:
        asyncio.run(self.results(SESSION_ID, 60.0, is_last=is_last))

    def race(self, *calls: Awaitable[Any]) -> list[Any]:
        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*calls, return_exceptions=True)

        return asyncio.run(all_of_them())

    @property
    def session(self) -> Session:
        return self.sessions.kept[SESSION_ID]

    @property
    def extraction(self) -> Extraction:
        assert self.session.extraction is not None
        return self.session.extraction


class Meanwhile(FakeExtractionModel):
    """While the model thinks, the session becomes another; None is deleted."""

    def __init__(self, answer: str | Exception, sessions: FakeSessions, becomes: Session | None) -> None:
        super().__init__(answer)
        self._sessions = sessions
        self._becomes = becomes

    async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
        self._sessions.kept = {SESSION_ID: self._becomes} if self._becomes else {}
        return await super().generate(request, seconds)


# ---- While the caller waits -----------------------------------------------------------------------------


def test_results_that_come_at_once_are_kept_and_nothing_is_left_to_do() -> None:
    world = World()

    got = world.get()

    assert got == world.session
    assert got.results == {"city": "Oslo"}
    assert got.extraction == an_extraction(**ANSWERED, extracted_at=NOW)
    assert (got.due_at, world.queue.waiting) == (None, [])
    assert world.model.asked[0].seconds == 20.0


@pytest.mark.parametrize("error", [GeminiUnavailable(), UpstreamTimeout("Gemini did not answer in time.")], ids=repr)
def test_results_of_a_provider_that_is_away_come_later(error: Any) -> None:
    world = World(error)

    got = world.get()

    assert got == world.session
    assert got.extraction == an_extraction(
        status="pending", model="fake-model", attempts=3, error=ErrorInfo(code=error.code, message=error.message)
    )
    assert got.results is None
    assert world.queue.waiting == [SESSION_ID]
    assert got.due_at == NOW + 3_600  # by then the queue has given up, whatever became of it


@pytest.mark.parametrize(
    ("answer", "code"),
    [(GeminiError("Gemini refused the extraction request."), "gemini_error"), (CUT_OFF, "answer_truncated")],
    ids=str,
)
def test_results_that_will_not_come_are_given_up_at_once_with_the_reason(answer: Any, code: str) -> None:
    world = World(answer)

    got = world.get()

    assert got == world.session
    assert world.extraction.status == "failed"
    assert world.extraction.error is not None
    assert world.extraction.error.code == code
    assert (world.extraction.attempts, got.due_at, world.queue.waiting) == (1, None, [])


@pytest.mark.parametrize("status", ["succeeded", "failed", "skipped"])
def test_where_nothing_is_pending_nothing_is_asked(status: Any) -> None:
    world = World(sessions=FakeSessions(completed(status)))

    assert world.get() == world.session == completed(status, due_at=None)
    assert world.model.asked == []


@pytest.mark.parametrize("status", ["pending", "succeeded", "failed", "skipped"])
@pytest.mark.parametrize("answer", [OSLO, "{}", GeminiUnavailable()], ids=["results", "nonsense", "away"])
def test_a_session_whose_room_stayed_open_stays_due_whatever_becomes_of_its_results(status: Any, answer: Any) -> None:
    world = World(answer, sessions=FakeSessions(completed(status)))

    got = world.get(is_room_closed=False)

    assert got == world.session
    assert got.due_at == NOW + 120
    assert world.queue.waiting == []  # the sweeper queues what is pending by then


def test_a_session_that_is_deleted_while_its_room_is_closed_is_not_made_again() -> None:
    sessions = FakeSessions(completed("skipped"))
    world = World(sessions=sessions)
    before = world.session
    sessions.kept.clear()

    async def get() -> Session:
        return await world.results.for_caller(before, [], 20.0, asyncio.sleep(0, result=True))

    assert asyncio.run(get()) == before
    assert sessions.kept == {}


def test_an_agent_without_a_schema_wants_no_results() -> None:
    world = World(of=agent())

    assert world.get().extraction == world.extraction
    assert world.extraction == Extraction(status="skipped", agent_version=1, extracted_at=NOW)
    assert (world.session.due_at, world.queue.waiting) == (None, [])


def test_an_extraction_that_cannot_be_queued_is_left_to_the_sweeper_and_soon() -> None:
    world = World(GeminiUnavailable(), queue=QueueThatCannotPut())

    assert world.get() == world.session
    assert (world.extraction.status, world.extraction.error) == ("pending", BUSY)
    assert world.session.due_at == NOW + 120


def test_results_that_cannot_be_kept_are_answered_all_the_same() -> None:
    world = World(sessions=SessionsThatCannotRecord(completed()))

    got = world.get()

    assert got.results == {"city": "Oslo"}
    assert got.extraction is not None
    assert got.extraction.status == "succeeded"
    assert world.session == completed()  # and due, for the sweeper


def test_results_that_somebody_else_kept_meanwhile_are_the_ones_that_are_answered() -> None:
    theirs = completed("succeeded", 1, results={"city": "Bergen"}, due_at=None)
    sessions = FakeSessions(completed())
    world = World(sessions=sessions, model=Meanwhile(OSLO, sessions, theirs))

    assert world.get() == world.session == theirs


@pytest.mark.parametrize(
    "world",
    [
        World(RuntimeError("the caller said: my card is 4711")),
        World(sessions=FakeSessions(completed(agent_version=7))),
        World(sessions=FakeSessions(completed(agent_id=AgentId("019a0000-0000-7000-8000-00000000000f")))),
    ],
    ids=["a bug", "no version", "no agent"],
)
def test_what_breaks_on_our_side_is_tried_again_later_and_says_no_more_than_that(world: World) -> None:
    got = world.get()

    assert got.extraction == world.extraction == Extraction(status="pending", attempts=1, error=OURS)
    assert world.queue.waiting == [SESSION_ID]


def test_an_agent_that_cannot_be_read_is_read_later() -> None:
    class Unreadable(FakeAgents):
        async def version(self, agent_id: AgentId, version: int) -> Agent:
            await super().version(agent_id, version)
            raise StorageError

    world = World(agents=Unreadable(CITY))

    assert world.get().extraction == Extraction(status="pending", attempts=1, error=OURS)


# ---- From the queue -------------------------------------------------------------------------------------


def test_results_from_the_queue_are_kept_and_the_attempts_of_before_count() -> None:
    world = World(GeminiUnavailable(), OSLO, sessions=FakeSessions(completed(attempts=3)))

    world.retry()

    assert world.session.results == {"city": "Oslo"}
    assert world.extraction == an_extraction(**{**ANSWERED, "attempts": 5}, extracted_at=NOW)
    assert (world.session.due_at, world.queue.waiting) == (NOW + 120, [])  # its room may still be open
    assert world.model.asked[0].seconds == 60.0
    assert TURNS[1]["text"] in world.model.asked[0].text


def test_results_that_are_still_not_there_are_told_to_the_queue_and_in_the_session() -> None:
    world = World(GeminiUnavailable(), sessions=FakeSessions(completed(attempts=3)))

    with pytest.raises(ExtractionUnfinished):
        world.retry()

    assert world.extraction == an_extraction(status="pending", model="fake-model", attempts=6, error=BUSY)
    assert world.session.due_at == NOW + 3_600
    assert world.queue.waiting == []  # the message comes again by itself


def test_the_last_delivery_gives_up_and_the_message_becomes_a_dead_letter() -> None:
    world = World(GeminiUnavailable(), sessions=FakeSessions(completed(attempts=15)))

    with pytest.raises(ExtractionUnfinished):
        world.retry(is_last=True)

    assert world.extraction == an_extraction(
        status="failed", model="fake-model", attempts=18, error=BUSY, extracted_at=NOW
    )
    assert world.session.due_at == NOW + 120


def test_a_dead_letter_that_is_sent_again_gets_its_results() -> None:
    world = World(sessions=FakeSessions(completed("failed", 18, due_at=None)))

    world.retry()

    assert world.extraction == an_extraction(**{**ANSWERED, "attempts": 19}, extracted_at=NOW)
    assert world.session.results == {"city": "Oslo"}


@pytest.mark.parametrize("is_last", [False, True], ids=["first", "last"])
def test_results_that_will_not_come_end_the_message_s_life(*, is_last: bool) -> None:
    world = World(GeminiError("Gemini refused the extraction request."))

    world.retry(is_last=is_last)

    assert world.extraction == an_extraction(
        status="failed",
        model="fake-model",
        attempts=1,
        extracted_at=NOW,
        error=ErrorInfo(code="gemini_error", message="Gemini refused the extraction request."),
    )
    assert world.session.due_at == NOW + 120


def test_a_message_that_comes_twice_changes_nothing_twice() -> None:
    world = World()

    world.retry()
    once = world.session
    world.retry()

    assert world.session == once
    assert len(world.model.asked) == 1


def test_of_two_workers_at_once_one_keeps_its_results_and_the_other_changes_nothing() -> None:
    world = World(OSLO, '{"city": "Bergen"}')

    outcomes = world.race(*(world.results(SESSION_ID, 60.0, is_last=False) for _ in range(2)))

    assert outcomes == [None, None]
    assert world.session.results == {"city": "Oslo"}
    assert world.extraction == an_extraction(**ANSWERED, extracted_at=NOW)


def test_a_worker_whose_results_come_while_the_caller_of_complete_is_still_told_of_a_failure_tries_again() -> None:
    still_pending = completed(attempts=3)
    sessions = FakeSessions(completed())
    world = World(sessions=sessions, model=Meanwhile(OSLO, sessions, still_pending))

    with pytest.raises(ExtractionUnfinished):
        world.retry()  # what complete wrote in between is not overwritten

    assert world.session == still_pending


def test_a_worker_that_fails_while_another_succeeds_is_done() -> None:
    theirs = completed("succeeded", 1, results={"city": "Oslo"}, due_at=None)
    sessions = FakeSessions(completed())
    world = World(sessions=sessions, model=Meanwhile(GeminiUnavailable(), sessions, theirs))

    world.retry()

    assert world.session == theirs


@pytest.mark.parametrize(
    "there",
    [
        None,
        session(),
        replace(session(), status="failed"),
        completed("succeeded", 1),
        completed("skipped"),
        replace(completed(), extraction=None),
    ],
    ids=["gone", "active", "failed", "succeeded", "skipped", "none"],
)
def test_a_message_about_what_wants_no_results_is_dropped(there: Session | None) -> None:
    world = World(sessions=FakeSessions(*([there] if there else [])))

    world.retry()

    assert world.sessions.kept == ({SESSION_ID: there} if there else {})
    assert world.model.asked == []


def test_a_session_that_is_deleted_while_the_model_thinks_is_not_made_again() -> None:
    sessions = FakeSessions(completed())
    world = World(sessions=sessions, model=Meanwhile(OSLO, sessions, None))

    world.retry()

    assert world.sessions.kept == {}


def test_a_transcript_that_is_gone_has_no_results() -> None:
    world = World()
    world.transcripts.kept.clear()

    world.retry()

    assert world.extraction == Extraction(status="skipped", agent_version=1, extracted_at=NOW)
    assert world.model.asked == []


class UnreadableTranscripts(FakeTranscripts):
    async def get(self, transcript_id: TranscriptId) -> list[TranscriptTurn] | None:
        await super().get(transcript_id)
        raise StorageError


@pytest.mark.parametrize("is_last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(
    "world",
    [
        World(sessions=SessionsThatCannotGet(completed())),
        World(sessions=SessionsThatCannotRecord(completed())),
        World(transcripts=UnreadableTranscripts()),
    ],
    ids=["session", "record", "transcript"],
)
def test_a_store_that_fails_is_told_to_the_queue_and_the_session_stays_due(world: World, *, is_last: bool) -> None:
    with pytest.raises(StorageError):
        world.retry(is_last=is_last)

    assert world.session == completed()


def test_a_bug_is_counted_as_an_attempt_and_tried_again() -> None:
    world = World(RuntimeError("a bug"))

    with pytest.raises(ExtractionUnfinished):
        world.retry()
    assert world.extraction == Extraction(status="pending", attempts=1, error=OURS)

    with pytest.raises(ExtractionUnfinished):
        world.retry(is_last=True)
    assert world.extraction == Extraction(status="failed", attempts=2, error=OURS, extracted_at=NOW)


# ---- What it took ---------------------------------------------------------------------------------------


def test_what_every_attempt_took_is_added_up() -> None:
    before = an_extraction(
        status="pending", attempts=3, milliseconds=700, input_tokens=50, output_tokens=5, cost_usd=0.5, error=BUSY
    )
    model = FakeExtractionModel(ModelResponse(OSLO, "fake-model-001", input_tokens=100, output_tokens=10))
    world = World(sessions=FakeSessions(completed(extraction=before)), model=model, price=TokenPrices(10_000, 100_000))

    world.retry()

    spent = world.extraction
    assert (spent.status, spent.error, spent.attempts) == ("succeeded", None, 4)
    assert (spent.milliseconds, spent.input_tokens, spent.output_tokens) == (700, 150, 15)
    assert spent.cost_usd == 2.5


@pytest.mark.parametrize(("before", "in_all"), [(None, None), (0.25, 0.25)])
def test_an_attempt_without_a_price_adds_nothing(before: float | None, in_all: float | None) -> None:
    known = an_extraction(status="pending", attempts=3, cost_usd=before)
    world = World(sessions=FakeSessions(completed(extraction=known)))

    world.retry()

    assert world.extraction.cost_usd == in_all


def test_runs_that_were_made_by_hand_meanwhile_stay_in_the_history() -> None:
    by_hand = ExtractionRun(at=NOW - 60, status="failed", agent_version=1, model="fake-model", results=None, error=BUSY)
    known = an_extraction(status="pending", attempts=3, runs=[by_hand])
    world = World(sessions=FakeSessions(completed(extraction=known)))

    world.retry()

    assert (world.extraction.status, world.extraction.runs) == ("succeeded", [by_hand])


def test_an_agent_s_wish_for_evidence_is_heeded() -> None:
    claim = {"path": "city", "status": "found", "turn": 1, "quote": "oslo"}
    world = World(
        json.dumps({"results": {"city": "Oslo"}, "evidence": [claim]}),
        of=agent(output_schema={"city": "string"}, evidence=True),
    )

    assert world.get().results == {"city": "Oslo"}
    assert world.extraction.fields == {"city": Evidence(status="found", turn=1, quote="oslo")}


def test_how_long_the_call_lasted_is_told_of_the_transcript() -> None:
    world = World(sessions=FakeSessions(completed(duration_seconds=20)))
    turns: list[TranscriptTurn] = [{**turn, "end_ms": 10_000} for turn in TURNS]

    world.get(turns)

    assert world.extraction.transcript is not None
    assert world.extraction.transcript.coverage == 0.5


def test_a_session_id_that_is_none_is_dropped() -> None:
    world = World()

    asyncio.run(world.results(SessionId("no-id"), 60.0, is_last=False))

    assert world.session == completed()
