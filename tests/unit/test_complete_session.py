import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain import session_api
from pi_voice.domain.agents import Agent
from pi_voice.domain.errors import (
    AlreadyProcessed,
    GeminiError,
    GeminiUnavailable,
    InvalidApiKey,
    LiveKitUnavailable,
    SessionNotActive,
    SessionNotFound,
    StorageError,
    TranscriptTooLarge,
)
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import SessionId
from pi_voice.domain.session_api import CompleteSessionRequest, SaveTranscriptRequest
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.ports import ModelRequest, ModelResponse, Rooms, SessionCaller
from pi_voice.use_cases.complete_session import CompleteSession
from pi_voice.use_cases.end_session import EndSession
from pi_voice.use_cases.extract_results import ExtractResults
from pi_voice.use_cases.extractor import Extractor
from pi_voice.use_cases.save_transcript import SaveTranscript
from tests.fakes import (
    CheckpointsThatCannotRead,
    FailingRooms,
    FakeAgents,
    FakeCaller,
    FakeCheckpoints,
    FakeClient,
    FakeClock,
    FakeExtractionModel,
    FakeExtractionQueue,
    FakeRooms,
    FakeSessions,
    FakeTranscripts,
    QueueThatCannotPut,
    SessionsThatCannotComplete,
    SessionsThatCannotRecord,
    SessionsThatCannotSchedule,
    TranscriptsThatCannotExpire,
    TranscriptsThatCannotPut,
    UnknownCaller,
    no_pause,
)
from tests.unit.examples import AGENT_ID, ANSWERED, NOW, SESSION_ID, TURNS, agent, an_extraction, ending, session

ACME = FakeCaller("acme")
CITY = agent(output_schema={"city": "string"})
WITHOUT_TRANSCRIPT = CompleteSessionRequest()


class World:
    """All that completion needs, and what became of it."""

    def __init__(
        self,
        *,
        of: Agent = CITY,
        sessions: FakeSessions | None = None,
        transcripts: FakeTranscripts | None = None,
        checkpoints: FakeCheckpoints | None = None,
        model: FakeExtractionModel | None = None,
        queue: FakeExtractionQueue | None = None,
        rooms: FakeRooms | None = None,
    ) -> None:
        self.agents = FakeAgents(of)
        self.sessions = sessions or FakeSessions(session())
        self.transcripts = transcripts or FakeTranscripts()
        self.checkpoints = checkpoints or FakeCheckpoints(self.sessions)
        self.model = model or FakeExtractionModel('{"city": "Oslo"}')
        self.queue = queue or FakeExtractionQueue()
        self.rooms = rooms or FakeRooms()
        self.clock = FakeClock(NOW + 90)

    @property
    def closing(self) -> EndSession:
        return EndSession(self.sessions, self.transcripts, self.checkpoints, self.clock)

    @property
    def completion(self) -> CompleteSession:
        extractor = Extractor(self.model, clock=self.clock, sleep=no_pause)
        results = ExtractResults(self.agents, self.sessions, self.transcripts, extractor, self.queue, self.clock)
        return CompleteSession(self.sessions, self.closing, results, lambda: self.rooms)

    def complete(self, end: CompleteSessionRequest | None = None, caller: SessionCaller = ACME) -> session_api.Session:
        return asyncio.run(self.completion(SESSION_ID, end or ending(), caller))

    async def keep(self, at: int, *turns: TranscriptTurn) -> int:
        """Keep turns as the call goes, and tell how many are kept then."""
        keeping = SaveTranscript(self.sessions, self.checkpoints)
        sent = SaveTranscriptRequest.model_validate({"from": at, "turns": list(turns)})
        return (await keeping(SESSION_ID, sent, ACME)).next

    def race(self, *calls: Awaitable[Any]) -> list[Any]:
        """Run calls at once and return what each answered or raised."""

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*calls, return_exceptions=True)

        return asyncio.run(all_of_them())

    @property
    def session(self) -> Session:
        """The session as it is kept."""
        return self.sessions.kept[SESSION_ID]

    @property
    def transcript(self) -> list[TranscriptTurn]:
        """The transcript that the session points to, which is the only one that stays."""
        assert self.session.transcript_id is not None
        assert self.transcripts.expiring == self.transcripts.kept.keys() - {self.session.transcript_id}
        return self.transcripts.kept.get(self.session.transcript_id, [])


