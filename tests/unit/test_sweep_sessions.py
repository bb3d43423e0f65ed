import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.adapters.dynamodb.sessions import DUE_SHARDS
from pi_voice.domain.errors import LiveKitUnavailable, StorageError
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import SessionId, TranscriptId
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.use_cases.end_session import EndSession
from pi_voice.use_cases.stop_session import StopSession
from pi_voice.use_cases.sweep_sessions import SweepSessions, SweepSessionsResult
from tests.fakes import (
    CheckpointsThatCannotRead,
    FailingRooms,
    FakeCheckpoints,
    FakeClock,
    FakeExtractionQueue,
    FakeRooms,
    FakeSessions,
    FakeTranscripts,
    QueueThatCannotPut,
)
from tests.unit.examples import GIVEN_UP, NOW, SESSION_ID, TURNS, session

TRANSCRIPT_ID = TranscriptId("019a0000-0000-7000-8000-0000000000aa")


def id_of(number: int) -> SessionId:
    return SessionId(f"019a0000-0000-7000-8000-{0x1000 + number:012x}")


def one_of_many(number: int, **changes: Any) -> Session:
    """Make one of many sessions, which are spread over the shards."""
    facts = session().livekit.model_copy(update={"room_name": id_of(number)})
    return replace(session(), session_id=id_of(number), livekit=facts, **changes)


def with_cap(joined: int | None, **changes: Any) -> Session:
    """Make a session with a cap of a minute, that somebody joined."""
    facts = session().livekit.model_copy(update={"first_joined_at": joined})
    return replace(session(), max_duration_seconds=60, livekit=facts, **changes)


class World:
    """All that sweeping needs, and what became of it."""

    def __init__(
        self,
        *kept: Session,
        now: float = GIVEN_UP,
        sessions: FakeSessions | None = None,
        checkpoints: FakeCheckpoints | None = None,
        queue: FakeExtractionQueue | None = None,
        rooms: FakeRooms | None = None,
    ) -> None:
        self.sessions = sessions or FakeSessions(*kept)
        self.transcripts = FakeTranscripts()
        self.checkpoints = checkpoints or FakeCheckpoints(self.sessions)
        self.queue = queue or FakeExtractionQueue()
        self.rooms = rooms or FakeRooms()
        self.clock = FakeClock(now)

    @property
    def sweeping(self) -> SweepSessions:
        closing = EndSession(self.sessions, self.transcripts, self.checkpoints, self.clock)
        hanging_up = StopSession(self.sessions, self.rooms, self.clock)
        return SweepSessions(self.sessions, closing, hanging_up, self.queue, self.clock)

    def sweep(self) -> SweepSessionsResult:
        return asyncio.run(self.sweeping.sweep())

    def sweep_twice_at_once(self) -> list[SweepSessionsResult]:
        async def race() -> list[SweepSessionsResult]:
            return list(await asyncio.gather(self.sweeping.sweep(), self.sweeping.sweep()))

        return asyncio.run(race())

    def keep(self, *turns: TranscriptTurn, of: SessionId = SESSION_ID) -> None:
        assert asyncio.run(self.checkpoints.append(self.sessions.kept[of], turns, 100))

    @property
    def session(self) -> Session:
        return self.sessions.kept[SESSION_ID]


# ---- Sessions that nobody completed ---------------------------------------------------------------------


def test_a_session_that_nobody_completed_ends_with_what_was_kept_and_its_results_are_wanted() -> None:
    world = World(session())
    world.keep(*TURNS)

    assert world.sweep() == SweepSessionsResult(completed=1)

    assert (world.session.status, world.session.completed_by, world.session.end_reason) == (
        "completed",
        "sweeper",
        "expired",
    )
    assert (world.session.completed_at, world.session.duration_seconds) == (GIVEN_UP, None)
    assert world.session.transcript_id is not None
    assert world.transcripts.kept == {world.session.transcript_id: TURNS}
    assert world.session.extraction == Extraction(status="pending")
    assert (world.queue.waiting, world.rooms.closed) == ([SESSION_ID], [SESSION_ID])
    assert world.session.due_at == GIVEN_UP + 3_600


def test_a_session_of_which_nothing_was_kept_fails_and_says_why() -> None:
    world = World(session())

    assert world.sweep() == SweepSessionsResult(failed=1)

    assert (world.session.status, world.session.failed_at, world.session.end_reason) == ("failed", GIVEN_UP, "expired")
    assert world.session.failure is not None
    assert world.session.failure.code == "expired"
    assert world.session.due_at is None
    assert world.rooms.closed == [SESSION_ID]
    assert (world.transcripts.kept, world.queue.waiting) == ({}, [])


