import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain import session_api
from pi_voice.domain.agents import Agent
from pi_voice.domain.duties import Duties, Duty
from pi_voice.domain.errors import (
    AlreadyProcessed,
    GeminiError,
    GeminiUnavailable,
    InvalidApiKey,
    LiveKitUnavailable,
    RateLimited,
    SessionNotActive,
    SessionNotFound,
    StorageError,
    TranscriptTooLarge,
)
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcript_api import CompleteSessionRequest, SaveTranscriptRequest
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.ports import ModelRequest, ModelResponse, Rooms, SessionCaller, SessionQueues
from pi_voice.use_cases.call_content import CallContent
from pi_voice.use_cases.complete_session import CompleteSession
from pi_voice.use_cases.end_session import EndSession
from pi_voice.use_cases.extract_results import ExtractResults
from pi_voice.use_cases.extractor import Extractor
from pi_voice.use_cases.save_transcript import SaveTranscript
from tests.support.fakes import (
    CheckpointsThatCannotRead,
    FailingRooms,
    FakeAgents,
    FakeCaller,
    FakeCheckpoints,
    FakeClient,
    FakeClock,
    FakeExtractionModel,
    FakeRateLimiter,
    FakeRooms,
    FakeSessionQueue,
    FakeSessions,
    FakeToolCalls,
    FakeTranscripts,
    QueueThatCannotPut,
    RateLimiterThatFails,
    SessionsThatCannotComplete,
    SessionsThatCannotSaveExtraction,
    SessionsThatCannotSetDuties,
    TranscriptsThatCannotExpire,
    TranscriptsThatCannotPut,
    UnknownCaller,
    no_pause,
)
from tests.unit.examples import (
    AGENT_ID,
    CLOSED,
    GEMINI_UNAVAILABLE,
    INTERNAL_ERROR,
    NOW,
    SESSION_ID,
    SUCCEEDED,
    TURNS,
    agent,
    complete_session_request,
    new_extraction,
    session,
    without_events,
)

ACME = FakeCaller("acme")
CITY = agent(output_schema={"city": "string"})
WITHOUT_TRANSCRIPT = CompleteSessionRequest()


class Setup:
    """A CompleteSession on fakes."""

    def __init__(
        self,
        *,
        with_agent: Agent = CITY,
        sessions: FakeSessions | None = None,
        transcripts: FakeTranscripts | None = None,
        checkpoints: FakeCheckpoints | None = None,
        model: FakeExtractionModel | None = None,
        queue: FakeSessionQueue | None = None,
        event_queue: FakeSessionQueue | None = None,
        rooms: FakeRooms | None = None,
        rate_limiter: FakeRateLimiter | None = None,
    ) -> None:
        self.agents = FakeAgents(with_agent)
        self.sessions = sessions or FakeSessions(session())
        self.transcripts = transcripts or FakeTranscripts()
        self.checkpoints = checkpoints or FakeCheckpoints(self.sessions)
        self.tool_calls = FakeToolCalls(self.sessions)
        self.model = model or FakeExtractionModel('{"city": "Oslo"}')
        self.queue = queue or FakeSessionQueue()
        self.event_queue = event_queue or FakeSessionQueue()
        self.rooms = rooms or FakeRooms()
        self.rate_limiter = rate_limiter or FakeRateLimiter()
        self.clock = FakeClock(NOW + 90)

    @property
    def queues(self) -> SessionQueues:
        return SessionQueues(self.queue, self.event_queue)

    @property
    def end_session(self) -> EndSession:
        return EndSession(self.sessions, self.transcripts, self.checkpoints, self.clock)

    @property
    def content(self) -> CallContent:
        return CallContent(self.transcripts, self.tool_calls)

    @property
    def complete_session(self) -> CompleteSession:
        extractor = Extractor(self.model, clock=self.clock, sleep=no_pause)
        extract_results = ExtractResults(self.agents, self.sessions, self.content, extractor, self.queues, self.clock)
        return CompleteSession(
            self.sessions, self.end_session, extract_results, lambda: self.rooms, self.rate_limiter, self.event_queue
        )

    def complete(
        self, request: CompleteSessionRequest | None = None, caller: SessionCaller = ACME
    ) -> session_api.Session:
        return asyncio.run(self.complete_session(SESSION_ID, request or complete_session_request(), caller))

    async def save(self, at: int, *turns: TranscriptTurn) -> int:
        """Save turns during the call, and return how many are saved."""
        save_transcript = SaveTranscript(self.sessions, self.checkpoints)
        request = SaveTranscriptRequest.model_validate({"from": at, "turns": list(turns)})
        return (await save_transcript(SESSION_ID, request, ACME)).next

    def race(self, *calls: Awaitable[Any]) -> list[Any]:
        """Run calls concurrently, and return their results and exceptions."""

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*calls, return_exceptions=True)

        return asyncio.run(all_of_them())

    @property
    def session(self) -> Session:
        """The stored session."""
        return self.sessions.stored[SESSION_ID]

    @property
    def transcript(self) -> list[TranscriptTurn]:
        """The transcript of the session. All other stored transcripts must expire."""
        assert self.session.transcript_id is not None
        key = (SESSION_ID, self.session.transcript_id)
        assert self.transcripts.expiring == self.transcripts.stored.keys() - {key}
        return self.transcripts.stored.get(key, [])