class Onlooker(FakeExtractionModel):
    """A model that looks at what is kept in the moment that it is asked."""

    def __init__(self, sessions: FakeSessions, transcripts: FakeTranscripts) -> None:
        super().__init__('{"city": "Oslo"}')
        self._sessions = sessions
        self._transcripts = transcripts
        self.seen: list[tuple[str, str, list[Any]]] = []

    async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
        kept = self._sessions.kept[SESSION_ID]
        assert kept.extraction is not None
        assert kept.transcript_id is not None
        self.seen.append((kept.status, kept.extraction.status, self._transcripts.kept[kept.transcript_id]))
        return await super().generate(request, seconds)


# ---- When all goes well ---------------------------------------------------------------------------------


def test_a_session_s_own_client_completes_it_too() -> None:
    assert World().complete(caller=FakeClient(SESSION_ID)).results == {"city": "Oslo"}


def test_an_active_session_is_completed_with_its_transcript_and_results() -> None:
    world = World()

    state = world.complete(ending(duration_seconds=85.5, end_reason="hang_up"))

    assert (state.session_id, state.status) == (SESSION_ID, "completed")
    assert (state.completed_at, state.completed_by) == (1_800_000_090, "client")
    assert (state.duration_seconds, state.end_reason) == (85.5, "hang_up")
    assert state.transcript == TURNS
    assert state.results == {"city": "Oslo"}
    assert state.extraction == an_extraction(**ANSWERED, extracted_at=NOW + 90)


def test_what_is_answered_is_what_is_kept() -> None:
    world = World()

    state = world.complete()

    assert world.session.status == "completed"
    assert world.session.results == state.results
    assert world.session.extraction == state.extraction
    assert world.session.transcript_id is not None
    assert world.transcripts.kept == {world.session.transcript_id: TURNS}
    assert world.transcripts.expiring == set()


def test_the_call_is_safe_before_the_model_is_asked() -> None:
    sessions, transcripts = FakeSessions(session()), FakeTranscripts()
    model = Onlooker(sessions, transcripts)

    World(sessions=sessions, transcripts=transcripts, model=model).complete()

    assert model.seen == [("completed", "pending", TURNS)]


def test_a_session_can_be_completed_after_it_has_expired() -> None:
    world = World()
    world.clock.now = NOW + 100_000

    assert world.complete().completed_at == 1_800_100_000


def test_an_agent_without_a_schema_gives_no_results_and_asks_no_model() -> None:
    world = World(of=agent())

    state = world.complete()

    assert (state.status, state.results, state.transcript) == ("completed", None, TURNS)
    assert state.extraction == world.session.extraction
    assert state.extraction == Extraction(status="skipped", agent_version=1, extracted_at=NOW + 90)
    assert world.model.asked == []


def test_a_call_in_which_nothing_was_said_gives_no_results_and_asks_no_model() -> None:
    world = World()

    state = world.complete(ending(transcript=[]))

    assert (state.status, state.results, state.transcript) == ("completed", None, [])
    assert state.extraction == world.session.extraction == Extraction(status="skipped")
    assert world.model.asked == []
    assert world.transcripts.kept == {}


def test_a_call_in_which_nothing_was_said_does_not_even_need_its_agent() -> None:
    world = World(sessions=FakeSessions(session(agent_version=7)))  # which is nowhere

    assert world.complete(ending(transcript=[])).extraction == Extraction(status="skipped")


def test_an_agent_that_was_edited_during_the_call_changes_nothing_about_it() -> None:
    world = World(of=CITY)
    edited = agent(version=2, output_schema={"mood": "string"})
    asyncio.run(world.agents.save((asyncio.run(ACME.workspace())), edited))

    state = world.complete()

    assert state.results == {"city": "Oslo"}
    assert world.model.asked[0].schema["required"] == ["city"]


def test_an_agent_that_was_deleted_during_the_call_changes_nothing_about_it() -> None:
    world = World(of=CITY)
    asyncio.run(world.agents.delete((asyncio.run(ACME.workspace())), AGENT_ID))

    assert world.complete().results == {"city": "Oslo"}


# ---- What was kept as the call went ---------------------------------------------------------------------


def test_without_a_transcript_what_was_kept_as_the_call_went_becomes_it() -> None:
    world = World()
    asyncio.run(world.keep(0, TURNS[0]))
    asyncio.run(world.keep(1, TURNS[1]))

    state = world.complete(WITHOUT_TRANSCRIPT)

    assert (state.status, state.transcript, state.checkpoint_turns) == ("completed", TURNS, 2)
    assert state.results == {"city": "Oslo"}
    assert world.transcript == TURNS


