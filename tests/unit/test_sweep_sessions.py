import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain.duties import Duties, Duty
from pi_voice.domain.errors import LiveKitUnavailable, StorageError, UnreadableRow, UpstreamTimeout
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import SessionId, TranscriptId
from pi_voice.domain.sessions import Session, Tombstone
from pi_voice.domain.sweeps import SweepSessionsResult
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.domain.webhook_events import OwedEvent
from pi_voice.ports import DueSession, SessionQueues
from pi_voice.use_cases.end_session import EndSession
from pi_voice.use_cases.stop_session import StopSession
from pi_voice.use_cases.sweep_sessions import SweepSessions
from tests.support.fakes import (
    CheckpointsThatCannotRead,
    FailingRooms,
    FakeCheckpoints,
    FakeClock,
    FakeRooms,
    FakeSessionQueue,
    FakeSessions,
    FakeToolCalls,
    FakeTranscripts,
    QueueThatCannotPut,
    TranscriptsThatCannotDelete,
)
from tests.unit.examples import ABANDONED_AT, NOW, SESSION_ID, TURNS, session, without_events

CLOSE_AGAIN = {"close_room": NOW + 660}
TRANSCRIPT_ID = TranscriptId("019a0000-0000-7000-8000-0000000000aa")


def id_of(number: int) -> SessionId:
    return SessionId(f"019a0000-0000-7000-8000-{0x1000 + number:012x}")


def numbered_session(number: int, **changes: Any) -> Session:
    """Make one of many sessions, with an id of its own."""
    room = session().livekit.model_copy(update={"room_name": id_of(number)})
    return replace(session(), session_id=id_of(number), livekit=room, **changes)


def capped_session(joined_at: int, hang_up: int) -> Session:
    """Make a session with a cap of a minute and a first join, to be hung up at a time."""
    room = session().livekit.model_copy(update={"first_joined_at": joined_at})
    duties = session().duties.plus(hang_up=hang_up)
    return replace(session(), max_duration_seconds=60, livekit=room, duties=duties)


class Setup:
    """A SweepSessions on fakes."""

    def __init__(
        self,
        *stored: Session,
        now: float = ABANDONED_AT,
        sessions: FakeSessions | None = None,
        checkpoints: FakeCheckpoints | None = None,
        queue: FakeSessionQueue | None = None,
        rooms: FakeRooms | None = None,
        clock: FakeClock | None = None,
    ) -> None:
        self.sessions = sessions or FakeSessions(*stored)
        self.transcripts = FakeTranscripts()
        self.checkpoints = checkpoints or FakeCheckpoints(self.sessions)
        self.queue = queue or FakeSessionQueue()
        self.event_queue = FakeSessionQueue()
        self.rooms = rooms or FakeRooms()
        self.clock = clock or FakeClock(now)

    @property
    def sweep_sessions(self) -> SweepSessions:
        """A new sweeper, with the setup's current fakes."""
        end_session = EndSession(self.sessions, self.transcripts, self.checkpoints, self.clock)
        stop_session = StopSession(self.sessions, FakeToolCalls(), self.rooms, self.clock)
        queues = SessionQueues(self.queue, self.event_queue)
        return SweepSessions(
            self.sessions, self.transcripts, end_session, stop_session, self.rooms, queues, clock=self.clock
        )

    def sweep(self, later: int = 0) -> SweepSessionsResult:
        """Run the sweeper, some seconds later."""
        self.clock.now += later
        return asyncio.run(self.sweep_sessions())

    def sweep_twice_concurrently(self) -> list[SweepSessionsResult]:
        async def race() -> list[SweepSessionsResult]:
            return list(await asyncio.gather(self.sweep_sessions(), self.sweep_sessions()))

        return asyncio.run(race())

    def save(self, *turns: TranscriptTurn, session_id: SessionId = SESSION_ID) -> None:
        """Save turns as checkpoints of a session, and dispatch the event of the first one."""
        assert asyncio.run(self.checkpoints.append(self.sessions.stored[session_id], turns, 100, NOW))
        stored = self.sessions.stored[session_id]
        asyncio.run(self.sessions.clear_owed_events(stored, [event.event_id for event in stored.owed_events]))

    @property
    def session(self) -> Session:
        """The stored session."""
        return self.sessions.stored[SESSION_ID]


# ---- Abandoned sessions ---------------------------------------------------------------------------------


