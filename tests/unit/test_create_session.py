import asyncio
import uuid
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain.client_tokens import ClientTokens
from pi_voice.domain.connection_api import CreatedSession, CreateSessionRequest, GeminiLiveConnection
from pi_voice.domain.duties import Duties, Duty
from pi_voice.domain.errors import (
    AgentNotFound,
    AgentVersionNotFound,
    GeminiError,
    GeminiUnavailable,
    InvalidApiKey,
    InvalidVariables,
    LiveKitError,
    LiveKitUnavailable,
    ProviderError,
    RateLimited,
    SessionNotActive,
    StorageError,
    TtlTooShort,
    UpstreamTimeout,
)
from pi_voice.domain.ids import is_uuid
from pi_voice.domain.sessions import Participant, Session
from pi_voice.ports import Caller, CreatedRoom, LiveTokenRequest
from pi_voice.use_cases.create_session import CreateSession
from pi_voice.use_cases.issue_connections import IssueConnections
from tests.support.fakes import (
    FailingLiveTokens,
    FailingRooms,
    FakeAgents,
    FakeCaller,
    FakeClock,
    FakeLiveTokens,
    FakeRateLimiter,
    FakeRooms,
    FakeSessions,
    HangingRooms,
    RateLimiterThatFails,
    SessionsThatCannotAdd,
    UnknownCaller,
)
from tests.support.patience import LONG
from tests.unit.examples import AGENT_ID, NOW, agent, create_session_request

ACME = FakeCaller("acme")


class Setup:
    """A CreateSession on fakes."""

    def __init__(
        self,
        agents: FakeAgents | None = None,
        sessions: FakeSessions | None = None,
        rooms: FakeRooms | None = None,
        live_tokens: FakeLiveTokens | None = None,
        rate_limiter: FakeRateLimiter | None = None,
        grace_seconds: int = 3_600,
    ) -> None:
        self.clock = FakeClock()
        self.grace_seconds = grace_seconds
        self.client_tokens = ClientTokens(lambda: ["a-secret-of-more-than-thirty-two-bytes"], self.clock)
        self.agents = agents or FakeAgents(agent())
        self.sessions = sessions or FakeSessions()
        self.rooms = rooms or FakeRooms()
        self.live_tokens = live_tokens or FakeLiveTokens()
        self.rate_limiter = rate_limiter or FakeRateLimiter()

    @property
    def create_session(self) -> CreateSession:
        issue_connections = IssueConnections(self.rooms, self.live_tokens, self.client_tokens)
        return CreateSession(
            self.agents, self.sessions, issue_connections, self.rate_limiter, self.grace_seconds, self.clock
        )

    def create(self, request: CreateSessionRequest | None = None, caller: Caller = ACME) -> CreatedSession:
        return asyncio.run(asyncio.wait_for(self.create_session(request or create_session_request(), caller), LONG))

    @property
    def session(self) -> Session:
        """The only stored session."""
        (stored,) = self.sessions.stored.values()
        return stored


class ObservableSessions(FakeSessions):
    """Signal when a session is about to be stored, and when it was. The write takes longer than Gemini."""

    def __init__(self) -> None:
        super().__init__()
        self.is_adding = asyncio.Event()
        self.was_added = asyncio.Event()

    async def add(self, session: Session) -> bool:
        self.is_adding.set()
        for _ in range(10):
            await asyncio.sleep(0)
        is_new = await super().add(session)
        self.was_added.set()
        return is_new


class LateFailingLiveTokens(FailingLiveTokens):
    """Gemini fails after an event."""

    def __init__(self, error: Exception, event: asyncio.Event) -> None:
        super().__init__(error)
        self._event = event

    async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
        await self._event.wait()
        return await super().issue(request)


class RunningClock:
    """A clock that goes on by half a second with each reading."""

    def __init__(self) -> None:
        self._now = 1_800_000_000.0

    def __call__(self) -> float:
        self._now += 0.5
        return self._now


# ---- Success --------------------------------------------------------------------------------------------


