import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain import session_api
from pi_voice.domain.errors import InvalidApiKey, LiveKitUnavailable, SessionNotActive, SessionNotFound
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import Session
from pi_voice.ports import SessionCaller
from pi_voice.use_cases.end_session import EndSession
from pi_voice.use_cases.stop_session import StopSession
from tests.fakes import (
    FailingRooms,
    FakeCaller,
    FakeCheckpoints,
    FakeClient,
    FakeClock,
    FakeRooms,
    FakeSessions,
    FakeTranscripts,
    UnknownCaller,
)
from tests.unit.examples import GIVEN_UP, NOW, SESSION_ID, TURNS, ending, session

ACME = FakeCaller("acme")


class World:
    """All that hanging up needs, and what became of it."""

    def __init__(self, of: Session | None = None, rooms: FakeRooms | None = None) -> None:
        self.sessions = FakeSessions(of or session())
        self.rooms = rooms or FakeRooms()
        self.clock = FakeClock(NOW + 60)

    @property
    def stop_session(self) -> StopSession:
        return StopSession(self.sessions, self.rooms, self.clock)

    def stop(self, caller: SessionCaller = ACME) -> session_api.Session:
        return asyncio.run(self.stop_session(SESSION_ID, caller))

    def race(self, *calls: Awaitable[Any]) -> list[Any]:
        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*calls, return_exceptions=True)

        return asyncio.run(all_of_them())

    @property
    def session(self) -> Session:
        return self.sessions.kept[SESSION_ID]


@pytest.mark.parametrize("caller", [ACME, FakeClient(SESSION_ID)], ids=str)
def test_a_call_that_is_stopped_loses_its_room_and_stays_active_for_its_transcript(caller: SessionCaller) -> None:
    world = World()

    state = world.stop(caller)

    assert (state.status, state.end_reason, state.hung_up_at) == ("active", "stopped", NOW + 60)
    assert state.transcript is None
    assert world.rooms.closed == [SESSION_ID]
    assert world.session == replace(session(), hung_up_at=NOW + 60, end_reason="stopped")  # and due as it was


def test_the_note_is_there_before_the_room_is_closed_so_that_a_join_in_between_finds_it() -> None:
    class Onlooker(FakeRooms):
        async def close(self, session_id: SessionId) -> None:
            seen.append(world.session)
            await super().close(session_id)

    seen: list[Session] = []
    world = World(rooms=Onlooker())

    world.stop()

    assert [(call.is_ongoing, call.due_at) for call in seen] == [(False, NOW + 60)]


def test_a_repeat_hangs_up_again_and_the_first_time_stands() -> None:
    world = World()
    world.stop()
    world.clock.now += 30

    assert world.stop().hung_up_at == NOW + 60
    assert world.rooms.closed == [SESSION_ID, SESSION_ID]
    assert world.session.due_at == GIVEN_UP


def test_a_call_that_was_over_its_cap_stays_so_when_it_is_stopped() -> None:
    world = World(replace(session(), hung_up_at=NOW + 15, end_reason="cap"))

    state = world.stop()

    assert (state.end_reason, state.hung_up_at) == ("cap", NOW + 15)


def test_when_livekit_is_down_the_caller_hears_of_it_and_the_room_is_left_to_the_sweeper() -> None:
    world = World(rooms=FailingRooms(LiveKitUnavailable()))

    with pytest.raises(LiveKitUnavailable):
        world.stop()

    assert (world.session.is_ongoing, world.session.end_reason) == (False, "stopped")
    assert world.session.due_at == NOW + 60  # now


def test_many_stops_at_once_all_succeed() -> None:
    world = World()

    outcomes = world.race(*(world.stop_session(SESSION_ID, ACME) for _ in range(10)))

    assert all(isinstance(outcome, session_api.Session) for outcome in outcomes)
    assert (world.session.hung_up_at, world.session.due_at) == (NOW + 60, GIVEN_UP)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_session_that_has_ended_is_not_hung_up(status: Any) -> None:
    world = World(replace(session(), status=status))

    with pytest.raises(SessionNotActive):
        world.stop()

    assert (world.rooms.closed, world.session.hung_up_at) == ([], None)


@pytest.mark.parametrize("head_start", range(6))
@pytest.mark.parametrize("said", [TURNS, []], ids=["with turns", "without"])
def test_a_call_that_is_stopped_and_completed_at_once_ends_completed_and_due_as_that(
    head_start: int, said: list[Any]
) -> None:
    world = World()
    end_session = EndSession(world.sessions, FakeTranscripts(), FakeCheckpoints(world.sessions), world.clock)

    async def complete() -> None:
        for _ in range(head_start):
            await asyncio.sleep(0)
        await end_session(session(), ending(transcript=said), "client")

    stopped, completed = world.race(world.stop_session(SESSION_ID, ACME), complete())

    assert completed is None
    assert world.session.status == "completed"
    assert world.session.due_at == NOW + 60 + 120
    if isinstance(stopped, SessionNotActive):
        assert (world.session.end_reason, world.session.hung_up_at) == ("completed", None)
    else:
        assert (world.session.end_reason, world.session.hung_up_at) == ("stopped", NOW + 60)


@pytest.mark.parametrize(
    ("caller", "refusal"),
    [
        (FakeCaller("globex"), SessionNotFound),
        (FakeClient(SessionId("019a0000-0000-7000-8000-00000000000f")), SessionNotFound),
        (UnknownCaller(), InvalidApiKey),
    ],
    ids=["another workspace", "another session's client", "nobody"],
)
def test_nobody_else_hangs_up(caller: SessionCaller, refusal: type[Exception]) -> None:
    world = World()

    with pytest.raises(refusal):
        world.stop(caller)

    assert (world.rooms.closed, world.session) == ([], session())
