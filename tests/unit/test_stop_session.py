import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain import session_api
from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import InvalidApiKey, LiveKitUnavailable, SessionNotActive, SessionNotFound
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import Session
from pi_voice.ports import SessionCaller
from pi_voice.use_cases.end_session import EndSession
from pi_voice.use_cases.stop_session import StopSession
from tests.support.fakes import (
    FailingRooms,
    FakeCaller,
    FakeCheckpoints,
    FakeClient,
    FakeClock,
    FakeRooms,
    FakeSessions,
    FakeToolCalls,
    FakeTranscripts,
    UnknownCaller,
)
from tests.unit.examples import ABANDONED_AT, CLOSED, NOW, SESSION_ID, TURNS, complete_session_request, session

ACME = FakeCaller("acme")


STOPPED = CLOSED.plus(end_call=ABANDONED_AT)


class Setup:
    """A StopSession on fakes."""

    def __init__(self, stored: Session | None = None, rooms: FakeRooms | None = None) -> None:
        self.sessions = FakeSessions(stored or session())
        self.rooms = rooms or FakeRooms()
        self.clock = FakeClock(NOW + 60)

    @property
    def stop_session(self) -> StopSession:
        return StopSession(self.sessions, FakeToolCalls(), self.rooms, self.clock)

    def stop(self, caller: SessionCaller = ACME) -> session_api.Session:
        return asyncio.run(self.stop_session(SESSION_ID, caller))

    def race(self, *calls: Awaitable[Any]) -> list[Any]:
        """Run calls concurrently, and return their results and exceptions."""

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*calls, return_exceptions=True)

        return asyncio.run(all_of_them())

    @property
    def session(self) -> Session:
        """The stored session."""
        return self.sessions.stored[SESSION_ID]


@pytest.mark.parametrize("caller", [ACME, FakeClient(SESSION_ID)], ids=str)
def test_stopping_a_session_closes_its_room_and_leaves_it_active(caller: SessionCaller) -> None:
    setup = Setup()

    stopped = setup.stop(caller)

    assert (stopped.status, stopped.end_reason, stopped.hung_up_at) == ("active", "stopped", NOW + 60)
    assert stopped.transcript is None
    assert setup.rooms.closed == [SESSION_ID]
    assert setup.session == replace(session(), hung_up_at=NOW + 60, end_reason="stopped", duties=STOPPED)


def test_the_hang_up_is_stored_before_the_room_is_closed() -> None:
    class ObservingRooms(FakeRooms):
        async def close(self, session_id: SessionId) -> None:
            stored.append(setup.session)
            await super().close(session_id)

    stored: list[Session] = []
    setup = Setup(rooms=ObservingRooms())

    setup.stop()

    assert [(each.is_ongoing, each.duties.due_at) for each in stored] == [(False, NOW + 60)]


def test_a_repeated_stop_closes_the_room_again_and_keeps_the_first_time() -> None:
    setup = Setup()
    setup.stop()
    setup.clock.now += 30

    assert setup.stop().hung_up_at == NOW + 60
    assert setup.rooms.closed == [SESSION_ID, SESSION_ID]
    assert setup.session.duties == STOPPED


def test_a_call_that_exceeded_its_cap_keeps_its_end_reason_when_it_is_stopped() -> None:
    setup = Setup(replace(session(), hung_up_at=NOW + 15, end_reason="cap"))

    stopped = setup.stop()

    assert (stopped.end_reason, stopped.hung_up_at) == ("cap", NOW + 15)


def test_a_stop_fails_while_livekit_is_down_and_the_session_is_due_for_the_sweeper() -> None:
    setup = Setup(rooms=FailingRooms(LiveKitUnavailable()))

    with pytest.raises(LiveKitUnavailable):
        setup.stop()

    assert (setup.session.is_ongoing, setup.session.end_reason) == (False, "stopped")
    assert setup.session.duties.due_at == NOW + 60  # now


def test_concurrent_stops_all_succeed() -> None:
    setup = Setup()

    outcomes = setup.race(*(setup.stop_session(SESSION_ID, ACME) for _ in range(10)))

    assert [type(outcome) for outcome in outcomes] == [session_api.Session] * 10
    assert (setup.session.hung_up_at, setup.session.duties) == (NOW + 60, STOPPED)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_an_ended_session_cannot_be_stopped(status: Any) -> None:
    setup = Setup(replace(session(), status=status))

    with pytest.raises(SessionNotActive):
        setup.stop()

    assert (setup.rooms.closed, setup.session.hung_up_at) == ([], None)


@pytest.mark.parametrize("head_start", range(6))
@pytest.mark.parametrize("turns", [TURNS, []], ids=["with turns", "without"])
def test_a_session_that_is_stopped_and_completed_concurrently_is_completed(head_start: int, turns: list[Any]) -> None:
    setup = Setup()
    end_session = EndSession(setup.sessions, FakeTranscripts(), FakeCheckpoints(setup.sessions), setup.clock)

    async def complete() -> None:
        for _ in range(head_start):
            await asyncio.sleep(0)
        await end_session(session(), complete_session_request(transcript=turns), "client")

    stopped, completed = setup.race(setup.stop_session(SESSION_ID, ACME), complete())

    assert completed is None
    assert setup.session.status == "completed"
    assert setup.session.duties == Duties().plus(
        close_room=NOW + 60 + 120, **({"extract": NOW + 60 + 120} if turns else {}), send_events=NOW + 60 + 10
    )
    if isinstance(stopped, SessionNotActive):
        assert (setup.session.end_reason, setup.session.hung_up_at) == ("completed", None)
    else:
        assert (setup.session.end_reason, setup.session.hung_up_at) == ("stopped", NOW + 60)


@pytest.mark.parametrize(
    ("caller", "error"),
    [
        (FakeCaller("globex"), SessionNotFound),
        (FakeClient(SessionId("019a0000-0000-7000-8000-00000000000f")), SessionNotFound),
        (UnknownCaller(), InvalidApiKey),
    ],
    ids=["another workspace", "another session's client", "unknown key"],
)
def test_an_unauthorized_caller_cannot_stop_a_session(caller: SessionCaller, error: type[Exception]) -> None:
    setup = Setup()

    with pytest.raises(error):
        setup.stop(caller)

    assert (setup.rooms.closed, setup.session) == ([], session())