def test_an_abandoned_session_is_completed_with_its_checkpoints() -> None:
    setup = Setup(session())
    setup.save(*TURNS)

    assert setup.sweep() == SweepSessionsResult(completed=1)

    ended = setup.session
    assert (ended.status, ended.completed_by, ended.end_reason) == ("completed", "sweeper", "expired")
    assert (ended.completed_at, ended.duration_seconds) == (ABANDONED_AT, None)
    assert ended.transcript_id is not None
    assert setup.transcripts.stored == {(SESSION_ID, ended.transcript_id): TURNS}
    assert ended.extraction == Extraction(status="pending")
    assert without_events(ended.duties) == Duties().plus(close_room=ABANDONED_AT, extract=ABANDONED_AT)


def test_the_next_run_queues_its_extraction_and_closes_its_room() -> None:
    setup = Setup(session())
    setup.save(*TURNS)
    setup.sweep()

    assert setup.sweep() == SweepSessionsResult(queued=1, rooms_closed=1)

    assert (setup.queue.session_ids, setup.rooms.closed) == ([SESSION_ID], [SESSION_ID])
    assert without_events(setup.session.duties).due_at == ABANDONED_AT + 3_600


def test_an_abandoned_session_without_checkpoints_fails_with_a_reason() -> None:
    setup = Setup(session())

    assert setup.sweep() == SweepSessionsResult(failed=1)

    ended = setup.session
    assert (ended.status, ended.failed_at, ended.end_reason) == ("failed", ABANDONED_AT, "expired")
    assert ended.failure is not None
    assert ended.failure.code == "expired"
    assert setup.sweep() == SweepSessionsResult(rooms_closed=1)
    assert (setup.rooms.closed, without_events(setup.session.duties)) == ([SESSION_ID], Duties())
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

    assert setup.session.status == "active"
    assert setup.session.duties == Duties().plus(end_call=ABANDONED_AT + 300)  # not counted as a try


def test_a_session_whose_checkpoints_cannot_be_read_is_tried_again_a_minute_later() -> None:
    sessions = FakeSessions(session())
    setup = Setup(sessions=sessions, checkpoints=CheckpointsThatCannotRead(sessions))
    setup.save(*TURNS)

    assert setup.sweep() == SweepSessionsResult(errors=1)
    assert setup.session.status == "active"
    assert setup.session.duties == Duties({"end_call": Duty(ABANDONED_AT + 60, tries=1)})


def test_a_turn_that_is_saved_while_its_session_is_swept_is_not_lost() -> None:
    class SavedMeanwhile(FakeSessions):
        """Turns are saved between the read of the session and its end."""

        async def fail(self, *arguments: Any, **times: Any) -> Session | None:
            setup.checkpoints.stored[SESSION_ID] = TURNS
            self.stored[SESSION_ID] = replace(self.stored[SESSION_ID], checkpoint_turns=2)
            return await super().fail(*arguments, **times)

    setup = Setup(sessions=SavedMeanwhile(session()))

    assert setup.sweep() == SweepSessionsResult()
    assert setup.session.status == "active"
    assert setup.sweep(later=60) == SweepSessionsResult(completed=1)
    assert list(setup.transcripts.stored.values()) == [TURNS]


@pytest.mark.parametrize("turns", [[], TURNS], ids=["without checkpoints", "with checkpoints"])
def test_a_session_that_is_renewed_while_it_is_swept_stays_active(turns: list[TranscriptTurn]) -> None:
    class RenewedMeanwhile(FakeSessions):
        """The session is renewed between its read and its end."""

        def renew_now(self) -> None:
            self.stored[SESSION_ID] = replace(self.stored[SESSION_ID], expires_at=NOW + 1_200)

        async def fail(self, *arguments: Any, **times: Any) -> Session | None:
            self.renew_now()
            return await super().fail(*arguments, **times)

        async def complete(self, *arguments: Any) -> Session | None:
            self.renew_now()
            return await super().complete(*arguments)

    setup = Setup(sessions=RenewedMeanwhile(session()))
    if turns:
        setup.save(*turns)

    assert setup.sweep() == SweepSessionsResult()
    assert setup.session.status == "active"
    assert setup.transcripts.stored.keys() == setup.transcripts.expiring

    assert setup.sweep(later=60) == SweepSessionsResult()
    assert (setup.session.status, setup.session.duties) == ("active", Duties().plus(end_call=ABANDONED_AT + 600))