def test_the_id_of_a_session_has_the_time_of_its_creation() -> None:
    setup = Setup()
    issue_connections = IssueConnections(setup.rooms, setup.live_tokens, setup.client_tokens)
    create_session = CreateSession(
        setup.agents, setup.sessions, issue_connections, setup.rate_limiter, clock=RunningClock()
    )

    for _ in range(2):
        created = asyncio.run(create_session(create_session_request(), ACME))
        assert uuid.UUID(created.session_id).int >> 80 in range(
            created.created_at * 1000, created.created_at * 1000 + 1000
        )


def test_a_created_session_has_both_connections() -> None:
    setup = Setup(FakeAgents(agent(version=4, behaviors={"max_duration_seconds": 300})))

    created = setup.create(
        create_session_request(ttl_seconds=900, metadata={"order": "4711"}, client_metadata={"page": "1"})
    )

    assert is_uuid(created.session_id)
    assert (created.agent_id, created.agent_version, created.status) == (AGENT_ID, 4, "active")
    assert (created.ttl_seconds, created.max_duration_seconds) == (900, 300)
    assert (created.created_at, created.expires_at) == (1_800_000_000, 1_800_000_900)
    assert created.participant == Participant(identity="caller-1")
    assert created.client_metadata == {"page": "1"}
    assert "order" not in created.model_dump_json()
    assert created.connection.livekit.url == "wss://livekit.test"
    assert created.connection.livekit.token == "livekit-token-for-caller-1"
    assert created.connection.livekit.room == created.session_id
    assert created.connection.gemini_live.token == "auth_tokens/fake"


def test_a_session_is_stored_with_its_room_and_without_its_tokens() -> None:
    setup = Setup()

    created = setup.create()

    assert setup.session.session_id == created.session_id
    assert setup.session.workspace == "acme"
    assert setup.session.status == "active"
    assert setup.session.livekit.room_name == created.session_id
    assert setup.session.livekit.room_sid == "RM_first"
    assert setup.session.livekit.started_at == 1_800_000_000
    assert created.client_token not in repr(setup.session)
    assert "livekit-token" not in repr(setup.session)
    assert "auth_tokens" not in repr(setup.session)


def test_the_live_token_is_locked_to_the_agent_and_expires_with_the_session() -> None:
    setup = Setup(FakeAgents(agent(instructions="Ask for the city.", voice={"name": "Kore"})))

    setup.create(create_session_request(ttl_seconds=900))

    (request,) = setup.live_tokens.requests
    assert "Ask for the city." in request.instruction
    assert (request.voice, request.expires_at) == ("Kore", 1_800_000_900)


def test_the_participant_may_publish_the_requested_media() -> None:
    setup = Setup()

    setup.create(create_session_request(media=["microphone", "camera"]))

    assert setup.rooms.tokens == [(Participant(identity="caller-1"), ("microphone", "camera"), 1_800_000_600)]


def test_livekit_and_gemini_are_asked_concurrently() -> None:
    both = asyncio.Barrier(2)  # passed only if both requests are in flight

    class RoomsAtBarrier(FakeRooms):
        async def open(self, session: Session) -> CreatedRoom:
            await both.wait()
            return await super().open(session)

    class LiveTokensAtBarrier(FakeLiveTokens):
        async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
            await both.wait()
            return await super().issue(request)

    setup = Setup(rooms=RoomsAtBarrier(), live_tokens=LiveTokensAtBarrier())
    setup.create()

    assert setup.session.status == "active"


def test_a_session_is_stored_while_the_gemini_request_is_in_flight() -> None:
    class SlowLiveTokens(FakeLiveTokens):
        async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
            await sessions.was_added.wait()
            return await super().issue(request)

    sessions = ObservableSessions()
    setup = Setup(sessions=sessions, live_tokens=SlowLiveTokens())

    setup.create()

    assert setup.session.status == "active"


