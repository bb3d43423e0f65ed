import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain.errors import LiveKitUnavailable, StorageError
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import SessionId, TranscriptId
from pi_voice.domain.session_api import SweepSessionsResult
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.use_cases.end_session import EndSession
from pi_voice.use_cases.stop_session import StopSession
from pi_voice.use_cases.sweep_sessions import SweepSessions
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
from tests.unit.examples import ABANDONED_AT, NOW, SESSION_ID, TURNS, session

TRANSCRIPT_ID = TranscriptId("019a0000-0000-7000-8000-0000000000aa")


def id_of(number: int) -> SessionId:
    return SessionId(f"019a0000-0000-7000-8000-{0x1000 + number:012x}")


def numbered_session(number: int, **changes: Any) -> Session:
    """Make one of many sessions, with an id of its own."""
    room = session().livekit.model_copy(update={"room_name": id_of(number)})
    return replace(session(), session_id=id_of(number), livekit=room, **changes)


def capped_session(joined_at: int | None, **changes: Any) -> Session:
    """Make a session with a cap of a minute and a first join."""
    room = session().livekit.model_copy(update={"first_joined_at": joined_at})
    return replace(session(), max_duration_seconds=60, livekit=room, **changes)


class Setup:
    """A SweepSessions on fakes."""

    def __init__(
        self,
        *stored: Session,
        now: float = ABANDONED_AT,
        sessions: FakeSessions | None = None,
        checkpoints: FakeCheckpoints | None = None,
        queue: FakeExtractionQueue | None = None,
        rooms: FakeRooms | None = None,
        clock: FakeClock | None = None,
    ) -> None:
        self.sessions = sessions or FakeSessions(*stored)
        self.transcripts = FakeTranscripts()
        self.checkpoints = checkpoints or FakeCheckpoints(self.sessions)
        self.queue = queue or FakeExtractionQueue()
        self.rooms = rooms or FakeRooms()
        self.clock = clock or FakeClock(now)

    @property
    def sweep_sessions(self) -> SweepSessions:
        end_session = EndSession(self.sessions, self.transcripts, self.checkpoints, self.clock)
        stop_session = StopSession(self.sessions, self.rooms, self.clock)
        return SweepSessions(self.sessions, end_session, stop_session, self.queue, self.clock)

    def sweep(self) -> SweepSessionsResult:
        return asyncio.run(self.sweep_sessions())

    def sweep_twice_concurrently(self) -> list[SweepSessionsResult]:
        async def race() -> list[SweepSessionsResult]:
            return list(await asyncio.gather(self.sweep_sessions(), self.sweep_sessions()))

        return asyncio.run(race())

    def save(self, *turns: TranscriptTurn, session_id: SessionId = SESSION_ID) -> None:
        """Save turns as checkpoints of a session."""
        assert asyncio.run(self.checkpoints.append(self.sessions.stored[session_id], turns, 100))

    @property
    def session(self) -> Session:
        """The stored session."""
        return self.sessions.stored[SESSION_ID]


# ---- Abandoned sessions ---------------------------------------------------------------------------------


def test_an_abandoned_session_is_completed_with_its_checkpoints_and_its_extraction_is_queued() -> None:
    setup = Setup(session())
    setup.save(*TURNS)

    assert setup.sweep() == SweepSessionsResult(completed=1)

    assert (setup.session.status, setup.session.completed_by, setup.session.end_reason) == (
        "completed",
        "sweeper",
        "expired",
    )
    assert (setup.session.completed_at, setup.session.duration_seconds) == (ABANDONED_AT, None)
    assert setup.session.transcript_id is not None
    assert setup.transcripts.stored == {setup.session.transcript_id: TURNS}
    assert setup.session.extraction == Extraction(status="pending")
    assert (setup.queue.session_ids, setup.rooms.closed) == ([SESSION_ID], [SESSION_ID])
    assert setup.session.duties.due_at == ABANDONED_AT + 3_600


def test_an_abandoned_session_without_checkpoints_fails_with_a_reason() -> None:
    setup = Setup(session())

    assert setup.sweep() == SweepSessionsResult(failed=1)

    assert (setup.session.status, setup.session.failed_at, setup.session.end_reason) == (
        "failed",
        ABANDONED_AT,
        "expired",
    )
    assert setup.session.failure is not None
    assert setup.session.failure.code == "expired"
    assert setup.session.duties.due_at is None
    assert setup.rooms.closed == [SESSION_ID]
    assert (setup.transcripts.stored, setup.queue.session_ids) == ({}, [])