@pytest.mark.parametrize("kept", [TURNS, []], ids=["with turns", "without"])
def test_a_call_that_was_hung_up_and_never_completed_keeps_the_reason_why_it_ended(kept: list[TranscriptTurn]) -> None:
    world = World(replace(session(), hung_up_at=NOW + 60, end_reason="stopped"))
    if kept:
        world.keep(*kept)

    assert world.sweep() in (SweepSessionsResult(completed=1), SweepSessionsResult(failed=1))
    assert world.session.end_reason == "stopped"


@pytest.mark.parametrize("now", [NOW, NOW + 600, GIVEN_UP - 1])
def test_a_session_is_waited_for_until_its_grace_is_over(now: int) -> None:
    world = World(session(), now=now)
    world.keep(*TURNS)
    before = world.session

    assert world.sweep() == SweepSessionsResult()
    assert world.session == before


def test_a_session_that_was_renewed_is_waited_for_longer() -> None:
    world = World(replace(session(), expires_at=NOW + 900))  # due as it was before

    assert world.sweep() == SweepSessionsResult()

    assert (world.session.status, world.session.due_at) == ("active", GIVEN_UP + 300)


def test_a_session_whose_kept_turns_cannot_be_read_is_tried_again() -> None:
    sessions = FakeSessions(session())
    world = World(sessions=sessions, checkpoints=CheckpointsThatCannotRead(sessions))
    world.keep(*TURNS)
    before = world.session

    assert world.sweep() == SweepSessionsResult(errors=1)
    assert world.session == before


def test_a_turn_that_comes_in_the_last_moment_is_not_lost() -> None:
    class Late(FakeSessions):
        """A turn is kept between reading the session and ending it."""

        async def fail(self, *arguments: Any) -> Session | None:
            world.keep_now()
            return await super().fail(*arguments)

    class LateWorld(World):
        def keep_now(self) -> None:
            self.checkpoints.kept[SESSION_ID] = TURNS
            self.sessions.kept[SESSION_ID] = replace(self.session, checkpoint_turns=2)

    world = LateWorld(sessions=Late(session()))

    assert world.sweep() == SweepSessionsResult()
    assert world.session.status == "active"
    assert world.sweep() == SweepSessionsResult(completed=1)
    assert list(world.transcripts.kept.values()) == [TURNS]


@pytest.mark.parametrize("turns", [[], TURNS], ids=["nothing-kept", "turns-kept"])
def test_a_call_that_is_renewed_in_the_last_moment_goes_on(turns: list[TranscriptTurn]) -> None:
    class Renewed(FakeSessions):
        """More time is given between reading the session and ending it."""

        def renew_now(self) -> None:
            self.kept[SESSION_ID] = replace(self.kept[SESSION_ID], expires_at=NOW + 1_200)

        async def fail(self, *arguments: Any) -> Session | None:
            self.renew_now()
            return await super().fail(*arguments)

        async def complete(self, *arguments: Any) -> Session | None:
            self.renew_now()
            return await super().complete(*arguments)

    world = World(sessions=Renewed(session()))
    if turns:
        world.keep(*turns)

    assert world.sweep() == SweepSessionsResult()
    assert (world.session.status, world.session.due_at) == ("active", GIVEN_UP)
    assert world.transcripts.kept.keys() == world.transcripts.expiring

    assert world.sweep() == SweepSessionsResult()
    assert (world.session.status, world.session.due_at) == ("active", GIVEN_UP + 600)


def test_a_completed_session_that_cannot_be_queued_is_picked_up_by_the_next_run() -> None:
    world = World(session(), queue=QueueThatCannotPut())
    world.keep(*TURNS)

    assert world.sweep() == SweepSessionsResult(errors=1)
    assert (world.session.status, world.session.due_at) == ("completed", GIVEN_UP + 120)

    world.queue, world.clock.now = FakeExtractionQueue(), GIVEN_UP + 120
    assert world.sweep() == SweepSessionsResult(queued=1)
    assert world.queue.waiting == [SESSION_ID]


# ---- Calls over their cap -------------------------------------------------------------------------------


def test_a_call_over_its_cap_is_hung_up_and_waits_for_its_transcript() -> None:
    world = World(with_cap(NOW, due_at=NOW + 75), now=NOW + 75)

    assert world.sweep() == SweepSessionsResult(hung_up=1)

    assert world.rooms.closed == [SESSION_ID]
    assert (world.session.status, world.session.end_reason, world.session.hung_up_at) == ("active", "cap", NOW + 75)
    assert world.session.due_at == GIVEN_UP
    assert world.sweep() == SweepSessionsResult()


