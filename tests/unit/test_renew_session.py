import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain.client_tokens import ClientTokens
from pi_voice.domain.errors import (
    GeminiUnavailable,
    InvalidApiKey,
    LiveKitUnavailable,
    SessionNotActive,
    SessionNotFound,
    StorageError,
)
from pi_voice.domain.ids import SessionId
from pi_voice.domain.prompts import instruction_for, instruction_to_resume
from pi_voice.domain.session_api import GeminiLiveConnection, RenewedSession, RenewSessionRequest
from pi_voice.domain.sessions import Participant, Session
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.ports import CreatedRoom, LiveTokenRequest, SessionCaller
from pi_voice.use_cases.issue_connections import IssueConnections
from pi_voice.use_cases.renew_session import RenewSession
from pi_voice.use_cases.stop_session import StopSession
from tests.fakes import (
    CheckpointsThatCannotRead,
    FailingLiveTokens,
    FailingRooms,
    FakeAgents,
    FakeCaller,
    FakeCheckpoints,
    FakeClient,
    FakeClock,
    FakeLiveTokens,
    FakeRooms,
    FakeSessions,
    UnknownCaller,
)
from tests.unit.examples import GIVEN_UP, NOW, SESSION_ID, TURNS, agent, session

ACME = FakeCaller("acme")
ANA = agent(instructions="Ask for the city.", voice={"name": "Kore"})
WITH_HANDLE = RenewSessionRequest(has_resumption_handle=True)


class World:
    """All that renewing needs, and what became of it."""

    def __init__(
        self,
        of: Session | None = None,
        *,
        now: float = NOW + 500,
        sessions: FakeSessions | None = None,
        checkpoints: FakeCheckpoints | None = None,
        rooms: FakeRooms | None = None,
        live_tokens: FakeLiveTokens | None = None,
        agents: FakeAgents | None = None,
    ) -> None:
        self.agents = agents or FakeAgents(ANA)
        self.sessions = sessions or FakeSessions(of or session())
        self.checkpoints = checkpoints or FakeCheckpoints(self.sessions)
        self.rooms = rooms or FakeRooms()
        self.live_tokens = live_tokens or FakeLiveTokens()
        self.clock = FakeClock(now)
        self.client_tokens = ClientTokens("a-secret-of-more-than-thirty-two-bytes", self.clock)

    @property
    def renew_session(self) -> RenewSession:
        return self.renewing_by(self.clock)

    def renewing_by(self, clock: FakeClock) -> RenewSession:
        connecting = IssueConnections(self.rooms, self.live_tokens, self.client_tokens)
        return RenewSession(self.agents, self.sessions, self.checkpoints, connecting, clock)

    @property
    def stop_session(self) -> StopSession:
        return StopSession(self.sessions, self.rooms, self.clock)

    def renew(self, order: RenewSessionRequest | None = None, caller: SessionCaller = ACME) -> RenewedSession:
        return asyncio.run(self.renew_session(SESSION_ID, order or RenewSessionRequest(), caller))

    def keep(self, *turns: TranscriptTurn) -> None:
        assert asyncio.run(self.checkpoints.append(self.session, turns, 100))

    def race(self, *calls: Awaitable[Any]) -> list[Any]:
        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*calls, return_exceptions=True)

        return asyncio.run(all_of_them())

    @property
    def session(self) -> Session:
        return self.sessions.kept[SESSION_ID]

    @property
    def order(self) -> LiveTokenRequest:
        """What the one token was locked to."""
        (order,) = self.live_tokens.orders
        return order


# ---- New connections ------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", [ACME, FakeClient(SESSION_ID)], ids=str)
def test_a_call_gets_fresh_tokens_for_the_same_room_and_the_same_agent(caller: SessionCaller) -> None:
    world = World(replace(session(), media=("microphone", "camera")))

    renewed = world.renew(caller=caller)

    assert renewed.session_id == SESSION_ID
    assert renewed.expires_at == NOW + 1_100
    assert renewed.connection.livekit.room == SESSION_ID
    assert renewed.connection.gemini_live.token == "auth_tokens/fake"
    assert world.rooms.opened == [SESSION_ID]
    assert world.rooms.tokens == [(Participant(identity="caller-1", name="Kim"), ("microphone", "camera"), NOW + 1_100)]
    assert (world.order.voice, world.order.expires_at) == ("Kore", NOW + 1_100)