class ObservingModel(FakeExtractionModel):
    """Records what is stored when the model is asked."""

    def __init__(self, sessions: FakeSessions, transcripts: FakeTranscripts) -> None:
        super().__init__('{"city": "Oslo"}')
        self._sessions = sessions
        self._transcripts = transcripts
        self.seen: list[tuple[str, str, list[Any]]] = []

    async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
        stored = self._sessions.stored[SESSION_ID]
        assert stored.extraction is not None
        assert stored.transcript_id is not None
        turns = self._transcripts.stored[SESSION_ID, stored.transcript_id]
        self.seen.append((stored.status, stored.extraction.status, turns))
        return await super().generate(request, seconds)


# ---- Success --------------------------------------------------------------------------------------------


def test_a_session_s_own_client_can_complete_it() -> None:
    assert Setup().complete(caller=FakeClient(SESSION_ID)).results == {"city": "Oslo"}


def test_an_active_session_is_completed_with_its_transcript_and_results() -> None:
    setup = Setup()

    completed = setup.complete(complete_session_request(duration_seconds=85.5, end_reason="hang_up"))

    assert (completed.session_id, completed.status) == (SESSION_ID, "completed")
    assert (completed.completed_at, completed.completed_by) == (1_800_000_090, "client")
    assert (completed.duration_seconds, completed.end_reason) == (85.5, "hang_up")
    assert completed.transcript == TURNS
    assert completed.results == {"city": "Oslo"}
    assert completed.extraction == new_extraction(**SUCCEEDED, extracted_at=NOW + 90)


def test_the_response_is_what_is_stored() -> None:
    setup = Setup()

    completed = setup.complete()

    assert setup.session.status == "completed"
    assert setup.session.results == completed.results
    assert setup.session.extraction == completed.extraction
    assert setup.session.transcript_id is not None
    assert setup.transcripts.stored == {(SESSION_ID, setup.session.transcript_id): TURNS}
    assert setup.transcripts.expiring == set()


def test_session_and_transcript_are_stored_before_the_model_is_asked() -> None:
    sessions, transcripts = FakeSessions(session()), FakeTranscripts()
    model = ObservingModel(sessions, transcripts)

    Setup(sessions=sessions, transcripts=transcripts, model=model).complete()

    assert model.seen == [("completed", "pending", TURNS)]


def test_a_session_can_be_completed_after_it_has_expired() -> None:
    setup = Setup()
    setup.clock.now = NOW + 100_000

    assert setup.complete().completed_at == 1_800_100_000