def test_a_call_is_given_fifteen_seconds_more_than_its_cap() -> None:
    world = World(with_cap(NOW, due_at=NOW + 74), now=NOW + 74)

    assert world.sweep() == SweepSessionsResult()

    assert (world.rooms.closed, world.session.due_at) == ([], NOW + 75)


def test_a_call_whose_room_could_not_be_closed_is_hung_up_again() -> None:
    world = World(replace(session(), hung_up_at=NOW + 60, end_reason="stopped", due_at=NOW + 60), now=NOW + 61)

    assert world.sweep() == SweepSessionsResult(hung_up=1)

    assert world.rooms.closed == [SESSION_ID]
    assert (world.session.end_reason, world.session.hung_up_at) == ("stopped", NOW + 60)
    assert world.session.due_at == GIVEN_UP


def test_while_livekit_is_down_a_call_over_its_cap_stays_due() -> None:
    world = World(with_cap(NOW, due_at=NOW + 75), now=NOW + 75, rooms=FailingRooms(LiveKitUnavailable()))

    assert world.sweep() == SweepSessionsResult(errors=1)
    assert (world.session.is_on, world.session.end_reason, world.session.due_at) == (False, "cap", NOW + 75)

    world.rooms, world.clock.now = FakeRooms(), NOW + 135
    assert world.sweep() == SweepSessionsResult(hung_up=1)
    assert world.session.due_at == GIVEN_UP


# ---- What was left behind of sessions that ended --------------------------------------------------------


def completed(status: Any = "pending", **changes: Any) -> Session:
    ended = replace(session(), status="completed", transcript_id=TRANSCRIPT_ID, turns=2, due_at=NOW + 120)
    return replace(ended, extraction=Extraction(status=status), **changes)


def test_an_extraction_that_was_left_behind_is_queued_and_looked_after_later() -> None:
    world = World(completed(), now=NOW + 120)

    assert world.sweep() == SweepSessionsResult(queued=1)

    assert (world.queue.waiting, world.rooms.closed) == ([SESSION_ID], [SESSION_ID])
    assert world.session == completed(due_at=NOW + 120 + 3_600)
    assert world.sweep() == SweepSessionsResult()


def test_an_extraction_that_cannot_be_queued_stays_due() -> None:
    world = World(completed(), now=NOW + 120, queue=QueueThatCannotPut())

    assert world.sweep() == SweepSessionsResult(errors=1)
    assert world.session == completed()


@pytest.mark.parametrize(
    "ended",
    [completed("succeeded"), completed("failed"), completed("skipped"), replace(completed(), extraction=None)],
    ids=lambda ended: str(ended.extraction and ended.extraction.status),
)
def test_a_room_that_was_left_open_is_closed_and_the_session_is_due_no_more(ended: Session) -> None:
    world = World(ended, now=NOW + 120)

    assert world.sweep() == SweepSessionsResult(hung_up=1)

    assert world.session == replace(ended, due_at=None)
    assert (world.queue.waiting, world.rooms.closed) == ([], [SESSION_ID])
    assert world.sweep() == SweepSessionsResult()


def test_a_room_that_livekit_does_not_close_is_tried_again_by_each_run() -> None:
    world = World(completed("succeeded"), now=NOW + 120, rooms=FailingRooms(LiveKitUnavailable()))

    assert world.sweep() == SweepSessionsResult(errors=1)
    assert world.session == completed("succeeded")

    world.rooms, world.clock.now = FakeRooms(), NOW + 180
    assert world.sweep() == SweepSessionsResult(hung_up=1)
    assert world.session.due_at is None


def test_a_room_that_livekit_has_not_closed_for_a_day_is_let_go() -> None:
    world = World(completed("succeeded"), now=GIVEN_UP, rooms=FailingRooms(LiveKitUnavailable()))

    assert world.sweep() == SweepSessionsResult(hung_up=1)
    assert world.session.due_at is None


def test_results_do_not_wait_for_livekit() -> None:
    world = World(completed(), now=NOW + 120, rooms=FailingRooms(LiveKitUnavailable()))

    assert world.sweep() == SweepSessionsResult(queued=1)
    assert world.queue.waiting == [SESSION_ID]

    world.rooms, world.clock.now = FakeRooms(), NOW + 120 + 3_600
    assert world.sweep() == SweepSessionsResult(queued=1)
    assert world.rooms.closed == [SESSION_ID]


# ---- Many of them ---------------------------------------------------------------------------------------


