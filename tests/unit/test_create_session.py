import asyncio
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain.client_tokens import ClientTokens
from pi_voice.domain.errors import (
    AgentNotFound,
    GeminiError,
    GeminiUnavailable,
    InvalidApiKey,
    LiveKitError,
    LiveKitUnavailable,
    ProviderError,
    SessionNotActive,
    StorageError,
    TtlTooShort,
    UpstreamTimeout,
)
from pi_voice.domain.ids import is_uuid
from pi_voice.domain.session_api import CreatedSession, CreateSessionRequest, GeminiLiveConnection
from pi_voice.domain.sessions import Participant, Session
from pi_voice.ports import Caller, CreatedRoom, LiveTokenRequest
from pi_voice.use_cases.create_session import CreateSession
from pi_voice.use_cases.issue_connections import IssueConnections
from tests.fakes import (
    FailingLiveTokens,
    FailingRooms,
    FakeAgents,
    FakeCaller,
    FakeClock,
    FakeLiveTokens,
    FakeRooms,
    FakeSessions,
    HangingRooms,
    SessionsThatCannotAdd,
    UnknownCaller,
)
from tests.patience import LONG
from tests.unit.examples import AGENT_ID, agent, new_session

ACME = FakeCaller("acme")


class World:
    """All that provisioning needs, and what became of it."""

    def __init__(
        self,
        agents: FakeAgents | None = None,
        sessions: FakeSessions | None = None,
        rooms: FakeRooms | None = None,
        live_tokens: FakeLiveTokens | None = None,
        grace_seconds: int = 3_600,
    ) -> None:
        self.clock = FakeClock()
        self.grace_seconds = grace_seconds
        self.client_tokens = ClientTokens("a-secret-of-more-than-thirty-two-bytes", self.clock)
        self.agents = agents or FakeAgents(agent())
        self.sessions = sessions or FakeSessions()
        self.rooms = rooms or FakeRooms()
        self.live_tokens = live_tokens or FakeLiveTokens()

    @property
    def provisioning(self) -> CreateSession:
        connecting = IssueConnections(self.rooms, self.live_tokens, self.client_tokens)
        return CreateSession(self.agents, self.sessions, connecting, self.grace_seconds, self.clock)

    def start(self, order: CreateSessionRequest | None = None, caller: Caller = ACME) -> CreatedSession:
        return asyncio.run(asyncio.wait_for(self.provisioning(order or new_session(), caller), LONG))

    @property
    def session(self) -> Session:
        """The one session that was kept."""
        (kept,) = self.sessions.kept.values()
        return kept