def test_without_a_transcript_and_with_nothing_kept_nothing_was_said() -> None:
    world = World()

    state = world.complete(WITHOUT_TRANSCRIPT)

    assert (state.status, state.transcript) == ("completed", [])
    assert state.extraction == Extraction(status="skipped")
    assert (world.transcripts.kept, world.session.due_at) == ({}, None)


@pytest.mark.parametrize("sent", [[], [{"role": "user", "text": "All of it."}]], ids=str)
def test_a_transcript_that_is_sent_is_final_even_an_empty_one(sent: list[JsonValue]) -> None:
    world = World()
    asyncio.run(world.keep(0, *TURNS))

    state = world.complete(ending(transcript=sent))

    assert state.transcript == world.transcript == sent


def test_what_was_kept_and_cannot_be_read_leaves_the_session_as_it_was() -> None:
    sessions = FakeSessions(session())
    world = World(sessions=sessions, checkpoints=CheckpointsThatCannotRead(sessions))
    asyncio.run(world.keep(0, *TURNS))
    before = world.session

    with pytest.raises(StorageError):
        world.complete(WITHOUT_TRANSCRIPT)

    assert world.session == before
    assert world.transcripts.kept == {}


def test_a_call_that_was_hung_up_is_completed_and_keeps_the_reason_why_it_ended() -> None:
    world = World(sessions=FakeSessions(replace(session(), hung_up_at=NOW + 60, end_reason="stopped", due_at=NOW + 60)))

    state = world.complete(ending(end_reason="completed"))

    assert (state.status, state.end_reason, state.hung_up_at) == ("completed", "stopped", NOW + 60)
    assert world.session.due_at is None


# ---- Hanging up whoever is left -------------------------------------------------------------------------


def test_a_completed_session_s_room_is_closed() -> None:
    world = World()

    world.complete()

    assert world.rooms.closed == [SESSION_ID]


def test_the_room_is_closed_while_the_model_thinks() -> None:
    both = asyncio.Barrier(2)  # lets nobody pass before two have come

    class MeetingRooms(FakeRooms):
        async def close(self, session_id: SessionId) -> None:
            await both.wait()
            await super().close(session_id)

    class MeetingModel(FakeExtractionModel):
        async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
            await both.wait()
            return await super().generate(request, seconds)

    world = World(rooms=MeetingRooms(), model=MeetingModel('{"city": "Oslo"}'))

    async def complete() -> session_api.Session:
        async with asyncio.timeout(60):  # only a failure takes that long
            return await world.completion(SESSION_ID, ending(), ACME)

    assert asyncio.run(complete()).results == {"city": "Oslo"}
    assert world.rooms.closed == [SESSION_ID]


@pytest.mark.parametrize("error", [LiveKitUnavailable(), RuntimeError("a bug")], ids=repr)
def test_a_room_that_cannot_be_closed_costs_nothing_and_is_left_to_the_sweeper(error: Exception) -> None:
    world = World(rooms=FailingRooms(error))

    state = world.complete()

    assert (state.status, state.results) == ("completed", {"city": "Oslo"})
    assert state.extraction == world.session.extraction
    assert world.session.due_at == NOW + 90 + 120


@pytest.mark.parametrize("said", [TURNS, []], ids=["with turns", "without"])
def test_until_its_room_is_closed_a_completed_session_is_due(said: list[Any]) -> None:
    class Watched(FakeRooms):
        async def close(self, session_id: SessionId) -> None:
            for _ in range(100):  # so that everything else is over
                await asyncio.sleep(0)
                seen.add((world.session.status, world.session.due_at))
            await super().close(session_id)

    seen: set[tuple[str, int | None]] = set()
    world = World(rooms=Watched())

    world.complete(ending(transcript=said))

    assert seen == {("completed", NOW + 90 + 120)}
    assert (world.rooms.closed, world.session.due_at) == ([SESSION_ID], None)


@pytest.mark.parametrize("said", [TURNS, []], ids=["with turns", "without"])
def test_to_be_completed_a_session_is_written_twice(said: list[Any]) -> None:
    world = World()

    world.complete(ending(transcript=said))

    assert world.sessions.writes == 2