def test_every_shard_is_looked_at() -> None:
    world = World(*(one_of_many(number) for number in range(2 * DUE_SHARDS)))

    assert world.sweep() == SweepSessionsResult(failed=2 * DUE_SHARDS)
    assert {kept.status for kept in world.sessions.kept.values()} == {"failed"}


@pytest.mark.parametrize("number", [1, 7, 8, 9, 17])
def test_of_many_in_one_shard_none_is_left_out(number: int) -> None:
    world = World(*(one_of_many(DUE_SHARDS * each) for each in range(number)))

    assert world.sweep() == SweepSessionsResult(failed=number)


def test_one_session_that_fails_does_not_stop_the_others() -> None:
    class Broken(FakeSessions):
        async def get(self, session_id: SessionId) -> Session | None:
            found = await super().get(session_id)
            if found is not None and found.metadata.get("row") == "broken":
                raise RuntimeError("a row that cannot be read")
            if found is not None and found.metadata.get("row") == "refused":
                raise StorageError
            return found

    rows = ["", "broken", "", "refused", ""]
    world = World(sessions=Broken(*(one_of_many(DUE_SHARDS * n, metadata={"row": row}) for n, row in enumerate(rows))))

    assert world.sweep() == SweepSessionsResult(failed=3, errors=2)


def test_a_session_that_is_gone_or_not_due_any_more_is_left_alone() -> None:
    class BehindTheTable(FakeSessions):
        """An index that still has what the table has not any more."""

        async def due(self, shard: int, now: int) -> AsyncIterator[SessionId]:
            async for session_id in super().due(shard, now):
                yield session_id
            if shard == 0:
                for behind in (id_of(1), id_of(2), id_of(3)):
                    yield behind

    later, never = one_of_many(1, due_at=GIVEN_UP + 1), one_of_many(2, due_at=None)
    world = World(sessions=BehindTheTable(later, never))

    assert world.sweep() == SweepSessionsResult()
    assert world.sessions.kept == {later.session_id: later, never.session_id: never}


def test_two_sweepers_at_once_do_nothing_twice() -> None:
    many = [one_of_many(number) for number in range(20)]
    world = World(*many, with_cap(GIVEN_UP - 75, due_at=GIVEN_UP, expires_at=GIVEN_UP))
    for each in many[:10]:
        world.keep(*TURNS, of=each.session_id)

    runs = world.sweep_twice_at_once()

    assert sum(run.completed for run in runs) == 10
    assert sum(run.failed for run in runs) == 10
    assert world.session.end_reason == "cap"
    assert [run.errors for run in runs] == [0, 0]
    done = [world.sessions.kept[each.session_id] for each in many[:10]]
    stays = {kept.transcript_id for kept in done}
    assert world.transcripts.kept.keys() - world.transcripts.expiring == stays
    assert all(world.transcripts.kept[each] == TURNS for each in stays if each)


class SlowSessions(FakeSessions):
    """Every session that is read takes its time."""

    def __init__(self, clock: FakeClock, seconds: float, *sessions: Session) -> None:
        super().__init__(*sessions)
        self._clock = clock
        self._seconds = seconds

    async def get(self, session_id: SessionId) -> Session | None:
        self._clock.now += self._seconds
        return await super().get(session_id)


def test_a_run_stops_in_time_and_the_next_ones_do_the_rest() -> None:
    clock = FakeClock(GIVEN_UP)
    world = World(sessions=SlowSessions(clock, 1.0, *(one_of_many(DUE_SHARDS * number) for number in range(100))))
    world.clock = clock

    first = world.sweep()
    began = clock.now
    second = world.sweep()

    assert first == SweepSessionsResult(failed=48)  # six times eight: the time was over after 45 s
    assert second.failed == 48
    assert clock.now - began <= 45 + 8
    assert world.sweep() == SweepSessionsResult(failed=4)


def test_a_shard_that_takes_all_the_time_does_not_always_come_first() -> None:
    def run() -> str:
        clock = FakeClock(GIVEN_UP)
        full = [one_of_many(DUE_SHARDS * number) for number in range(60)]
        world = World(sessions=SlowSessions(clock, 1.0, *full, one_of_many(1)))
        world.clock = clock
        world.sweep()
        return world.sessions.kept[id_of(1)].status

    assert "failed" in {run() for _ in range(100)}


def test_shards_that_cannot_be_read_are_told_by_a_run_that_fails() -> None:
    class Unreadable(FakeSessions):
        async def due(self, shard: int, now: int) -> AsyncIterator[SessionId]:
            async for session_id in super().due(shard, now):
                yield session_id
            raise StorageError

    with pytest.raises(StorageError):
        World(sessions=Unreadable(session())).sweep()