# ---- Call limits ----------------------------------------------------------------------------------------


def test_a_call_over_its_cap_is_hung_up_and_stays_active() -> None:
    setup = Setup(capped_session(NOW, hang_up=NOW + 75), now=NOW + 75)

    assert setup.sweep() == SweepSessionsResult(hung_up=1)

    assert setup.rooms.closed == [SESSION_ID]
    assert (setup.session.status, setup.session.end_reason, setup.session.hung_up_at) == ("active", "cap", NOW + 75)
    assert setup.session.duties == session().duties.plus(**CLOSE_AGAIN)
    assert setup.sweep() == SweepSessionsResult()


def test_a_call_without_a_cap_expires_an_hour_after_its_creation_and_stays_active() -> None:
    setup = Setup(session().with_first_duties(), now=NOW + 3_615)

    assert setup.sweep().hung_up == 1

    assert setup.rooms.closed == [SESSION_ID]
    assert (setup.session.status, setup.session.end_reason) == ("active", "expired")


def test_a_room_that_could_not_be_closed_at_the_hang_up_is_closed_later() -> None:
    duties = session().duties.plus(close_room=NOW + 60)
    setup = Setup(replace(session(), hung_up_at=NOW + 60, end_reason="stopped", duties=duties), now=NOW + 61)

    assert setup.sweep() == SweepSessionsResult(rooms_closed=1)

    assert setup.rooms.closed == [SESSION_ID]
    assert (setup.session.end_reason, setup.session.hung_up_at) == ("stopped", NOW + 60)
    assert setup.session.duties == session().duties.plus(**CLOSE_AGAIN)


def test_a_call_over_its_cap_is_over_while_livekit_is_down_and_its_room_is_closed_later() -> None:
    setup = Setup(capped_session(NOW, hang_up=NOW + 75), now=NOW + 75, rooms=FailingRooms(LiveKitUnavailable()))

    assert setup.sweep() == SweepSessionsResult(errors=1)
    assert (setup.session.is_ongoing, setup.session.end_reason) == (False, "cap")

    setup.rooms = FakeRooms()
    assert setup.sweep() == SweepSessionsResult(rooms_closed=1)
    assert setup.session.duties == session().duties.plus(**CLOSE_AGAIN)


@pytest.mark.parametrize("changes", [{"status": "completed"}, {"status": "failed"}, {"hung_up_at": NOW + 5}], ids=str)
def test_the_time_limit_of_a_call_that_is_over_does_nothing(changes: dict[str, Any]) -> None:
    over = replace(capped_session(NOW, hang_up=NOW + 75), **changes)
    setup = Setup(over, now=NOW + 75)

    assert setup.sweep() == SweepSessionsResult()
    assert setup.session == replace(over, duties=over.duties.without("hang_up"))


# ---- Ended sessions -------------------------------------------------------------------------------------


def completed_session(status: Any = "pending", **due_at: int) -> Session:
    ended = replace(session(), status="completed", transcript_id=TRANSCRIPT_ID, turns=2)
    return replace(ended, extraction=Extraction(status=status), duties=Duties().plus(**due_at))


def test_a_pending_extraction_is_queued_and_due_again_an_hour_later() -> None:
    setup = Setup(completed_session(extract=NOW + 120), now=NOW + 120)

    assert setup.sweep() == SweepSessionsResult(queued=1)

    assert setup.queue.session_ids == [SESSION_ID]
    assert setup.session.duties == Duties({"extract": Duty(NOW + 3_720, tries=1)})
    assert setup.sweep() == SweepSessionsResult()


def test_an_extraction_that_cannot_be_queued_is_tried_again() -> None:
    setup = Setup(completed_session(extract=NOW + 120), now=NOW + 120, queue=QueueThatCannotPut())

    assert setup.sweep() == SweepSessionsResult(errors=1)

    setup.queue = FakeSessionQueue()
    assert setup.sweep(later=60) == SweepSessionsResult(queued=1)
    assert setup.queue.session_ids == [SESSION_ID]


@pytest.mark.parametrize("status", ["succeeded", "failed", "skipped"])
def test_an_extraction_that_has_ended_is_not_queued(status: str) -> None:
    setup = Setup(completed_session(status, extract=NOW + 120), now=NOW + 120)

    assert setup.sweep() == SweepSessionsResult()
    assert (setup.session, setup.queue.session_ids) == (completed_session(status), [])