@pytest.mark.parametrize("turns", [TURNS, []], ids=["with turns", "without"])
def test_an_abandoned_session_that_was_hung_up_keeps_its_end_reason(turns: list[TranscriptTurn]) -> None:
    setup = Setup(replace(session(), hung_up_at=NOW + 60, end_reason="stopped"))
    if turns:
        setup.save(*turns)

    assert setup.sweep() in (SweepSessionsResult(completed=1), SweepSessionsResult(failed=1))
    assert setup.session.end_reason == "stopped"


@pytest.mark.parametrize("now", [NOW, NOW + 600, ABANDONED_AT - 1])
def test_a_session_is_not_abandoned_before_its_grace_time_is_over(now: int) -> None:
    setup = Setup(session(), now=now)
    setup.save(*TURNS)
    before = setup.session

    assert setup.sweep() == SweepSessionsResult()
    assert setup.session == before


def test_a_renewed_session_is_abandoned_later() -> None:
    setup = Setup(replace(session(), expires_at=NOW + 900))  # renewal does not change the due time

    assert setup.sweep() == SweepSessionsResult()

    assert (setup.session.status, setup.session.duties.due_at) == ("active", ABANDONED_AT + 300)


def test_a_session_whose_checkpoints_cannot_be_read_stays_due() -> None:
    sessions = FakeSessions(session())
    setup = Setup(sessions=sessions, checkpoints=CheckpointsThatCannotRead(sessions))
    setup.save(*TURNS)
    before = setup.session

    assert setup.sweep() == SweepSessionsResult(errors=1)
    assert setup.session == before


def test_a_turn_that_is_saved_while_its_session_is_swept_is_not_lost() -> None:
    class SavedMeanwhile(FakeSessions):
        """Turns are saved between the read of the session and its end."""

        async def fail(self, failed: Session) -> Session | None:
            setup.checkpoints.stored[SESSION_ID] = TURNS
            self.stored[SESSION_ID] = replace(self.stored[SESSION_ID], checkpoint_turns=2)
            return await super().fail(failed)

    setup = Setup(sessions=SavedMeanwhile(session()))

    assert setup.sweep() == SweepSessionsResult()
    assert setup.session.status == "active"
    assert setup.sweep() == SweepSessionsResult(completed=1)
    assert list(setup.transcripts.stored.values()) == [TURNS]


@pytest.mark.parametrize("turns", [[], TURNS], ids=["without checkpoints", "with checkpoints"])
def test_a_session_that_is_renewed_while_it_is_swept_stays_active(turns: list[TranscriptTurn]) -> None:
    class RenewedMeanwhile(FakeSessions):
        """The session is renewed between its read and its end."""

        def renew_now(self) -> None:
            self.stored[SESSION_ID] = replace(self.stored[SESSION_ID], expires_at=NOW + 1_200)

        async def fail(self, *arguments: Any) -> Session | None:
            self.renew_now()
            return await super().fail(*arguments)

        async def complete(self, *arguments: Any) -> Session | None:
            self.renew_now()
            return await super().complete(*arguments)

    setup = Setup(sessions=RenewedMeanwhile(session()))
    if turns:
        setup.save(*turns)

    assert setup.sweep() == SweepSessionsResult()
    assert (setup.session.status, setup.session.duties.due_at) == ("active", ABANDONED_AT)
    assert setup.transcripts.stored.keys() == setup.transcripts.expiring

    assert setup.sweep() == SweepSessionsResult()
    assert (setup.session.status, setup.session.duties.due_at) == ("active", ABANDONED_AT + 600)


def test_a_completed_session_that_cannot_be_queued_is_queued_by_the_next_run() -> None:
    setup = Setup(session(), queue=QueueThatCannotPut())
    setup.save(*TURNS)

    assert setup.sweep() == SweepSessionsResult(errors=1)
    assert (setup.session.status, setup.session.duties.due_at) == ("completed", ABANDONED_AT + 120)

    setup.queue, setup.clock.now = FakeExtractionQueue(), ABANDONED_AT + 120
    assert setup.sweep() == SweepSessionsResult(queued=1)
    assert setup.queue.session_ids == [SESSION_ID]


# ---- Call limits ----------------------------------------------------------------------------------------


def test_a_call_over_its_cap_is_hung_up_and_stays_active() -> None:
    setup = Setup(capped_session(NOW, due_at=NOW + 75), now=NOW + 75)

    assert setup.sweep() == SweepSessionsResult(hung_up=1)

    assert setup.rooms.closed == [SESSION_ID]
    assert (setup.session.status, setup.session.end_reason, setup.session.hung_up_at) == ("active", "cap", NOW + 75)
    assert setup.session.duties.due_at == ABANDONED_AT
    assert setup.sweep() == SweepSessionsResult()