def test_without_an_output_schema_the_model_is_not_asked() -> None:
    setup = Setup(with_agent=agent())

    completed = setup.complete()

    assert (completed.status, completed.results, completed.transcript) == ("completed", None, TURNS)
    assert completed.extraction == setup.session.extraction
    assert completed.extraction == Extraction(status="skipped", agent_version=1, extracted_at=NOW + 90)
    assert setup.model.requests == []


def test_with_an_empty_transcript_the_model_is_not_asked() -> None:
    setup = Setup()

    completed = setup.complete(complete_session_request(transcript=[]))

    assert (completed.status, completed.results, completed.transcript) == ("completed", None, [])
    assert completed.extraction == setup.session.extraction == Extraction(status="skipped")
    assert setup.model.requests == []
    assert setup.transcripts.stored == {}


def test_with_an_empty_transcript_the_agent_is_not_read() -> None:
    setup = Setup(sessions=FakeSessions(session(agent_version=7)))  # there is no version 7

    assert setup.complete(complete_session_request(transcript=[])).extraction == Extraction(status="skipped")


def test_results_follow_the_agent_version_of_the_session() -> None:
    setup = Setup(with_agent=CITY)
    edited = agent(version=2, output_schema={"mood": "string"})
    assert asyncio.run(setup.agents.save(asyncio.run(ACME.workspace()), edited))

    completed = setup.complete()

    assert completed.results == {"city": "Oslo"}
    assert setup.model.requests[0].schema["required"] == ["city"]


def test_results_are_extracted_after_the_agent_was_deleted() -> None:
    setup = Setup(with_agent=CITY)
    asyncio.run(setup.agents.delete(asyncio.run(ACME.workspace()), AGENT_ID))
    assert setup.agents.heads == {}

    assert setup.complete().results == {"city": "Oslo"}


# ---- Checkpoints ----------------------------------------------------------------------------------------


def test_without_a_transcript_in_the_request_the_saved_turns_are_the_transcript() -> None:
    setup = Setup()
    asyncio.run(setup.save(0, TURNS[0]))
    asyncio.run(setup.save(1, TURNS[1]))

    completed = setup.complete(WITHOUT_TRANSCRIPT)

    assert (completed.status, completed.transcript, completed.checkpoint_turns) == ("completed", TURNS, 2)
    assert completed.results == {"city": "Oslo"}
    assert setup.transcript == TURNS


def test_without_a_transcript_and_without_saved_turns_the_transcript_is_empty() -> None:
    setup = Setup()

    completed = setup.complete(WITHOUT_TRANSCRIPT)

    assert (completed.status, completed.transcript) == ("completed", [])
    assert completed.extraction == Extraction(status="skipped")
    assert (setup.transcripts.stored, without_events(setup.session.duties)) == ({}, CLOSED)


@pytest.mark.parametrize("sent", [[], [{"role": "user", "text": "All of it."}]], ids=str)
def test_a_transcript_in_the_request_replaces_the_saved_turns_even_an_empty_one(sent: list[JsonValue]) -> None:
    setup = Setup()
    asyncio.run(setup.save(0, *TURNS))

    completed = setup.complete(complete_session_request(transcript=sent))

    assert completed.transcript == setup.transcript == sent


def test_if_the_saved_turns_cannot_be_read_the_session_does_not_change() -> None:
    sessions = FakeSessions(session())
    setup = Setup(sessions=sessions, checkpoints=CheckpointsThatCannotRead(sessions))
    asyncio.run(setup.save(0, *TURNS))
    before = setup.session

    with pytest.raises(StorageError):
        setup.complete(WITHOUT_TRANSCRIPT)

    assert setup.session == before
    assert setup.transcripts.stored == {}


def test_a_call_that_was_hung_up_can_be_completed_and_keeps_its_end_reason() -> None:
    setup = Setup(sessions=FakeSessions(replace(session(), hung_up_at=NOW + 60, end_reason="stopped")))

    completed = setup.complete(complete_session_request(end_reason="completed"))

    assert (completed.status, completed.end_reason, completed.hung_up_at) == ("completed", "stopped", NOW + 60)
    assert without_events(setup.session.duties) == CLOSED


# ---- Closing the room -----------------------------------------------------------------------------------