def test_an_empty_call_whose_room_cannot_be_closed_is_left_to_the_sweeper() -> None:
    world = World(rooms=FailingRooms(LiveKitUnavailable()))

    assert world.complete(ending(transcript=[])).extraction == Extraction(status="skipped")

    assert (world.sessions.writes, world.session.due_at) == (1, NOW + 90 + 120)


def test_an_empty_call_of_which_nobody_can_say_that_it_is_done_with_is_left_to_the_sweeper() -> None:
    world = World(sessions=SessionsThatCannotSchedule(session()))

    assert world.complete(ending(transcript=[])).status == "completed"

    assert world.session.due_at == NOW + 90 + 120


def test_a_livekit_that_is_not_even_configured_costs_nothing() -> None:
    def nowhere() -> Rooms:
        raise RuntimeError("LIVEKIT_URL is not set.")

    world = World()
    results = ExtractResults(
        world.agents, world.sessions, world.transcripts, Extractor(world.model), world.queue, world.clock
    )
    completion = CompleteSession(world.sessions, world.closing, results, nowhere)

    assert asyncio.run(completion(SESSION_ID, ending(), ACME)).results == {"city": "Oslo"}


def test_nobody_is_hung_up_by_a_call_that_lost_the_race_or_was_refused() -> None:
    world = World(sessions=FakeSessions(replace(session(), status="completed")))

    with pytest.raises(SessionNotActive):
        world.complete()

    assert world.rooms.closed == []


# ---- When calls race ------------------------------------------------------------------------------------


def test_of_fifty_calls_at_once_one_wins_and_its_transcript_is_the_one_that_stays() -> None:
    world = World()
    endings = [ending(transcript=[{"role": "user", "text": f"Call {number}."}]) for number in range(50)]

    outcomes = world.race(*(world.completion(SESSION_ID, end, ACME) for end in endings))

    (winner,) = (outcome for outcome in outcomes if isinstance(outcome, session_api.Session))
    assert sum(isinstance(outcome, SessionNotActive) for outcome in outcomes) == 49
    assert world.session.transcript_id is not None
    assert world.transcripts.kept[world.session.transcript_id] == winner.transcript
    assert world.transcripts.expiring == world.transcripts.kept.keys() - {world.session.transcript_id}
    assert len(world.transcripts.kept) == 50
    assert len(world.model.asked) == 1


def test_a_loser_is_told_so_even_when_its_transcript_cannot_be_let_go() -> None:
    world = World(transcripts=TranscriptsThatCannotExpire())

    outcomes = world.race(*(world.completion(SESSION_ID, ending(), ACME) for _ in range(2)))

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Session", "SessionNotActive"]


def test_of_calls_without_a_transcript_one_wins_too() -> None:
    world = World()
    asyncio.run(world.keep(0, *TURNS))

    outcomes = world.race(*(world.completion(SESSION_ID, WITHOUT_TRANSCRIPT, ACME) for _ in range(10)))

    (winner,) = (outcome for outcome in outcomes if isinstance(outcome, session_api.Session))
    assert sum(isinstance(outcome, SessionNotActive) for outcome in outcomes) == 9
    assert winner.transcript == world.transcript == TURNS


def late(turns: int) -> Awaitable[None]:
    """Let so many others take their turn first."""

    async def wait() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    return wait()


@pytest.mark.parametrize("head_start", range(12))
def test_a_turn_that_was_acknowledged_while_the_session_was_completed_is_never_lost(head_start: int) -> None:
    world = World()
    asyncio.run(world.keep(0, *TURNS))
    more: list[TranscriptTurn] = [{"role": "user", "text": f"And {number}."} for number in range(4)]
    acknowledged: list[int] = [2]

    async def append() -> None:
        await late(head_start)
        for number, turn in enumerate(more, start=2):
            acknowledged.append(await world.keep(number, turn))

    completed, appended = world.race(world.completion(SESSION_ID, WITHOUT_TRANSCRIPT, ACME), append())

    assert isinstance(completed, session_api.Session)
    assert appended is None or isinstance(appended, SessionNotActive)
    assert completed.transcript == world.transcript == [*TURNS, *more][: acknowledged[-1]]