def test_a_call_is_hung_up_15_seconds_after_its_cap() -> None:
    setup = Setup(capped_session(NOW, due_at=NOW + 74), now=NOW + 74)

    assert setup.sweep() == SweepSessionsResult()

    assert (setup.rooms.closed, setup.session.duties.due_at) == ([], NOW + 75)


def test_a_room_that_could_not_be_closed_at_the_hang_up_is_closed_later() -> None:
    setup = Setup(replace(session(), hung_up_at=NOW + 60, end_reason="stopped", due_at=NOW + 60), now=NOW + 61)

    assert setup.sweep() == SweepSessionsResult(hung_up=1)

    assert setup.rooms.closed == [SESSION_ID]
    assert (setup.session.end_reason, setup.session.hung_up_at) == ("stopped", NOW + 60)
    assert setup.session.duties.due_at == ABANDONED_AT


def test_a_call_over_its_cap_stays_due_while_livekit_is_down() -> None:
    setup = Setup(capped_session(NOW, due_at=NOW + 75), now=NOW + 75, rooms=FailingRooms(LiveKitUnavailable()))

    assert setup.sweep() == SweepSessionsResult(errors=1)
    assert (setup.session.is_ongoing, setup.session.end_reason, setup.session.duties.due_at) == (False, "cap", NOW + 75)

    setup.rooms, setup.clock.now = FakeRooms(), NOW + 135
    assert setup.sweep() == SweepSessionsResult(hung_up=1)
    assert setup.session.duties.due_at == ABANDONED_AT


# ---- Ended sessions -------------------------------------------------------------------------------------


def completed_session(status: Any = "pending", **changes: Any) -> Session:
    ended = replace(session(), status="completed", transcript_id=TRANSCRIPT_ID, turns=2, due_at=NOW + 120)
    return replace(ended, extraction=Extraction(status=status), **changes)


def test_a_pending_extraction_is_queued_again_and_checked_an_hour_later() -> None:
    setup = Setup(completed_session(), now=NOW + 120)

    assert setup.sweep() == SweepSessionsResult(queued=1)

    assert (setup.queue.session_ids, setup.rooms.closed) == ([SESSION_ID], [SESSION_ID])
    assert setup.session == completed_session(due_at=NOW + 120 + 3_600)
    assert setup.sweep() == SweepSessionsResult()


def test_a_session_whose_extraction_cannot_be_queued_stays_due() -> None:
    setup = Setup(completed_session(), now=NOW + 120, queue=QueueThatCannotPut())

    assert setup.sweep() == SweepSessionsResult(errors=1)
    assert setup.session == completed_session()


@pytest.mark.parametrize(
    "ended",
    [
        completed_session("succeeded"),
        completed_session("failed"),
        completed_session("skipped"),
        replace(completed_session(), extraction=None),
    ],
    ids=lambda ended: str(ended.extraction and ended.extraction.status),
)
def test_the_room_of_an_ended_session_is_closed_and_its_due_time_cleared(ended: Session) -> None:
    setup = Setup(ended, now=NOW + 120)

    assert setup.sweep() == SweepSessionsResult(hung_up=1)

    assert setup.session == replace(ended, due_at=None)
    assert (setup.queue.session_ids, setup.rooms.closed) == ([], [SESSION_ID])
    assert setup.sweep() == SweepSessionsResult()


def test_closing_a_room_is_retried_by_each_run() -> None:
    setup = Setup(completed_session("succeeded"), now=NOW + 120, rooms=FailingRooms(LiveKitUnavailable()))

    assert setup.sweep() == SweepSessionsResult(errors=1)
    assert setup.session == completed_session("succeeded")

    setup.rooms, setup.clock.now = FakeRooms(), NOW + 180
    assert setup.sweep() == SweepSessionsResult(hung_up=1)
    assert setup.session.duties.due_at is None


def test_closing_a_room_is_not_retried_after_the_grace_time() -> None:
    setup = Setup(completed_session("succeeded"), now=ABANDONED_AT, rooms=FailingRooms(LiveKitUnavailable()))

    assert setup.sweep() == SweepSessionsResult(hung_up=1)
    assert setup.session.duties.due_at is None