def test_the_room_of_a_completed_session_is_closed() -> None:
    setup = Setup()

    setup.complete()

    assert setup.rooms.closed == [SESSION_ID]


def test_a_kept_room_stays_open_until_an_hour_and_15_seconds_after_the_creation() -> None:
    setup = Setup()

    completed = setup.complete(complete_session_request(keep_room=True))

    assert completed.results == {"city": "Oslo"}
    assert setup.rooms.closed == []
    assert without_events(setup.session.duties) == Duties().plus(close_room=NOW + 3_615)


def test_the_room_of_a_call_that_was_hung_up_is_not_kept() -> None:
    setup = Setup(sessions=FakeSessions(replace(session(), hung_up_at=NOW)))

    setup.complete(complete_session_request(keep_room=True))

    assert setup.rooms.closed == [SESSION_ID]
    assert setup.session.room_ends_at is None


def test_the_room_is_closed_while_the_model_answers() -> None:
    both = asyncio.Barrier(2)  # passed only if both requests are in flight

    class RoomsAtBarrier(FakeRooms):
        async def close(self, session_id: SessionId) -> None:
            await both.wait()
            await super().close(session_id)

    class ModelAtBarrier(FakeExtractionModel):
        async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
            await both.wait()
            return await super().generate(request, seconds)

    setup = Setup(rooms=RoomsAtBarrier(), model=ModelAtBarrier('{"city": "Oslo"}'))

    async def complete() -> session_api.Session:
        async with asyncio.timeout(60):  # reached only if the test fails
            return await setup.complete_session(SESSION_ID, complete_session_request(), ACME)

    assert asyncio.run(complete()).results == {"city": "Oslo"}
    assert setup.rooms.closed == [SESSION_ID]


@pytest.mark.parametrize("error", [LiveKitUnavailable(), RuntimeError("a bug")], ids=repr)
def test_if_the_room_cannot_be_closed_the_session_stays_due_for_the_sweeper(error: Exception) -> None:
    setup = Setup(rooms=FailingRooms(error))

    completed = setup.complete()

    assert (completed.status, completed.results) == ("completed", {"city": "Oslo"})
    assert completed.extraction == setup.session.extraction
    assert without_events(setup.session.duties).due_at == NOW + 90 + 120


@pytest.mark.parametrize("turns", [TURNS, []], ids=["with turns", "without"])
def test_a_completed_session_is_due_soon_until_its_room_is_closed(turns: list[Any]) -> None:
    class ObservingRooms(FakeRooms):
        async def close(self, session_id: SessionId) -> None:
            for _ in range(100):  # lets all other tasks finish
                await asyncio.sleep(0)
                seen.add((setup.session.status, without_events(setup.session.duties).due_at))
            await super().close(session_id)

    seen: set[tuple[str, int | None]] = set()
    setup = Setup(rooms=ObservingRooms())

    setup.complete(complete_session_request(transcript=turns))

    assert seen == {("completed", NOW + 90 + 120)}
    assert (setup.rooms.closed, without_events(setup.session.duties)) == ([SESSION_ID], CLOSED)


@pytest.mark.parametrize("turns", [TURNS, []], ids=["with turns", "without"])
def test_completing_a_session_takes_two_writes(turns: list[Any]) -> None:
    setup = Setup()

    setup.complete(complete_session_request(transcript=turns))

    assert setup.sessions.writes == 2


def test_a_session_without_turns_stays_due_if_its_room_cannot_be_closed() -> None:
    setup = Setup(rooms=FailingRooms(LiveKitUnavailable()))

    assert setup.complete(complete_session_request(transcript=[])).extraction == Extraction(status="skipped")

    assert (setup.sessions.writes, without_events(setup.session.duties).due_at) == (1, NOW + 90 + 120)


def test_a_session_without_turns_stays_due_if_its_due_time_cannot_be_cleared() -> None:
    setup = Setup(sessions=SessionsThatCannotSetDuties(session()))

    assert setup.complete(complete_session_request(transcript=[])).status == "completed"

    assert without_events(setup.session.duties).due_at == NOW + 90 + 120