def test_turns_that_come_faster_than_they_can_be_read_are_told_to_the_caller_and_lose_nothing() -> None:
    class Growing(FakeCheckpoints):
        """Somebody keeps another turn whenever what is kept has been read."""

        async def read(self, session: Session) -> list[TranscriptTurn]:
            turns = await super().read(session)
            await self.append(session, [{"role": "user", "text": "More."}], 1)
            return turns

    sessions = FakeSessions(session())
    world = World(sessions=sessions, checkpoints=Growing(sessions))
    asyncio.run(world.keep(0, *TURNS))

    with pytest.raises(StorageError) as refusal:
        world.complete(WITHOUT_TRANSCRIPT)

    assert refusal.value.retryable
    assert world.session.status == "active"
    assert world.transcripts.expiring == world.transcripts.kept.keys()


def test_a_session_that_is_deleted_while_what_was_kept_is_read_is_not_active_any_more() -> None:
    class Deleting(FakeCheckpoints):
        async def read(self, session: Session) -> list[TranscriptTurn]:
            turns = await super().read(session)
            await sessions.delete(SESSION_ID)
            return turns

    sessions = FakeSessions(session())
    world = World(sessions=sessions, checkpoints=Deleting(sessions))
    asyncio.run(world.keep(0, *TURNS))

    with pytest.raises(SessionNotActive):
        world.complete(WITHOUT_TRANSCRIPT)

    assert world.transcripts.expiring == world.transcripts.kept.keys()


def test_the_request_that_completed_a_session_is_known_again_and_no_other() -> None:
    world = World()
    complete = world.completion
    asyncio.run(complete(SESSION_ID, ending(), ACME, "this-request"))
    before = world.session

    with pytest.raises(AlreadyProcessed) as carried_out:
        asyncio.run(complete(SESSION_ID, ending(), ACME, "this-request"))
    for another in ("another-request", None):
        with pytest.raises(SessionNotActive):
            asyncio.run(complete(SESSION_ID, ending(), ACME, another))

    assert carried_out.value.resource_id == SESSION_ID
    assert world.session == before


@pytest.mark.parametrize("request_hash", ["a-request", None])
def test_a_session_that_was_completed_without_a_key_is_answered_to_nobody(request_hash: str | None) -> None:
    world = World()
    world.complete()

    with pytest.raises(SessionNotActive):
        asyncio.run(world.completion(SESSION_ID, ending(), ACME, request_hash))


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_session_that_has_ended_is_not_completed_again(status: Any) -> None:
    world = World(sessions=FakeSessions(replace(session(), status=status)))

    with pytest.raises(SessionNotActive):
        world.complete()

    assert world.transcripts.kept == {}
    assert world.model.asked == []


# ---- When the store fails -------------------------------------------------------------------------------


def test_when_the_transcript_cannot_be_kept_the_session_stays_active_and_no_piece_stays_behind() -> None:
    world = World(transcripts=TranscriptsThatCannotPut())

    with pytest.raises(StorageError):
        world.complete()

    assert world.session == session()
    assert world.transcripts.expiring == world.transcripts.kept.keys()
    assert world.model.asked == []


def test_when_it_is_unknown_whether_the_session_was_completed_its_transcript_stays() -> None:
    world = World(sessions=SessionsThatCannotComplete(session()))

    with pytest.raises(StorageError):
        world.complete()

    assert list(world.transcripts.kept.values()) == [TURNS]
    assert world.transcripts.expiring == set()
    assert world.model.asked == []


def test_when_the_results_cannot_be_kept_the_caller_has_them_all_the_same() -> None:
    world = World(sessions=SessionsThatCannotRecord(session()))

    state = world.complete()

    assert (state.status, state.transcript) == ("completed", TURNS)
    assert state.results == {"city": "Oslo"}
    assert state.extraction is not None
    assert state.extraction.status == "succeeded"
    assert world.session.extraction == Extraction(status="pending")


def test_a_session_that_is_deleted_while_the_model_thinks_is_answered_and_not_made_again() -> None:
    class Deleting(FakeExtractionModel):
        async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
            await world.sessions.delete(SESSION_ID)
            return await super().generate(request, seconds)

    world = World(model=Deleting('{"city": "Oslo"}'))

    state = world.complete()

    assert state.results == {"city": "Oslo"}
    assert world.sessions.kept == {}


# ---- When the extraction fails --------------------------------------------------------------------------


def test_a_model_that_is_away_delays_the_results_and_nothing_else() -> None:
    world = World(model=FakeExtractionModel(GeminiUnavailable()))

    state = world.complete()

    assert (state.status, state.transcript, state.results) == ("completed", TURNS, None)
    assert state.extraction == world.session.extraction
    assert state.extraction == an_extraction(
        status="pending",
        model="fake-model",
        attempts=3,
        error=ErrorInfo(
            code="gemini_unavailable", message="Gemini cannot be reached or is busy. Try again in a moment."
        ),
    )
    assert world.queue.waiting == [SESSION_ID]