def test_the_session_s_end_moves_and_it_is_looked_after_when_it_was() -> None:
    world = World()

    world.renew()

    assert world.session == replace(session(), expires_at=NOW + 1_100)
    assert (world.session.abandoned_at, world.session.due_at) == (GIVEN_UP + 500, GIVEN_UP)


def test_the_client_s_own_token_is_good_until_the_new_end_and_the_grace() -> None:
    world = World()

    token = world.renew().client_token

    world.clock.now = GIVEN_UP + 499
    assert world.client_tokens.session_of(token) == SESSION_ID
    world.clock.now = GIVEN_UP + 500
    with pytest.raises(InvalidApiKey):
        world.client_tokens.session_of(token)


def test_the_agent_stays_the_one_that_the_call_began_with() -> None:
    world = World()
    edited = agent(version=2, instructions="Ask for the mood.", voice={"name": "Puck"})
    asyncio.run(world.agents.save(asyncio.run(ACME.workspace()), edited))

    world.renew()

    assert (world.order.instruction, world.order.voice) == (instruction_for(ANA), "Kore")


def test_a_call_whose_connections_have_expired_goes_on() -> None:
    assert World(now=NOW + 2_000).renew().expires_at == NOW + 2_600


# ---- What the model knows -------------------------------------------------------------------------------


def test_a_client_without_a_handle_gets_an_agent_that_knows_what_was_said() -> None:
    world = World()
    world.keep(*TURNS)

    world.renew()

    assert world.order.instruction == instruction_to_resume(ANA, TURNS)
    assert '{"turn": 1, "role": "user", "text": "Oslo."}' in world.order.instruction


def test_a_client_with_a_handle_resumes_and_its_agent_is_told_nothing_twice() -> None:
    world = World()
    world.keep(*TURNS)

    world.renew(WITH_HANDLE)

    assert world.order.instruction == instruction_for(ANA)


def test_a_call_of_which_nothing_was_kept_begins_as_the_first_time() -> None:
    world = World()

    world.renew()

    assert world.order.instruction == instruction_for(ANA)


def test_what_was_said_and_cannot_be_read_is_not_passed_over() -> None:
    sessions = FakeSessions(session())
    world = World(sessions=sessions, checkpoints=CheckpointsThatCannotRead(sessions))
    world.keep(*TURNS)

    with pytest.raises(StorageError):
        world.renew()

    assert (world.live_tokens.orders, world.rooms.opened) == ([], [])
    assert world.session.expires_at == NOW + 600


# ---- An hour at most ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "ttl", "expires_at"),
    [
        (NOW + 2_999, 600, NOW + 3_599),
        (NOW + 3_000, 600, NOW + 3_600),
        (NOW + 3_001, 600, NOW + 3_600),
        (NOW + 3_599, 600, NOW + 3_600),
        (NOW + 10, 3_600, NOW + 3_600),
    ],
)
def test_no_connection_is_good_for_more_than_an_hour_after_the_call_began(now: int, ttl: int, expires_at: int) -> None:
    world = World(replace(session(), ttl_seconds=ttl, expires_at=min(NOW + ttl, NOW + 3_600)), now=now)

    assert world.renew().expires_at == world.session.expires_at == expires_at


def test_a_call_of_an_hour_is_not_renewed_any_more() -> None:
    world = World(now=NOW + 3_600)

    with pytest.raises(SessionNotActive, match="an hour old"):
        world.renew()

    assert (world.rooms.opened, world.live_tokens.orders, world.session) == ([], [], session())


def test_a_renewal_never_takes_time_away() -> None:
    world = World(replace(session(), expires_at=NOW + 3_000), now=NOW)

    assert world.renew().expires_at == world.session.expires_at == NOW + 3_000