def test_a_session_is_completed_even_if_livekit_is_not_configured() -> None:
    def unconfigured() -> Rooms:
        raise RuntimeError("LIVEKIT_URL is not set.")

    setup = Setup()
    extract_results = ExtractResults(
        setup.agents, setup.sessions, setup.content, Extractor(setup.model), setup.queues, setup.clock
    )
    complete_session = CompleteSession(
        setup.sessions, setup.end_session, extract_results, unconfigured, setup.rate_limiter, setup.event_queue
    )

    assert asyncio.run(complete_session(SESSION_ID, complete_session_request(), ACME)).results == {"city": "Oslo"}


def test_a_rejected_request_does_not_close_the_room() -> None:
    setup = Setup(sessions=FakeSessions(replace(session(), status="completed")))

    with pytest.raises(SessionNotActive):
        setup.complete()

    assert setup.rooms.closed == []


# ---- Rate limit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", [ACME, FakeClient(SESSION_ID)], ids=str)
def test_over_the_rate_limit_the_session_stays_active(caller: SessionCaller) -> None:
    setup = Setup(rate_limiter=FakeRateLimiter(limit=0))

    with pytest.raises(RateLimited):
        setup.complete(caller=caller)

    assert setup.session.status == "active"
    assert setup.transcripts.stored == {}


def test_requests_with_an_api_key_and_with_a_client_token_are_counted_apart() -> None:
    setup = Setup(rate_limiter=FakeRateLimiter(limit=1))
    setup.complete()

    with pytest.raises(SessionNotActive):
        setup.complete(caller=FakeClient(SESSION_ID))

    assert setup.rate_limiter.acquired == ["acme", SESSION_ID]


@pytest.mark.parametrize("error", [StorageError(), TimeoutError()], ids=repr)
def test_without_the_counter_a_session_is_completed(error: Exception) -> None:
    setup = Setup(rate_limiter=RateLimiterThatFails(error))

    assert setup.complete().status == "completed"


# ---- Concurrent requests --------------------------------------------------------------------------------


def test_of_fifty_concurrent_requests_one_succeeds_and_only_its_transcript_remains() -> None:
    setup = Setup()
    requests = [
        complete_session_request(transcript=[{"role": "user", "text": f"Request {number}."}]) for number in range(50)
    ]

    outcomes = setup.race(*(setup.complete_session(SESSION_ID, request, ACME) for request in requests))

    (winner,) = (outcome for outcome in outcomes if isinstance(outcome, session_api.Session))
    assert sum(isinstance(outcome, SessionNotActive) for outcome in outcomes) == 49
    assert setup.session.transcript_id is not None
    key = (SESSION_ID, setup.session.transcript_id)
    assert setup.transcripts.stored[key] == winner.transcript
    assert setup.transcripts.expiring == setup.transcripts.stored.keys() - {key}
    assert len(setup.transcripts.stored) == 50
    assert len(setup.model.requests) == 1


def test_a_losing_request_raises_session_not_active_even_if_its_transcript_cannot_expire() -> None:
    setup = Setup(transcripts=TranscriptsThatCannotExpire())

    outcomes = setup.race(*(setup.complete_session(SESSION_ID, complete_session_request(), ACME) for _ in range(2)))

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Session", "SessionNotActive"]


def test_of_concurrent_requests_without_a_transcript_one_succeeds() -> None:
    setup = Setup()
    asyncio.run(setup.save(0, *TURNS))

    outcomes = setup.race(*(setup.complete_session(SESSION_ID, WITHOUT_TRANSCRIPT, ACME) for _ in range(10)))

    (winner,) = (outcome for outcome in outcomes if isinstance(outcome, session_api.Session))
    assert sum(isinstance(outcome, SessionNotActive) for outcome in outcomes) == 9
    assert winner.transcript == setup.transcript == TURNS


async def yield_to_others(times: int) -> None:
    """Let other tasks run before this one continues."""
    for _ in range(times):
        await asyncio.sleep(0)