@pytest.mark.parametrize("grace", [0, 3_600, 86_400])
def test_the_client_token_is_valid_until_the_grace_time_is_over(grace: int) -> None:
    setup = Setup(grace_seconds=grace)

    created = setup.create()

    setup.clock.now = created.expires_at + grace - 1
    assert setup.client_tokens.session_of(created.client_token) == created.session_id
    setup.clock.now += 1
    with pytest.raises(InvalidApiKey):
        setup.client_tokens.session_of(created.client_token)


@pytest.mark.parametrize("grace", [60, 86_400])
def test_a_session_is_due_when_its_grace_time_is_over(grace: int) -> None:
    setup = Setup(grace_seconds=grace)

    setup.create(create_session_request(ttl_seconds=900))

    assert setup.session.grace_seconds == grace
    assert setup.session.duties.get("end_call") == Duty(1_800_000_900 + grace)


def test_the_requested_media_are_stored_for_renewals() -> None:
    setup = Setup()

    setup.create(create_session_request(media=["microphone", "camera"]))

    assert setup.session.media == ("microphone", "camera")


# ---- Version, variables and overrides -------------------------------------------------------------------


def two_versions() -> FakeAgents:
    """Return an agent whose current version is 2."""
    agents = FakeAgents(agent(version=2, instructions="Ask for the date.", voice={"name": "Leda"}))
    first = agent(instructions="Ask for the city.", voice={"name": "Kore"}, behaviors={"max_duration_seconds": 120})
    agents.versions[AGENT_ID, 1] = first
    return agents


@pytest.mark.parametrize(
    ("pin", "version", "words", "voice"), [(None, 2, "date", "Leda"), (2, 2, "date", "Leda"), (1, 1, "city", "Kore")]
)
def test_a_session_has_the_version_that_it_asks_for(pin: int | None, version: int, words: str, voice: str) -> None:
    setup = Setup(two_versions())

    created = setup.create(create_session_request(agent_version=pin))

    (request,) = setup.live_tokens.requests
    assert (created.agent_version, setup.session.agent_version) == (version, version)
    assert f"Ask for the {words}." in request.instruction
    assert request.voice == voice
    assert created.max_duration_seconds == (120 if version == 1 else None)


def test_a_version_that_the_agent_does_not_have_is_not_found_and_nothing_is_issued() -> None:
    setup = Setup(two_versions())

    with pytest.raises(AgentVersionNotFound):
        setup.create(create_session_request(agent_version=3))

    assert (setup.rooms.opened, setup.live_tokens.requests, setup.sessions.stored) == ([], [], {})


def test_a_version_of_another_workspaces_agent_is_not_found() -> None:
    with pytest.raises(AgentNotFound):
        Setup(two_versions()).create(create_session_request(agent_version=1), FakeCaller("globex"))


def test_the_live_token_is_locked_to_the_agent_with_the_session_s_values_and_overrides() -> None:
    variables: JsonValue = {"guest": {"type": "string"}, "room": {"type": "number", "default": 7}}
    setup = Setup(FakeAgents(agent(instructions="Greet {{guest}} in {{room}}.", variables=variables)))

    setup.create(
        create_session_request(
            variables={"guest": "Ada"},
            time_zone="Asia/Tokyo",
            overrides={"voice": {"name": "Leda"}, "greeting": "It is {{date}}.", "language": "ja"},
        )
    )

    (request,) = setup.live_tokens.requests
    assert "Greet \u27e6Ada\u27e7 in 7." in request.instruction
    assert "It is Friday, 2027-01-15." in request.instruction
    assert "Speak ja " in request.instruction
    assert request.voice == "Leda"
    assert request.languages[0] == "ja"
    assert request.vocabulary == ("Ana", "Ada")
    assert setup.session.variables == {"guest": "Ada", "room": 7}
    assert setup.session.overrides == {"voice": {"name": "Leda"}, "greeting": "It is {{date}}.", "language": "ja"}
    assert setup.session.time_zone == "Asia/Tokyo"