def test_an_extraction_whose_worker_always_dies_fails_after_its_last_try(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup(completed_session(extract=NOW), now=NOW)
    setup.sessions.stored[SESSION_ID] = replace(setup.session, extraction=Extraction(status="pending", attempts=4))

    runs = [setup.sweep(later=3_600) for _ in range(11)]

    assert [run.queued for run in runs] == [1] * 10 + [0]
    assert runs[-1] == SweepSessionsResult(given_up=1)
    assert (without_events(setup.session.duties), setup.session.results) == (Duties(), None)
    extraction = setup.session.extraction
    assert extraction is not None
    assert extraction.error is not None
    assert (extraction.status, extraction.attempts, extraction.error.code) == ("failed", 4, "internal_error")
    assert "duty_given_up" in caplog.text


def test_the_room_of_an_ended_session_is_closed_and_once_more_when_its_tokens_have_expired() -> None:
    setup = Setup(completed_session("succeeded", close_room=NOW + 120), now=NOW + 120)

    assert setup.sweep() == SweepSessionsResult(rooms_closed=1)
    assert setup.session == completed_session("succeeded", **CLOSE_AGAIN)
    assert setup.sweep() == SweepSessionsResult()

    setup.clock.now = NOW + 660
    assert setup.sweep() == SweepSessionsResult(rooms_closed=1)
    assert (setup.rooms.closed, setup.session) == ([SESSION_ID, SESSION_ID], completed_session("succeeded"))


def test_closing_a_room_is_retried_for_a_day_and_then_given_up(caplog: pytest.LogCaptureFixture) -> None:
    closing = completed_session("succeeded", close_room=NOW)
    setup = Setup(closing, now=NOW, rooms=FailingRooms(LiveKitUnavailable()))

    runs = []
    while setup.session.duties.due_at is not None:
        setup.clock.now = setup.session.duties.due_at
        runs.append(setup.sweep())

    assert [run.errors for run in runs] == [1] * 30 + [0]
    assert runs[-1] == SweepSessionsResult(given_up=1)
    assert setup.clock.now - NOW == 90_180  # 60 + 120 + ... + 1,920, then 24 hours
    assert "duty_given_up" in caplog.text


def test_the_duties_of_one_session_do_not_wait_for_each_other() -> None:
    both = completed_session(close_room=NOW + 120, extract=NOW + 120)
    setup = Setup(both, now=NOW + 120, rooms=FailingRooms(LiveKitUnavailable()))

    assert setup.sweep() == SweepSessionsResult(queued=1, errors=1)
    assert setup.queue.session_ids == [SESSION_ID]
    assert setup.session.duties == Duties({"close_room": Duty(NOW + 180, 1), "extract": Duty(NOW + 3_720, 1)})


def test_a_duty_of_a_newer_version_is_left_to_it(caplog: pytest.LogCaptureFixture) -> None:
    newer = replace(completed_session("succeeded"), duties=Duties({"send_fax": Duty(NOW, 3)}))
    setup = Setup(newer, now=NOW)

    assert setup.sweep() == SweepSessionsResult()
    assert setup.session.duties == Duties({"send_fax": Duty(NOW + 3_600, 3)})
    assert "duty_unknown" in caplog.text


# ---- Events ---------------------------------------------------------------------------------------------


def owing_session(*, tries: int = 0) -> Session:
    event = OwedEvent.new("session.completed", NOW)
    duties = Duties({"send_events": Duty(NOW + 10, tries)})
    return replace(completed_session("succeeded"), owed_events=(event,), duties=duties)


def test_a_session_whose_events_were_not_sent_is_queued_again_later_each_time() -> None:
    setup = Setup(owing_session(), now=NOW + 10)

    runs = [setup.sweep() for _ in range(2)] + [setup.sweep(later=60) for _ in range(3)]

    assert [run.events_queued for run in runs] == [1, 0, 1, 0, 1]
    assert (setup.event_queue.session_ids, setup.queue.session_ids) == ([SESSION_ID] * 3, [])
    assert setup.session.duties == Duties({"send_events": Duty(NOW + 430, 3)})
    assert [event.type for event in setup.session.owed_events] == ["session.completed"]


def test_events_that_cannot_be_queued_are_tried_again() -> None:
    setup = Setup(owing_session(), now=NOW + 10)
    setup.event_queue = QueueThatCannotPut()

    assert setup.sweep() == SweepSessionsResult(errors=1)
    setup.event_queue = FakeSessionQueue()
    assert setup.sweep(later=60) == SweepSessionsResult(events_queued=1)


def test_events_that_are_never_sent_are_given_up_visibly_and_stay_in_the_row(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup(owing_session(tries=30), now=NOW + 10)

    assert setup.sweep() == SweepSessionsResult(given_up=1)

    assert setup.session.duties == Duties()
    assert [event.type for event in setup.session.owed_events] == ["session.completed"]
    [line] = [vars(record) for record in caplog.records if record.message == "duty_given_up"]
    assert (line["session_id"], line["duty"]) == (SESSION_ID, "send_events")


# ---- Deleted sessions -----------------------------------------------------------------------------------


def test_the_room_of_a_deleted_session_is_closed_and_once_more_when_its_tokens_have_expired() -> None:
    setup = Setup(now=NOW)
    duties = Duties().plus(close_room=NOW)
    setup.sessions.tombstones[SESSION_ID] = Tombstone(SESSION_ID, duties, tokens_end_at=NOW + 660)

    assert setup.sweep() == SweepSessionsResult(rooms_closed=1)
    assert setup.sessions.tombstones[SESSION_ID].duties == Duties().plus(close_room=NOW + 660)
    assert setup.sweep(later=660) == SweepSessionsResult(rooms_closed=1)
    assert (setup.rooms.closed, setup.sessions.tombstones) == ([SESSION_ID, SESSION_ID], {})


def test_the_transcript_of_a_deleted_session_is_deleted_once_more_and_its_room_closed() -> None:
    setup = Setup(now=NOW)
    duties = Duties().plus(delete_again=NOW + 900, close_room=NOW + 960)
    setup.sessions.tombstones[SESSION_ID] = Tombstone(SESSION_ID, duties, tokens_end_at=NOW + 960)
    setup.transcripts.stored[SESSION_ID, TRANSCRIPT_ID] = TURNS  # by a request that lost a race

    assert setup.sweep(later=900) == SweepSessionsResult(deleted=1)
    assert setup.transcripts.stored == {}
    assert setup.sweep(later=60) == SweepSessionsResult(rooms_closed=1)
    assert (setup.rooms.closed, setup.sessions.tombstones) == ([SESSION_ID], {})


def test_a_tombstone_stays_until_its_transcript_is_deleted() -> None:
    setup = Setup(now=NOW)
    setup.transcripts = TranscriptsThatCannotDelete()
    setup.sessions.tombstones[SESSION_ID] = Tombstone(SESSION_ID, Duties().plus(delete_again=NOW))

    assert setup.sweep() == SweepSessionsResult(errors=1)
    assert setup.sessions.tombstones[SESSION_ID].duties == Duties({"delete_again": Duty(NOW + 60, 1)})


# ---- Many sessions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 7, 8, 9, 17, 32])
def test_all_due_sessions_are_processed(number: int) -> None:
    setup = Setup(*(numbered_session(each) for each in range(number)))

    assert setup.sweep() == SweepSessionsResult(failed=number)
    assert {stored.status for stored in setup.sessions.stored.values()} == {"failed"}


def test_an_error_in_one_session_does_not_affect_the_others() -> None:
    class PartlyBroken(FakeSessions):
        async def duties(self, session_id: SessionId) -> Duties | None:
            match self.stored[session_id].metadata.get("row"):
                case "refused":
                    raise StorageError
                case "broken":
                    raise UnreadableRow
            return await super().duties(session_id)

    rows = ["", "broken", "", "refused", ""]
    sessions = PartlyBroken(*(numbered_session(n, metadata={"row": row}) for n, row in enumerate(rows)))

    assert Setup(sessions=sessions).sweep() == SweepSessionsResult(failed=3, errors=2)


def test_a_defect_in_one_duty_does_not_affect_the_others() -> None:
    class Defective(FakeRooms):
        async def close(self, session_id: SessionId) -> None:
            if session_id == id_of(1):
                raise RuntimeError("a defect")
            await super().close(session_id)

    closing = [numbered_session(n, status="failed", duties=Duties().plus(close_room=NOW)) for n in range(3)]

    assert Setup(*closing, now=NOW, rooms=Defective()).sweep() == SweepSessionsResult(rooms_closed=2, errors=1)


def test_a_row_that_cannot_be_read_is_put_off_for_an_hour() -> None:
    setup = Setup(now=NOW)
    setup.sessions.unreadable[SESSION_ID] = NOW

    assert setup.sweep() == SweepSessionsResult(errors=1)
    assert setup.sessions.unreadable == {SESSION_ID: NOW + 3_600}


def test_a_row_that_can_never_be_read_is_given_up_visibly(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup(now=NOW)
    setup.sessions.unreadable[SESSION_ID] = NOW
    setup.sessions.is_put_off_too_often = True

    assert setup.sweep() == SweepSessionsResult(errors=1)
    assert setup.sessions.unreadable == {}
    assert "duty_given_up" in caplog.text


def test_a_session_that_is_deleted_or_no_longer_due_is_skipped() -> None:
    class LaggingIndex(FakeSessions):
        """An index that lags behind the table."""

        async def due(self, now: int) -> AsyncIterator[list[DueSession]]:
            async for page in super().due(now):
                yield page
            yield [DueSession(id_of(number), now) for number in (1, 2, 3)]

    later = numbered_session(1, duties=Duties().plus(end_call=ABANDONED_AT + 1))
    never = numbered_session(2, duties=Duties())
    setup = Setup(sessions=LaggingIndex(later, never))

    assert setup.sweep() == SweepSessionsResult()
    assert setup.sessions.stored == {later.session_id: later, never.session_id: never}


def test_two_concurrent_runs_do_nothing_twice() -> None:
    many = [numbered_session(number) for number in range(20)]
    setup = Setup(*many, replace(capped_session(ABANDONED_AT - 75, hang_up=ABANDONED_AT), expires_at=ABANDONED_AT))
    for each in many[:10]:
        setup.save(*TURNS, session_id=each.session_id)

    runs = setup.sweep_twice_concurrently()

    assert sum(run.completed for run in runs) == 10
    assert sum(run.failed for run in runs) == 10
    assert setup.session.end_reason == "cap"
    assert [run.errors for run in runs] == [0, 0]
    completed = [setup.sessions.stored[each.session_id] for each in many[:10]]
    kept = {key: turns for key, turns in setup.transcripts.stored.items() if key not in setup.transcripts.expiring}
    assert kept == {(each.session_id, each.transcript_id): TURNS for each in completed}


class HangingRooms(FakeRooms):
    """LiveKit never answers; each request ends at its time limit."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    async def close(self, session_id: SessionId) -> None:  # noqa: ARG002
        ends_at = self._clock.now + 5.0
        while self._clock.now < ends_at:  # several requests wait at the same time
            await asyncio.sleep(0)
            self._clock.now += 0.001
        raise UpstreamTimeout


def test_rooms_that_cannot_be_closed_keep_no_extraction_waiting() -> None:
    rooms = [numbered_session(n, status="failed", duties=Duties().plus(close_room=NOW)) for n in range(3_600)]
    pending = [replace(completed_session(extract=NOW + 60), session_id=id_of(number)) for number in range(3_600, 3_616)]
    clock = FakeClock(NOW + 60)
    setup = Setup(*rooms, *pending, clock=clock, rooms=HangingRooms(clock))

    result = setup.sweep()

    assert (result.queued, sorted(setup.queue.session_ids)) == (16, [each.session_id for each in pending])
    assert 0 < result.errors < 3_600
    assert clock.now <= NOW + 60 + 30 + 5 + 1


def test_what_one_run_does_not_reach_is_left_untouched_to_the_next() -> None:
    rooms = [numbered_session(n, status="failed", duties=Duties().plus(close_room=NOW)) for n in range(200)]
    clock = FakeClock(NOW)
    setup = Setup(*rooms, clock=clock, rooms=HangingRooms(clock))

    tried = setup.sweep().errors

    duties = [each.duties.get("close_room") for each in setup.sessions.stored.values()]
    assert duties.count(Duty(NOW)) == 200 - tried
    setup.rooms = FakeRooms()
    assert 200 - tried <= setup.sweep().rooms_closed <= 200


def test_a_run_fails_if_the_index_cannot_be_read() -> None:
    class UnreadableIndex(FakeSessions):
        async def due(self, now: int) -> AsyncIterator[list[DueSession]]:
            async for page in super().due(now):
                yield page
            raise StorageError

    setup = Setup(sessions=UnreadableIndex(numbered_session(1)))

    with pytest.raises(StorageError):
        setup.sweep()
    assert [each.status for each in setup.sessions.stored.values()] == ["failed"]  # what was found before is processed