# ---- When the call is over ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "over",
    [
        replace(session(), status="completed"),
        replace(session(), status="failed"),
        replace(session(), hung_up_at=NOW + 60, end_reason="stopped"),
        replace(session(), hung_up_at=NOW + 60, end_reason="cap"),
    ],
    ids=lambda over: f"{over.status} {over.end_reason}",
)
def test_a_call_that_is_over_does_not_go_on(over: Session) -> None:
    world = World(over)

    with pytest.raises(SessionNotActive):
        world.renew()

    assert (world.rooms.opened, world.live_tokens.orders, world.session) == ([], [], over)


@pytest.mark.parametrize("head_start", range(10))
def test_a_call_that_is_stopped_while_it_is_renewed_is_over_and_its_room_is_closed(head_start: int) -> None:
    class Doors(FakeRooms):
        """Tells whether the room is there."""

        is_open = True

        async def open(self, session: Session) -> CreatedRoom:
            opened = await super().open(session)
            self.is_open = True
            return opened

        async def close(self, session_id: SessionId) -> None:
            await super().close(session_id)
            self.is_open = False

    rooms = Doors()
    world = World(rooms=rooms)

    async def stop() -> None:
        for _ in range(head_start):
            await asyncio.sleep(0)
        await world.stop_session(SESSION_ID, ACME)

    renewed, stopped = world.race(world.renew_session(SESSION_ID, RenewSessionRequest(), ACME), stop())

    assert stopped is None
    assert isinstance(renewed, RenewedSession | SessionNotActive)
    assert (world.session.is_ongoing, world.session.end_reason) == (False, "stopped")
    assert not rooms.is_open


def test_a_room_that_was_opened_again_and_cannot_be_closed_is_told() -> None:
    class Stopped(FakeSessions):
        async def renew(self, session_id: SessionId, expires_at: int) -> Session | None:
            await self.hang_up(session_id, "stopped", NOW)
            return await super().renew(session_id, expires_at)

    class Stubborn(FailingRooms):
        async def open(self, session: Session) -> CreatedRoom:
            return await FakeRooms.open(self, session)

    world = World(sessions=Stopped(session()), rooms=Stubborn(LiveKitUnavailable()))

    with pytest.raises(LiveKitUnavailable):
        world.renew()


def test_renewals_at_once_all_succeed() -> None:
    world = World()

    outcomes = world.race(
        *(world.renewing_by(FakeClock(now))(SESSION_ID, RenewSessionRequest(), ACME) for now in (NOW + 502, NOW + 501))
    )

    assert [outcome.expires_at for outcome in outcomes] == [NOW + 1_102, NOW + 1_101]
    assert world.session.expires_at == NOW + 1_102
    assert world.rooms.closed == []


# ---- When a provider fails ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "error"),
    [
        (World(rooms=FailingRooms(LiveKitUnavailable())), LiveKitUnavailable),
        (World(live_tokens=FailingLiveTokens(GeminiUnavailable())), GeminiUnavailable),
    ],
    ids=["livekit", "gemini"],
)
def test_when_a_provider_fails_the_call_goes_on_as_it_was(world: World, error: type[Exception]) -> None:
    with pytest.raises(error):
        world.renew()

    assert world.session == session()
    assert world.rooms.closed == []  # somebody may be in it


def test_when_one_provider_fails_nobody_waits_for_the_other() -> None:
    class Hanging(FakeLiveTokens):
        async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
            await super().issue(request)
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.raises(LiveKitUnavailable):
        World(rooms=FailingRooms(LiveKitUnavailable()), live_tokens=Hanging()).renew()


# ---- Who may --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "refusal"),
    [
        (FakeCaller("globex"), SessionNotFound),
        (FakeClient(SessionId("019a0000-0000-7000-8000-00000000000f")), SessionNotFound),
        (UnknownCaller(), InvalidApiKey),
    ],
    ids=["another workspace", "another session's client", "nobody"],
)
def test_nobody_else_gets_a_connection(caller: SessionCaller, refusal: type[Exception]) -> None:
    world = World()

    with pytest.raises(refusal):
        world.renew(caller=caller)

    assert (world.rooms.opened, world.live_tokens.orders) == ([], [])