def test_a_repeated_request_has_the_same_values_and_overrides() -> None:
    variables: JsonValue = {"guest": {"type": "string"}}
    setup = Setup(FakeAgents(agent(instructions="Greet {{guest}}.", variables=variables)))
    request = create_session_request(variables={"guest": "Ada"}, overrides={"questions": ["Why, {{guest}}?"]})
    first = setup.create(request)
    setup.clock.now += 60

    asyncio.run(setup.create_session.repeat_create_session(first.session_id, ACME))

    assert setup.live_tokens.requests[0] == setup.live_tokens.requests[1]


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({}, ["variables.guest"]),
        ({"variables": {"guest": 7}}, ["variables.guest"]),
        ({"variables": {"guest": "Ada", "room": "x"}}, ["variables.room"]),
        ({"variables": {"guest": "Ada"}, "overrides": {"greeting": "{{room}}"}}, ["overrides.greeting"]),
    ],
)
def test_values_that_do_not_fit_the_agent_are_refused_and_nothing_is_issued(
    fields: dict[str, JsonValue], paths: list[str]
) -> None:
    setup = Setup(FakeAgents(agent(variables={"guest": {"type": "string"}})))

    with pytest.raises(InvalidVariables) as raised:
        setup.create(create_session_request(**fields))

    assert [detail.path for detail in raised.value.details] == paths
    assert (setup.rooms.opened, setup.live_tokens.requests, setup.sessions.stored) == ([], [], {})


def test_values_are_checked_against_the_version_that_the_session_asks_for() -> None:
    agents = two_versions()
    agents.versions[AGENT_ID, 1] = agent(variables={"guest": {"type": "string"}})

    with pytest.raises(InvalidVariables):
        Setup(agents).create(create_session_request(variables={"guest": "Ada"}))
    assert Setup(agents).create(create_session_request(variables={"guest": "Ada"}, agent_version=1)).agent_version == 1


# ---- Repeated requests ----------------------------------------------------------------------------------


def test_a_repeated_request_gets_new_tokens_with_the_original_expiry() -> None:
    setup = Setup(FakeAgents(agent(instructions="Ask for the city.")))
    first = setup.create()
    setup.clock.now += 60

    repeated = asyncio.run(setup.create_session.repeat_create_session(first.session_id, ACME))

    assert repeated == first  # the fakes' tokens are equal
    assert len(setup.sessions.stored) == 1
    assert setup.rooms.opened == [first.session_id, first.session_id]
    assert [request.expires_at for request in setup.live_tokens.requests] == [first.expires_at, first.expires_at]
    assert setup.live_tokens.requests[0] == setup.live_tokens.requests[1]


@pytest.mark.parametrize(
    "changes",
    [{"status": "completed"}, {"status": "failed"}, {"hung_up_at": 1_800_000_001}, {"expires_at": 1_800_000_000}],
    ids=str,
)
def test_a_repeated_request_for_an_ended_call_gets_no_tokens(changes: dict[str, Any]) -> None:
    setup = Setup()
    first = setup.create()
    setup.sessions.stored[first.session_id] = replace(setup.session, **changes)

    with pytest.raises(SessionNotActive):
        asyncio.run(setup.create_session.repeat_create_session(first.session_id, ACME))

    assert len(setup.live_tokens.requests) == 1


# ---- Rate limit -----------------------------------------------------------------------------------------


def test_over_the_rate_limit_nothing_is_issued_or_stored() -> None:
    setup = Setup(rate_limiter=FakeRateLimiter(limit=1))
    setup.create()

    with pytest.raises(RateLimited):
        setup.create()

    assert len(setup.rooms.opened) == len(setup.live_tokens.requests) == len(setup.sessions.stored) == 1


def test_a_repeated_request_counts_because_it_issues_tokens() -> None:
    setup = Setup(rate_limiter=FakeRateLimiter(limit=1))
    first = setup.create()

    with pytest.raises(RateLimited):
        asyncio.run(setup.create_session.repeat_create_session(first.session_id, ACME))

    assert len(setup.live_tokens.requests) == 1


def test_without_the_counter_no_session_is_created() -> None:
    setup = Setup(rate_limiter=RateLimiterThatFails(StorageError()))

    with pytest.raises(StorageError):
        setup.create()

    assert (setup.rooms.opened, setup.live_tokens.requests, setup.sessions.stored) == ([], [], {})