def test_a_model_that_refuses_costs_the_results_and_nothing_else() -> None:
    world = World(model=FakeExtractionModel(GeminiError("The schema is too complex.")))

    state = world.complete()

    assert (state.status, state.transcript, state.results) == ("completed", TURNS, None)
    assert state.extraction == world.session.extraction
    assert state.extraction == an_extraction(
        status="failed",
        model="fake-model",
        attempts=1,
        extracted_at=NOW + 90,
        error=ErrorInfo(code="gemini_error", message="The schema is too complex."),
    )
    assert world.queue.waiting == []


BROKEN = Extraction(
    status="pending",
    attempts=1,
    error=ErrorInfo(
        code="internal_error",
        message="An unexpected error occurred. Try again; if it persists, report the request_id.",
    ),
)


def test_an_extraction_that_breaks_in_a_way_nobody_thought_of_delays_the_results_and_nothing_else() -> None:
    world = World(model=FakeExtractionModel(RuntimeError("the caller said: my card is 4711")))

    state = world.complete()

    assert (state.status, state.transcript, state.results) == ("completed", TURNS, None)
    assert state.extraction == world.session.extraction == BROKEN
    assert world.queue.waiting == [SESSION_ID]


def test_an_agent_s_version_that_cannot_be_found_delays_the_results_and_nothing_else() -> None:
    world = World(sessions=FakeSessions(session(agent_version=7)))

    state = world.complete()

    assert (state.status, state.transcript, state.extraction) == ("completed", TURNS, BROKEN)


@pytest.mark.parametrize("error", [GeminiUnavailable(), RuntimeError("a bug")], ids=repr)
def test_results_that_can_be_neither_had_nor_queued_nor_kept_cost_nothing_else(error: Exception) -> None:
    world = World(
        sessions=SessionsThatCannotRecord(session()),
        queue=QueueThatCannotPut(),
        model=FakeExtractionModel(error),
        rooms=FailingRooms(LiveKitUnavailable()),
    )

    state = world.complete()

    assert (state.status, state.transcript) == ("completed", TURNS)
    assert state.extraction is not None
    assert state.extraction.status == "pending"
    assert world.session.due_at == NOW + 90 + 120  # the sweeper looks after it


@pytest.mark.parametrize(
    "text", ['{"city": "\\ud800"}', '{"city": 1e999}', "[" * 1_000, '{"city": ' + "9" * 5_000 + "}"]
)
def test_an_answer_that_could_not_be_passed_on_costs_the_results_and_nothing_else(text: str) -> None:
    state = World(model=FakeExtractionModel(text)).complete()

    assert (state.status, state.results) == ("completed", None)
    assert state.extraction is not None
    assert state.extraction.status == "failed"
    assert state.model_dump_json()


# ---- What is refused ------------------------------------------------------------------------------------


def test_a_transcript_that_is_too_large_leaves_the_session_as_it_was() -> None:
    world = World()

    with pytest.raises(TranscriptTooLarge):
        world.complete(ending(transcript=[{"role": "user", "text": "a" * 20_001}]))

    assert world.session == session()
    assert world.transcripts.kept == {}


def test_another_workspace_s_session_is_as_unknown_as_one_that_never_was() -> None:
    world = World()
    never_was = SessionId("019a0000-0000-7000-8000-00000000000f")

    with pytest.raises(SessionNotFound):
        world.complete(caller=FakeCaller("globex"))
    with pytest.raises(SessionNotFound):
        asyncio.run(world.completion(never_was, ending(), ACME))

    assert world.session == session()
    assert world.transcripts.kept == {}


def test_another_workspace_does_not_learn_that_a_session_has_ended() -> None:
    world = World(sessions=FakeSessions(replace(session(), status="completed")))

    with pytest.raises(SessionNotFound):
        world.complete(caller=FakeCaller("globex"))


def test_who_may_not_call_learns_nothing_of_sessions() -> None:
    with pytest.raises(InvalidApiKey):
        World().complete(caller=UnknownCaller())
    with pytest.raises(InvalidApiKey):
        World(sessions=FakeSessions()).complete(caller=UnknownCaller())