@pytest.mark.parametrize("head_start", range(12))
def test_turns_acknowledged_during_the_completion_are_in_the_transcript(head_start: int) -> None:
    setup = Setup()
    asyncio.run(setup.save(0, *TURNS))
    more: list[TranscriptTurn] = [{"role": "user", "text": f"And {number}."} for number in range(4)]
    acknowledged: list[int] = [2]

    async def append() -> None:
        await yield_to_others(head_start)
        for number, turn in enumerate(more, start=2):
            acknowledged.append(await setup.save(number, turn))

    completed, appended = setup.race(setup.complete_session(SESSION_ID, WITHOUT_TRANSCRIPT, ACME), append())

    assert isinstance(completed, session_api.Session)
    assert appended is None or isinstance(appended, SessionNotActive)
    assert completed.transcript == setup.transcript == [*TURNS, *more][: acknowledged[-1]]


def test_if_turns_are_saved_during_every_read_a_retryable_storage_error_is_raised() -> None:
    class GrowingCheckpoints(FakeCheckpoints):
        """Another request saves a turn during every read."""

        async def read(self, session: Session) -> list[TranscriptTurn]:
            turns = await super().read(session)
            assert await self.append(session, [{"role": "user", "text": "More."}], 1, NOW)
            return turns

    sessions = FakeSessions(session())
    setup = Setup(sessions=sessions, checkpoints=GrowingCheckpoints(sessions))
    asyncio.run(setup.save(0, *TURNS))

    with pytest.raises(StorageError) as raised:
        setup.complete(WITHOUT_TRANSCRIPT)

    assert raised.value.retryable
    assert setup.session.status == "active"
    assert len(setup.transcripts.stored) == 5  # one for each attempt
    assert setup.transcripts.expiring == setup.transcripts.stored.keys()


def test_a_session_deleted_while_its_turns_are_read_is_not_active() -> None:
    class DeletingCheckpoints(FakeCheckpoints):
        async def read(self, session: Session) -> list[TranscriptTurn]:
            turns = await super().read(session)
            del sessions.stored[SESSION_ID]
            return turns

    sessions = FakeSessions(session())
    setup = Setup(sessions=sessions, checkpoints=DeletingCheckpoints(sessions))
    asyncio.run(setup.save(0, *TURNS))

    with pytest.raises(SessionNotActive):
        setup.complete(WITHOUT_TRANSCRIPT)

    assert len(setup.transcripts.stored) == 1
    assert setup.transcripts.expiring == setup.transcripts.stored.keys()


def test_only_a_repeat_of_the_completing_request_raises_already_processed() -> None:
    setup = Setup()
    complete_session = setup.complete_session
    asyncio.run(complete_session(SESSION_ID, complete_session_request(), ACME, "this-request"))
    before = setup.session

    with pytest.raises(AlreadyProcessed) as repeated:
        asyncio.run(complete_session(SESSION_ID, complete_session_request(), ACME, "this-request"))
    for other_hash in ("another-request", None):
        with pytest.raises(SessionNotActive):
            asyncio.run(complete_session(SESSION_ID, complete_session_request(), ACME, other_hash))

    assert repeated.value.resource_id == SESSION_ID
    assert setup.session == before


@pytest.mark.parametrize("request_hash", ["a-request", None])
def test_a_session_completed_without_a_key_raises_session_not_active(request_hash: str | None) -> None:
    setup = Setup()
    setup.complete()

    with pytest.raises(SessionNotActive):
        asyncio.run(setup.complete_session(SESSION_ID, complete_session_request(), ACME, request_hash))


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_an_ended_session_cannot_be_completed(status: Any) -> None:
    setup = Setup(sessions=FakeSessions(replace(session(), status=status)))

    with pytest.raises(SessionNotActive):
        setup.complete()

    assert setup.transcripts.stored == {}
    assert setup.model.requests == []


# ---- Storage errors -------------------------------------------------------------------------------------