# ---- Provider errors ------------------------------------------------------------------------------------

LIVEKIT_ERRORS = [LiveKitError(), LiveKitUnavailable(), UpstreamTimeout("LiveKit is slow.")]
GEMINI_ERRORS = [GeminiError(), GeminiUnavailable(), UpstreamTimeout("Gemini is slow.")]


@pytest.mark.parametrize("error", LIVEKIT_ERRORS, ids=lambda error: error.code)
def test_a_livekit_error_is_raised_and_the_session_is_stored_as_failed(error: ProviderError) -> None:
    setup = Setup(rooms=FailingRooms(error))

    with pytest.raises(type(error)) as raised:
        setup.create()

    assert raised.value is error
    assert (setup.session.status, setup.session.end_reason) == ("failed", "failed")
    assert setup.session.failed_at == 1_800_000_000
    assert setup.session.failure is not None
    assert (setup.session.failure.code, setup.session.failure.message) == (error.code, error.message)
    assert setup.session.livekit.room_sid is None
    assert setup.session.duties == Duties().plus(send_events=NOW + 10)
    [owed] = setup.session.owed_events
    assert (owed.type, owed.at) == ("session.failed", NOW)


@pytest.mark.parametrize("error", GEMINI_ERRORS, ids=lambda error: error.code)
def test_a_gemini_error_is_raised_the_room_closed_and_the_session_stored_as_failed(error: ProviderError) -> None:
    setup = Setup(live_tokens=FailingLiveTokens(error))

    with pytest.raises(type(error)) as raised:
        setup.create()

    assert raised.value is error
    assert setup.rooms.closed == [setup.session.session_id]
    assert setup.session.status == "failed"
    assert setup.session.failure is not None
    assert (setup.session.failure.code, setup.session.failure.message) == (error.code, error.message)


@pytest.mark.parametrize("event", ["is_adding", "was_added"])
def test_a_session_that_is_stored_before_gemini_fails_becomes_failed(event: str) -> None:
    sessions = ObservableSessions()
    setup = Setup(sessions=sessions, live_tokens=LateFailingLiveTokens(GeminiUnavailable(), getattr(sessions, event)))

    with pytest.raises(GeminiUnavailable):
        setup.create()

    assert setup.rooms.closed == [setup.session.session_id]
    assert (setup.session.status, setup.session.end_reason) == ("failed", "failed")
    assert setup.session.failure is not None
    assert setup.session.failure.code == "gemini_unavailable"
    assert setup.session.livekit.room_sid == "RM_first"
    assert setup.session.duties == Duties().plus(send_events=NOW + 10)
    assert [owed.type for owed in setup.session.owed_events] == ["session.failed"]


def test_a_gemini_error_cancels_the_livekit_request() -> None:
    rooms = HangingRooms()
    setup = Setup(rooms=rooms, live_tokens=FailingLiveTokens(GeminiUnavailable()))

    with pytest.raises(GeminiUnavailable):
        setup.create()

    assert rooms.cancelled
    assert rooms.closed == [setup.session.session_id]  # the cancelled request may have taken effect


def test_if_both_providers_fail_the_same_error_is_raised_and_stored() -> None:
    setup = Setup(rooms=FailingRooms(LiveKitUnavailable()), live_tokens=FailingLiveTokens(GeminiError()))

    with pytest.raises(ProviderError) as raised:
        setup.create()

    assert setup.session.failure is not None
    assert raised.value.code in ("livekit_unavailable", "gemini_error")
    assert setup.session.failure.code == raised.value.code


def test_the_first_error_is_raised_even_if_the_room_cannot_be_closed() -> None:
    class RoomsThatCannotClose(FailingRooms):
        async def open(self, session: Session) -> CreatedRoom:
            return await FakeRooms.open(self, session)

    setup = Setup(rooms=RoomsThatCannotClose(LiveKitUnavailable()), live_tokens=FailingLiveTokens(GeminiError()))

    with pytest.raises(GeminiError):
        setup.create()

    assert setup.session.failure is not None
    assert setup.session.failure.code == "gemini_error"