class SessionsThatTell(FakeSessions):
    """Sessions that say when one is about to be kept, and when it was; Gemini takes less time than that."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = asyncio.Event()
        self.was_kept = asyncio.Event()

    async def add(self, session: Session) -> bool:
        self.is_asked.set()
        for _ in range(10):
            await asyncio.sleep(0)
        is_new = await super().add(session)
        self.was_kept.set()
        return is_new


class LateTokens(FailingLiveTokens):
    """Gemini fails, but not before something else has happened."""

    def __init__(self, error: Exception, moment: asyncio.Event) -> None:
        super().__init__(error)
        self._moment = moment

    async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
        await self._moment.wait()
        return await super().issue(request)


# ---- When all goes well ---------------------------------------------------------------------------------


def test_a_session_starts_with_both_connections() -> None:
    world = World(FakeAgents(agent(version=4, behaviors={"max_duration_seconds": 300})))

    started = world.start(new_session(ttl_seconds=900, metadata={"order": "4711"}))

    assert is_uuid(started.session_id)
    assert (started.agent_id, started.agent_version, started.status) == (AGENT_ID, 4, "active")
    assert (started.ttl_seconds, started.max_duration_seconds) == (900, 300)
    assert (started.created_at, started.expires_at) == (1_800_000_000, 1_800_000_900)
    assert started.participant == Participant(identity="caller-1")
    assert started.metadata == {"order": "4711"}
    assert started.connection.livekit.url == "wss://livekit.test"
    assert started.connection.livekit.token == "livekit-token-for-caller-1"
    assert started.connection.livekit.room == started.session_id
    assert started.connection.gemini_live.token == "auth_tokens/fake"


def test_a_session_is_kept_with_its_room_and_without_its_tokens() -> None:
    world = World()

    started = world.start()

    assert world.session.session_id == started.session_id
    assert world.session.workspace == "acme"
    assert world.session.status == "active"
    assert world.session.livekit.room_name == started.session_id
    assert world.session.livekit.room_sid == "RM_first"
    assert world.session.livekit.started_at == 1_800_000_000
    assert started.client_token not in repr(world.session)
    assert "livekit-token" not in repr(world.session)
    assert "auth_tokens" not in repr(world.session)


def test_the_live_token_is_locked_to_the_agent_and_to_the_session_s_expiry() -> None:
    world = World(FakeAgents(agent(instructions="Ask for the city.", voice={"name": "Kore"})))

    world.start(new_session(ttl_seconds=900))

    (order,) = world.live_tokens.orders
    assert "Ask for the city." in order.instruction
    assert (order.voice, order.expires_at) == ("Kore", 1_800_000_900)


def test_the_participant_publishes_the_media_that_were_asked_for() -> None:
    world = World()

    world.start(new_session(media=["microphone", "camera"]))

    assert world.rooms.tokens == [(Participant(identity="caller-1"), ("microphone", "camera"), 1_800_000_600)]


def test_both_providers_are_asked_at_the_same_time() -> None:
    both = asyncio.Barrier(2)  # lets nobody pass before two have come

    class MeetingRooms(FakeRooms):
        async def open(self, session: Session) -> CreatedRoom:
            await both.wait()
            return await super().open(session)

    class MeetingTokens(FakeLiveTokens):
        async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
            await both.wait()
            return await super().issue(request)

    world = World(rooms=MeetingRooms(), live_tokens=MeetingTokens())
    world.start()

    assert world.session.status == "active"


def test_a_session_is_kept_while_gemini_is_still_at_work() -> None:
    class SlowTokens(FakeLiveTokens):
        async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
            await sessions.was_kept.wait()
            return await super().issue(request)

    sessions = SessionsThatTell()
    world = World(sessions=sessions, live_tokens=SlowTokens())

    world.start()

    assert world.session.status == "active"


@pytest.mark.parametrize("grace", [0, 3_600, 86_400])
def test_the_client_s_own_token_is_good_until_the_session_is_given_up(grace: int) -> None:
    world = World(grace_seconds=grace)

    started = world.start()

    world.clock.now = started.expires_at + grace - 1
    assert world.client_tokens.session_of(started.client_token) == started.session_id
    world.clock.now += 1
    with pytest.raises(InvalidApiKey):
        world.client_tokens.session_of(started.client_token)


@pytest.mark.parametrize("grace", [60, 86_400])
def test_a_session_is_due_when_its_end_and_its_grace_are_over(grace: int) -> None:
    world = World(grace_seconds=grace)

    world.start(new_session(ttl_seconds=900))

    assert (world.session.grace_seconds, world.session.due_at) == (grace, 1_800_000_900 + grace)


def test_what_the_participant_may_publish_is_kept_for_a_renewal() -> None:
    world = World()

    world.start(new_session(media=["microphone", "camera"]))

    assert world.session.media == ("microphone", "camera")


# ---- Answering again ------------------------------------------------------------------------------------


def test_a_session_that_was_started_is_answered_again_with_fresh_tokens_until_the_same_end() -> None:
    world = World(FakeAgents(agent(instructions="Ask for the city.")))
    first = world.start()
    world.clock.now += 60

    again = asyncio.run(world.provisioning.repeat(first.session_id, ACME))

    assert again == first  # the fakes' tokens are all alike
    assert len(world.sessions.kept) == 1
    assert world.rooms.opened == [first.session_id, first.session_id]
    assert [order.expires_at for order in world.live_tokens.orders] == [first.expires_at, first.expires_at]
    assert world.live_tokens.orders[0] == world.live_tokens.orders[1]


@pytest.mark.parametrize(
    "over",
    [{"status": "completed"}, {"status": "failed"}, {"hung_up_at": 1_800_000_001}, {"expires_at": 1_800_000_000}],
    ids=str,
)
def test_a_call_that_is_over_is_not_answered_again_with_tokens(over: dict[str, Any]) -> None:
    world = World()
    first = world.start()
    world.sessions.kept[first.session_id] = replace(world.session, **over)

    with pytest.raises(SessionNotActive):
        asyncio.run(world.provisioning.repeat(first.session_id, ACME))

    assert len(world.live_tokens.orders) == 1


# ---- When a provider fails ------------------------------------------------------------------------------

LIVEKIT_FAILS = [LiveKitError(), LiveKitUnavailable(), UpstreamTimeout("LiveKit did not answer in time.")]
GEMINI_FAILS = [GeminiError(), GeminiUnavailable(), UpstreamTimeout("Gemini did not answer in time.")]


@pytest.mark.parametrize("error", LIVEKIT_FAILS, ids=lambda error: error.code)
def test_when_livekit_fails_the_caller_hears_of_it_and_a_failed_session_says_why(error: ProviderError) -> None:
    world = World(rooms=FailingRooms(error))

    with pytest.raises(type(error)) as failure:
        world.start()

    assert failure.value is error
    assert (world.session.status, world.session.end_reason) == ("failed", "failed")
    assert world.session.failed_at == 1_800_000_000
    assert world.session.failure is not None
    assert (world.session.failure.code, world.session.failure.message) == (error.code, error.message)
    assert world.session.livekit.room_sid is None
    assert world.session.due_at is None


@pytest.mark.parametrize("error", GEMINI_FAILS, ids=lambda error: error.code)
def test_when_gemini_fails_the_room_is_gone_again_and_a_failed_session_says_why(error: ProviderError) -> None:
    world = World(live_tokens=FailingLiveTokens(error))

    with pytest.raises(type(error)) as failure:
        world.start()

    assert failure.value is error
    assert world.rooms.closed == [world.session.session_id]
    assert world.session.status == "failed"
    assert world.session.failure is not None
    assert (world.session.failure.code, world.session.failure.message) == (error.code, error.message)


@pytest.mark.parametrize("moment", ["is_asked", "was_kept"])
def test_when_gemini_fails_a_session_that_was_kept_already_or_is_about_to_be_has_failed(moment: str) -> None:
    sessions = SessionsThatTell()
    world = World(sessions=sessions, live_tokens=LateTokens(GeminiUnavailable(), getattr(sessions, moment)))

    with pytest.raises(GeminiUnavailable):
        world.start()

    assert world.rooms.closed == [world.session.session_id]
    assert (world.session.status, world.session.end_reason) == ("failed", "failed")
    assert world.session.failure is not None
    assert world.session.failure.code == "gemini_unavailable"
    assert world.session.livekit.room_sid == "RM_first"
    assert world.session.due_at is None


def test_when_gemini_fails_nobody_waits_for_livekit() -> None:
    rooms = HangingRooms()
    world = World(rooms=rooms, live_tokens=FailingLiveTokens(GeminiUnavailable()))

    with pytest.raises(GeminiUnavailable):
        world.start()

    assert rooms.given_up
    assert rooms.closed == [world.session.session_id]  # LiveKit may have made it all the same


def test_when_both_fail_the_caller_hears_of_one_and_the_session_tells_of_the_same() -> None:
    world = World(rooms=FailingRooms(LiveKitUnavailable()), live_tokens=FailingLiveTokens(GeminiError()))

    with pytest.raises(ProviderError) as failure:
        world.start()

    assert world.session.failure is not None
    assert failure.value.code in ("livekit_unavailable", "gemini_error")
    assert world.session.failure.code == failure.value.code


def test_when_the_room_cannot_be_removed_the_caller_still_hears_of_the_first_failure() -> None:
    class StubbornRooms(FailingRooms):
        async def open(self, session: Session) -> CreatedRoom:
            return await FakeRooms.open(self, session)

    world = World(rooms=StubbornRooms(LiveKitUnavailable()), live_tokens=FailingLiveTokens(GeminiError()))

    with pytest.raises(GeminiError):
        world.start()

    assert world.session.failure is not None
    assert world.session.failure.code == "gemini_error"


def test_when_the_failed_session_cannot_be_kept_either_the_caller_still_hears_of_the_provider() -> None:
    world = World(sessions=SessionsThatCannotAdd(), live_tokens=FailingLiveTokens(GeminiUnavailable()))

    with pytest.raises(GeminiUnavailable):
        world.start()

    assert len(world.rooms.closed) == 1


def test_when_gemini_fails_and_then_the_session_cannot_be_kept_the_caller_hears_of_gemini() -> None:
    class SessionsThatTellAndFail(SessionsThatTell):
        async def add(self, session: Session) -> bool:
            await super().add(session)
            self.kept.clear()
            raise StorageError

    sessions = SessionsThatTellAndFail()
    world = World(sessions=sessions, live_tokens=LateTokens(GeminiUnavailable(), sessions.is_asked))

    with pytest.raises(GeminiUnavailable):
        world.start()

    assert world.rooms.closed == world.rooms.opened


# ---- When something else fails --------------------------------------------------------------------------


def test_when_the_session_cannot_be_kept_the_room_is_gone_again() -> None:
    world = World(sessions=SessionsThatCannotAdd())

    with pytest.raises(StorageError):
        world.start()

    assert world.rooms.closed == world.rooms.opened


def test_when_the_session_cannot_be_kept_nobody_waits_for_gemini() -> None:
    class HangingTokens(FakeLiveTokens):
        async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
            await asyncio.Event().wait()
            return await super().issue(request)

    world = World(sessions=SessionsThatCannotAdd(), live_tokens=HangingTokens())

    with pytest.raises(StorageError):
        world.start()

    assert world.rooms.closed == world.rooms.opened


@pytest.mark.parametrize("moment", ["is_asked", "was_kept"])
def test_when_something_breaks_that_nobody_thought_of_the_room_is_gone_and_the_session_has_failed(moment: str) -> None:
    sessions = SessionsThatTell()
    world = World(sessions=sessions, live_tokens=LateTokens(RuntimeError("a bug"), getattr(sessions, moment)))

    with pytest.raises(RuntimeError, match="a bug"):
        world.start()

    assert world.rooms.closed == [world.session.session_id]
    assert world.session.status == "failed"
    assert world.session.failure is not None
    assert world.session.failure.code == "internal_error"


# ---- What is refused before anybody is asked ------------------------------------------------------------


@pytest.mark.parametrize("agent_id", ["019a0000-0000-7000-8000-00000000000f", "no-id", ""])
def test_a_session_with_an_unknown_agent_does_not_start(agent_id: str) -> None:
    world = World()

    with pytest.raises(AgentNotFound):
        world.start(new_session(agent_id=agent_id))

    assert (world.rooms.opened, world.live_tokens.orders, world.sessions.kept) == ([], [], {})


def test_a_session_with_another_workspace_s_agent_does_not_start() -> None:
    world = World()

    with pytest.raises(AgentNotFound):
        world.start(caller=FakeCaller("globex"))

    assert (world.rooms.opened, world.live_tokens.orders, world.sessions.kept) == ([], [], {})


def test_a_session_whose_ttl_is_too_short_does_not_start() -> None:
    world = World(FakeAgents(agent(behaviors={"max_duration_seconds": 900})))

    with pytest.raises(TtlTooShort):
        world.start(new_session(ttl_seconds=600))

    assert (world.rooms.opened, world.live_tokens.orders, world.sessions.kept) == ([], [], {})


def test_who_may_not_call_hears_that_and_not_that_there_is_no_agent() -> None:
    world = World(FakeAgents())

    with pytest.raises(InvalidApiKey):
        world.start(caller=UnknownCaller())

    assert (world.rooms.opened, world.live_tokens.orders, world.sessions.kept) == ([], [], {})