def test_if_the_transcript_cannot_be_stored_the_session_stays_active_and_its_parts_expire() -> None:
    setup = Setup(transcripts=TranscriptsThatCannotPut())

    with pytest.raises(StorageError):
        setup.complete()

    assert setup.session == session()
    assert len(setup.transcripts.stored) == 1
    assert setup.transcripts.expiring == setup.transcripts.stored.keys()
    assert setup.model.requests == []


def test_if_the_outcome_of_the_write_is_unknown_the_transcript_stays() -> None:
    setup = Setup(sessions=SessionsThatCannotComplete(session()))

    with pytest.raises(StorageError):
        setup.complete()

    assert list(setup.transcripts.stored.values()) == [TURNS]
    assert setup.transcripts.expiring == set()
    assert setup.model.requests == []


def test_results_that_cannot_be_stored_are_returned_to_the_caller() -> None:
    setup = Setup(sessions=SessionsThatCannotSaveExtraction(session()))

    completed = setup.complete()

    assert (completed.status, completed.transcript) == ("completed", TURNS)
    assert completed.results == {"city": "Oslo"}
    assert completed.extraction is not None
    assert completed.extraction.status == "succeeded"
    assert setup.session.extraction == Extraction(status="pending")


def test_a_session_deleted_while_the_model_answers_is_returned_but_not_stored_again() -> None:
    class DeletingModel(FakeExtractionModel):
        async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
            del setup.sessions.stored[SESSION_ID]
            return await super().generate(request, seconds)

    setup = Setup(model=DeletingModel('{"city": "Oslo"}'))

    completed = setup.complete()

    assert completed.results == {"city": "Oslo"}
    assert setup.sessions.stored == {}


# ---- Extraction errors ----------------------------------------------------------------------------------


def test_if_gemini_is_unavailable_the_session_is_completed_and_its_extraction_queued() -> None:
    setup = Setup(model=FakeExtractionModel(GeminiUnavailable()))

    completed = setup.complete()

    assert (completed.status, completed.transcript, completed.results) == ("completed", TURNS, None)
    assert completed.extraction == setup.session.extraction
    assert completed.extraction == new_extraction(
        status="pending",
        model="fake-model",
        attempts=3,
        error=GEMINI_UNAVAILABLE,
    )
    assert setup.queue.session_ids == [SESSION_ID]


def test_if_gemini_refuses_the_session_is_completed_and_its_extraction_failed() -> None:
    setup = Setup(model=FakeExtractionModel(GeminiError("The schema is too complex.")))

    completed = setup.complete()

    assert (completed.status, completed.transcript, completed.results) == ("completed", TURNS, None)
    assert completed.extraction == setup.session.extraction
    assert completed.extraction == new_extraction(
        status="failed",
        model="fake-model",
        attempts=1,
        extracted_at=NOW + 90,
        error=ErrorInfo(code="gemini_error", message="The schema is too complex."),
    )
    assert setup.queue.session_ids == []


AFTER_AN_ERROR = Extraction(status="pending", attempts=1, error=INTERNAL_ERROR)


def test_after_an_unexpected_error_the_session_is_completed_and_its_extraction_queued() -> None:
    setup = Setup(model=FakeExtractionModel(RuntimeError("the caller said: my card is 4711")))

    completed = setup.complete()

    assert (completed.status, completed.transcript, completed.results) == ("completed", TURNS, None)
    assert completed.extraction == setup.session.extraction == AFTER_AN_ERROR
    assert setup.queue.session_ids == [SESSION_ID]


def test_if_the_agent_version_is_not_found_the_session_is_completed_and_its_extraction_pending() -> None:
    setup = Setup(sessions=FakeSessions(session(agent_version=7)))

    completed = setup.complete()

    assert (completed.status, completed.transcript, completed.extraction) == ("completed", TURNS, AFTER_AN_ERROR)