def test_an_extraction_is_queued_also_while_livekit_is_down() -> None:
    setup = Setup(completed_session(), now=NOW + 120, rooms=FailingRooms(LiveKitUnavailable()))

    assert setup.sweep() == SweepSessionsResult(queued=1)
    assert setup.queue.session_ids == [SESSION_ID]

    setup.rooms, setup.clock.now = FakeRooms(), NOW + 120 + 3_600
    assert setup.sweep() == SweepSessionsResult(queued=1)
    assert setup.rooms.closed == [SESSION_ID]


# ---- Many sessions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 7, 8, 9, 17, 32])
def test_all_due_sessions_are_processed(number: int) -> None:
    setup = Setup(*(numbered_session(each) for each in range(number)))

    assert setup.sweep() == SweepSessionsResult(failed=number)
    assert {stored.status for stored in setup.sessions.stored.values()} == {"failed"}


def test_an_error_in_one_session_does_not_affect_the_others() -> None:
    class PartlyUnreadable(FakeSessions):
        async def get(self, session_id: SessionId) -> Session | None:
            found = await super().get(session_id)
            if found is not None and found.metadata.get("row") == "malformed":
                raise RuntimeError("malformed row")
            if found is not None and found.metadata.get("row") == "refused":
                raise StorageError
            return found

    rows = ["", "malformed", "", "refused", ""]
    sessions = PartlyUnreadable(*(numbered_session(n, metadata={"row": row}) for n, row in enumerate(rows)))

    assert Setup(sessions=sessions).sweep() == SweepSessionsResult(failed=3, errors=2)


def test_a_session_that_is_deleted_or_no_longer_due_is_skipped() -> None:
    class LaggingIndex(FakeSessions):
        """An index that lags behind the table."""

        async def due(self, now: int) -> AsyncIterator[list[SessionId]]:
            async for page in super().due(now):
                yield page
            yield [id_of(1), id_of(2), id_of(3)]

    later, never = numbered_session(1, due_at=ABANDONED_AT + 1), numbered_session(2, due_at=None)
    setup = Setup(sessions=LaggingIndex(later, never))

    assert setup.sweep() == SweepSessionsResult()
    assert setup.sessions.stored == {later.session_id: later, never.session_id: never}


def test_two_concurrent_runs_do_nothing_twice() -> None:
    many = [numbered_session(number) for number in range(20)]
    setup = Setup(*many, capped_session(ABANDONED_AT - 75, due_at=ABANDONED_AT, expires_at=ABANDONED_AT))
    for each in many[:10]:
        setup.save(*TURNS, session_id=each.session_id)

    runs = setup.sweep_twice_concurrently()

    assert sum(run.completed for run in runs) == 10
    assert sum(run.failed for run in runs) == 10
    assert setup.session.end_reason == "cap"
    assert [run.errors for run in runs] == [0, 0]
    completed = [setup.sessions.stored[each.session_id] for each in many[:10]]
    assert setup.transcripts.stored.keys() - setup.transcripts.expiring == {each.transcript_id for each in completed}
    assert all(setup.transcripts.stored[each.transcript_id] == TURNS for each in completed if each.transcript_id)


class SlowSessions(FakeSessions):
    """Every read takes some seconds."""

    def __init__(self, clock: FakeClock, seconds: float, *sessions: Session) -> None:
        super().__init__(*sessions)
        self._clock = clock
        self._seconds = seconds

    async def get(self, session_id: SessionId) -> Session | None:
        self._clock.now += self._seconds
        return await super().get(session_id)


def test_a_run_ends_at_its_time_limit_and_the_next_runs_process_the_rest() -> None:
    clock = FakeClock(ABANDONED_AT)
    sessions = SlowSessions(clock, 1.0, *(numbered_session(number) for number in range(100)))
    setup = Setup(sessions=sessions, clock=clock)

    first = setup.sweep()
    started_at = clock.now
    second = setup.sweep()

    assert first == SweepSessionsResult(failed=48)  # six batches of eight in 45 seconds
    assert second.failed == 48
    assert clock.now - started_at <= 45 + 8
    assert setup.sweep() == SweepSessionsResult(failed=4)


def test_a_run_fails_if_the_index_cannot_be_read() -> None:
    class UnreadableIndex(FakeSessions):
        async def due(self, now: int) -> AsyncIterator[list[SessionId]]:
            async for page in super().due(now):
                yield page
            raise StorageError

    setup = Setup(sessions=UnreadableIndex(numbered_session(1)))

    with pytest.raises(StorageError):
        setup.sweep()
    assert [each.status for each in setup.sessions.stored.values()] == ["failed"]  # what was found before is processed