def test_the_provider_error_is_raised_even_if_the_failed_session_cannot_be_stored() -> None:
    setup = Setup(sessions=SessionsThatCannotAdd(), live_tokens=FailingLiveTokens(GeminiUnavailable()))

    with pytest.raises(GeminiUnavailable):
        setup.create()

    assert len(setup.rooms.closed) == 1


def test_the_gemini_error_is_raised_even_if_the_write_in_flight_fails() -> None:
    class ObservableSessionsThatFail(ObservableSessions):
        async def add(self, session: Session) -> bool:
            await super().add(session)
            self.stored.clear()
            raise StorageError

    sessions = ObservableSessionsThatFail()
    setup = Setup(sessions=sessions, live_tokens=LateFailingLiveTokens(GeminiUnavailable(), sessions.is_adding))

    with pytest.raises(GeminiUnavailable):
        setup.create()

    assert setup.rooms.closed == setup.rooms.opened


# ---- Storage errors and unexpected errors ---------------------------------------------------------------


def test_if_the_session_cannot_be_stored_the_room_is_closed() -> None:
    setup = Setup(sessions=SessionsThatCannotAdd())

    with pytest.raises(StorageError):
        setup.create()

    assert setup.rooms.closed == setup.rooms.opened


def test_a_storage_error_cancels_the_gemini_request() -> None:
    class HangingLiveTokens(FakeLiveTokens):
        async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
            await asyncio.Event().wait()
            return await super().issue(request)

    setup = Setup(sessions=SessionsThatCannotAdd(), live_tokens=HangingLiveTokens())

    with pytest.raises(StorageError):
        setup.create()

    assert setup.rooms.closed == setup.rooms.opened


@pytest.mark.parametrize("event", ["is_adding", "was_added"])
def test_after_an_unexpected_error_the_room_is_closed_and_the_session_is_failed(event: str) -> None:
    sessions = ObservableSessions()
    setup = Setup(sessions=sessions, live_tokens=LateFailingLiveTokens(RuntimeError("a bug"), getattr(sessions, event)))

    with pytest.raises(RuntimeError, match="a bug"):
        setup.create()

    assert setup.rooms.closed == [setup.session.session_id]
    assert setup.session.status == "failed"
    assert setup.session.failure is not None
    assert setup.session.failure.code == "internal_error"


# ---- Rejected requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("agent_id", ["019a0000-0000-7000-8000-00000000000f", "no-id", ""])
def test_an_unknown_agent_is_rejected_before_any_provider_is_asked(agent_id: str) -> None:
    setup = Setup()

    with pytest.raises(AgentNotFound):
        setup.create(create_session_request(agent_id=agent_id))

    assert (setup.rooms.opened, setup.live_tokens.requests, setup.sessions.stored) == ([], [], {})


def test_another_workspace_s_agent_is_rejected_before_any_provider_is_asked() -> None:
    setup = Setup()

    with pytest.raises(AgentNotFound):
        setup.create(caller=FakeCaller("globex"))

    assert (setup.rooms.opened, setup.live_tokens.requests, setup.sessions.stored) == ([], [], {})


def test_a_ttl_that_is_too_short_is_rejected_before_any_provider_is_asked() -> None:
    setup = Setup(FakeAgents(agent(behaviors={"max_duration_seconds": 900})))

    with pytest.raises(TtlTooShort):
        setup.create(create_session_request(ttl_seconds=600))

    assert (setup.rooms.opened, setup.live_tokens.requests, setup.sessions.stored) == ([], [], {})


def test_an_unknown_key_is_reported_before_an_unknown_agent() -> None:
    setup = Setup(FakeAgents())

    with pytest.raises(InvalidApiKey):
        setup.create(caller=UnknownCaller())

    assert (setup.rooms.opened, setup.live_tokens.requests, setup.sessions.stored) == ([], [], {})