@pytest.mark.parametrize("error", [GeminiUnavailable(), RuntimeError("a bug")], ids=repr)
def test_if_extraction_queue_storage_and_livekit_all_fail_the_session_is_completed_and_due(error: Exception) -> None:
    setup = Setup(
        sessions=SessionsThatCannotSaveExtraction(session()),
        queue=QueueThatCannotPut(),
        model=FakeExtractionModel(error),
        rooms=FailingRooms(LiveKitUnavailable()),
    )

    completed = setup.complete()

    assert (completed.status, completed.transcript) == ("completed", TURNS)
    assert completed.extraction is not None
    assert completed.extraction.status == "pending"
    assert without_events(setup.session.duties).due_at == NOW + 90 + 120  # for the sweeper


@pytest.mark.parametrize(
    "text", ['{"city": "\\ud800"}', '{"city": 1e999}', "[" * 1_000, '{"city": ' + "9" * 5_000 + "}"]
)
def test_after_an_answer_that_is_not_valid_json_the_session_is_completed_without_results(text: str) -> None:
    completed = Setup(model=FakeExtractionModel(text)).complete()

    assert (completed.status, completed.results) == ("completed", None)
    assert completed.extraction is not None
    assert completed.extraction.status == "failed"
    assert completed.model_dump_json()


# ---- Rejected requests ----------------------------------------------------------------------------------


def test_a_transcript_that_is_too_large_does_not_change_the_session() -> None:
    setup = Setup()

    with pytest.raises(TranscriptTooLarge):
        setup.complete(complete_session_request(transcript=[{"role": "user", "text": "a" * 20_001}]))

    assert setup.session == session()
    assert setup.transcripts.stored == {}


def test_another_workspace_s_session_gives_the_same_error_as_an_unknown_session() -> None:
    setup = Setup()
    unknown_id = SessionId("019a0000-0000-7000-8000-00000000000f")

    with pytest.raises(SessionNotFound):
        setup.complete(caller=FakeCaller("globex"))
    with pytest.raises(SessionNotFound):
        asyncio.run(setup.complete_session(unknown_id, complete_session_request(), ACME))

    assert setup.session == session()
    assert setup.transcripts.stored == {}


def test_another_workspace_s_ended_session_is_not_found() -> None:
    setup = Setup(sessions=FakeSessions(replace(session(), status="completed")))

    with pytest.raises(SessionNotFound):
        setup.complete(caller=FakeCaller("globex"))


def test_an_unknown_key_gives_the_same_error_for_existing_and_unknown_sessions() -> None:
    with pytest.raises(InvalidApiKey):
        Setup().complete(caller=UnknownCaller())
    with pytest.raises(InvalidApiKey):
        Setup(sessions=FakeSessions()).complete(caller=UnknownCaller())


# ---- Events ---------------------------------------------------------------------------------------------


def test_a_completed_session_is_queued_for_its_events_beside_the_extraction_and_once_more_after_it() -> None:
    setup = Setup()

    setup.complete()

    assert [event.type for event in setup.session.owed_events] == ["session.completed", "extraction.succeeded"]
    assert (setup.event_queue.session_ids, setup.event_queue.pauses) == ([SESSION_ID] * 2, [0, 2])
    assert setup.session.duties.get("send_events") == Duty(NOW + 90 + 10)


def test_a_session_whose_extraction_is_queued_owes_only_its_completion() -> None:
    setup = Setup(model=FakeExtractionModel(GeminiUnavailable()))

    setup.complete()

    assert [event.type for event in setup.session.owed_events] == ["session.completed"]
    assert setup.event_queue.pauses == [0]


def test_a_skipped_extraction_sends_no_event() -> None:
    setup = Setup()

    setup.complete(complete_session_request(transcript=[]))

    assert [event.type for event in setup.session.owed_events] == ["session.completed"]
    assert setup.event_queue.pauses == [0]


def test_if_the_events_cannot_be_queued_the_session_is_completed_and_they_are_left_to_the_sweeper(
    caplog: pytest.LogCaptureFixture,
) -> None:
    setup = Setup(event_queue=QueueThatCannotPut())

    assert setup.complete().results == {"city": "Oslo"}

    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == ["events_not_queued"] * 2
    assert setup.session.duties.get("send_events") == Duty(NOW + 90 + 10)
