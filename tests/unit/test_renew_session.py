import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain.client_tokens import ClientTokens
from pi_voice.domain.connection_api import GeminiLiveConnection, RenewedSession, RenewSessionRequest
from pi_voice.domain.errors import (
    GeminiUnavailable,
    InvalidApiKey,
    LiveKitUnavailable,
    RenewalLimitReached,
    SessionNotActive,
    SessionNotFound,
    StorageError,
)
from pi_voice.domain.ids import SessionId
from pi_voice.domain.prompts import instruction_for, instruction_to_continue
from pi_voice.domain.sessions import Participant, Session
from pi_voice.domain.tool_calls import ToolCall
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.domain.vocabulary import vocabulary_of
from pi_voice.ports import CreatedRoom, LiveTokenRequest, SessionCaller
from pi_voice.use_cases.issue_connections import IssueConnections
from pi_voice.use_cases.renew_session import RenewSession
from pi_voice.use_cases.stop_session import StopSession
from tests.support.fakes import (
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
    FakeToolCalls,
    UnknownCaller,
)
from tests.unit.examples import ABANDONED_AT, NOW, SESSION_ID, TURNS, agent, session

ACME = FakeCaller("acme")
ANA = agent(instructions="Ask for the city.", voice={"name": "Kore"})
WITH_HANDLE = RenewSessionRequest(has_resumption_handle=True)


class Setup:
    """A RenewSession on fakes."""

    def __init__(
        self,
        stored: Session | None = None,
        *,
        now: float = NOW + 500,
        agents: FakeAgents | None = None,
        sessions: FakeSessions | None = None,
        checkpoints: FakeCheckpoints | None = None,
        rooms: FakeRooms | None = None,
        live_tokens: FakeLiveTokens | None = None,
    ) -> None:
        self.agents = agents or FakeAgents(ANA)
        self.sessions = sessions or FakeSessions(stored or session())
        self.checkpoints = checkpoints or FakeCheckpoints(self.sessions)
        self.tool_calls = FakeToolCalls(self.sessions)
        self.rooms = rooms or FakeRooms()
        self.live_tokens = live_tokens or FakeLiveTokens()
        self.clock = FakeClock(now)
        self.client_tokens = ClientTokens(lambda: ["a-secret-of-more-than-thirty-two-bytes"], self.clock)

    @property
    def renew_session(self) -> RenewSession:
        return self.renew_session_at(self.clock)

    def renew_session_at(self, clock: FakeClock) -> RenewSession:
        issue_connections = IssueConnections(self.rooms, self.live_tokens, self.client_tokens)
        return RenewSession(self.agents, self.sessions, self.checkpoints, self.tool_calls, issue_connections, clock)

    @property
    def stop_session(self) -> StopSession:
        return StopSession(self.sessions, FakeToolCalls(), self.rooms, self.clock)

    def renew(self, request: RenewSessionRequest | None = None, caller: SessionCaller = ACME) -> RenewedSession:
        return asyncio.run(self.renew_session(SESSION_ID, request or RenewSessionRequest(), caller))

    def save(self, *turns: TranscriptTurn) -> None:
        """Save turns as checkpoints."""
        assert asyncio.run(self.checkpoints.append(self.session, turns, 100, NOW))

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
    def token_request(self) -> LiveTokenRequest:
        """The only request for a Gemini Live token."""
        (request,) = self.live_tokens.requests
        return request


def test_a_renewed_call_has_the_values_and_overrides_that_its_session_was_created_with() -> None:
    declared = agent(instructions="Greet {{guest}}, {{date}}.", variables={"guest": {"type": "string", "default": "x"}})
    stored = replace(
        session(),
        created_at=NOW - 3_000,  # renewed on the next day
        time_zone="Pacific/Kwajalein",
        variables={"guest": "Ada"},
        overrides={"voice": {"name": "Leda"}, "greeting": "Hi {{guest}}"},
    )
    setup = Setup(stored, agents=FakeAgents(declared))

    setup.renew()

    assert "Greet \u27e6Ada\u27e7, Friday, 2027-01-15." in setup.token_request.instruction
    assert "Hi \u27e6Ada\u27e7" in setup.token_request.instruction
    assert setup.token_request.voice == "Leda"


# ---- New connections ------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", [ACME, FakeClient(SESSION_ID)], ids=str)
def test_a_renewed_session_gets_new_tokens_for_the_same_room_and_agent(caller: SessionCaller) -> None:
    setup = Setup(replace(session(), media=("microphone", "camera")))

    renewed = setup.renew(caller=caller)

    assert renewed.session_id == SESSION_ID
    assert renewed.expires_at == NOW + 1_100
    assert renewed.connection.livekit.room == SESSION_ID
    assert renewed.connection.gemini_live.token == "auth_tokens/fake"
    assert setup.rooms.opened == [SESSION_ID]
    assert setup.rooms.tokens == [(Participant(identity="caller-1", name="Kim"), ("microphone", "camera"), NOW + 1_100)]
    assert (setup.token_request.voice, setup.token_request.expires_at) == ("Kore", NOW + 1_100)


def test_the_expiry_moves_and_the_due_time_does_not() -> None:
    setup = Setup()

    setup.renew()

    assert setup.session == replace(session(), expires_at=NOW + 1_100, renewals=1)
    assert (setup.session.abandoned_at, setup.session.duties.due_at) == (ABANDONED_AT + 500, ABANDONED_AT)


def test_the_client_token_is_valid_until_the_new_grace_time_is_over() -> None:
    setup = Setup()

    token = setup.renew().client_token

    setup.clock.now = ABANDONED_AT + 499
    assert setup.client_tokens.session_of(token) == SESSION_ID
    setup.clock.now = ABANDONED_AT + 500
    with pytest.raises(InvalidApiKey):
        setup.client_tokens.session_of(token)


def test_the_session_keeps_its_agent_version() -> None:
    setup = Setup()
    updated = agent(version=2, instructions="Ask for the mood.", voice={"name": "Puck"})
    assert asyncio.run(setup.agents.save(asyncio.run(ACME.workspace()), updated))

    setup.renew()

    assert (setup.token_request.instruction, setup.token_request.voice) == (instruction_for(ANA), "Kore")


def test_a_session_can_be_renewed_after_its_connections_have_expired() -> None:
    assert Setup(now=NOW + 2_000).renew().expires_at == NOW + 2_600


# ---- System instruction ---------------------------------------------------------------------------------


def test_without_a_resumption_handle_the_instruction_has_the_saved_turns() -> None:
    setup = Setup()
    setup.save(*TURNS)

    setup.renew()

    assert setup.token_request.instruction == instruction_to_continue(ANA, TURNS)
    assert '{"turn": 1, "role": "user", "text": "Oslo."}' in setup.token_request.instruction


def test_without_a_resumption_handle_the_instruction_has_the_tool_calls() -> None:
    setup = Setup()
    call = ToolCall(call_id="one", name="show", arguments={}, status="succeeded", response={"page": 7}, called_at=NOW)
    assert asyncio.run(setup.tool_calls.record(setup.sessions.stored[SESSION_ID], call, 9))

    setup.renew()

    assert setup.token_request.instruction == instruction_to_continue(ANA, [], [call])
    assert '"response": {"page": 7}' in setup.token_request.instruction


@pytest.mark.parametrize("turns", [TURNS, []], ids=["turns", "no turns"])
def test_with_a_resumption_handle_the_agent_goes_on_without_the_turns(turns: list[TranscriptTurn]) -> None:
    setup = Setup()
    if turns:
        setup.save(*turns)

    setup.renew(WITH_HANDLE)

    assert setup.token_request.instruction == instruction_to_continue(ANA)


def test_the_languages_and_the_vocabulary_of_the_agent_are_hints_for_the_transcription() -> None:
    setup = Setup()

    setup.renew()

    assert setup.token_request.languages == ANA.languages
    assert setup.token_request.vocabulary == vocabulary_of(ANA)


def test_without_saved_turns_the_instruction_is_the_original_one() -> None:
    setup = Setup()

    setup.renew()

    assert setup.token_request.instruction == instruction_for(ANA)


def test_a_renewal_fails_if_the_saved_turns_cannot_be_read() -> None:
    sessions = FakeSessions(session())
    setup = Setup(sessions=sessions, checkpoints=CheckpointsThatCannotRead(sessions))
    setup.save(*TURNS)

    with pytest.raises(StorageError):
        setup.renew()

    assert (setup.live_tokens.requests, setup.rooms.opened) == ([], [])
    assert setup.session.expires_at == NOW + 600


# ---- Latest expiry --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "ttl", "expires_at"),
    [
        (NOW + 2_999, 600, NOW + 3_599),
        (NOW + 3_000, 600, NOW + 3_600),
        (NOW + 3_001, 600, NOW + 3_600),
        (NOW + 3_570, 600, NOW + 3_600),
        (NOW + 10, 3_600, NOW + 3_600),
    ],
)
def test_the_latest_expiry_is_an_hour_after_the_creation(now: int, ttl: int, expires_at: int) -> None:
    setup = Setup(replace(session(), ttl_seconds=ttl, expires_at=min(NOW + ttl, NOW + 3_600)), now=now)

    assert setup.renew().expires_at == setup.session.expires_at == expires_at


@pytest.mark.parametrize("now", [NOW + 3_571, NOW + 3_600, NOW + 9_000])
def test_a_session_cannot_be_renewed_from_30_seconds_before_its_first_hour_ends(now: int) -> None:
    setup = Setup(now=now)

    with pytest.raises(SessionNotActive, match="too old"):
        setup.renew()

    assert (setup.rooms.opened, setup.live_tokens.requests, setup.session) == ([], [], session())


def test_a_renewal_never_shortens_the_expiry() -> None:
    setup = Setup(replace(session(), expires_at=NOW + 3_000), now=NOW)

    assert setup.renew().expires_at == setup.session.expires_at == NOW + 3_000


NEVER_JOINED = replace(session(), max_duration_seconds=300)
JOINED = NEVER_JOINED.livekit.model_copy(update={"first_joined_at": NOW + 5})


@pytest.mark.parametrize(
    ("stored", "now", "expires_at"),
    [
        (replace(NEVER_JOINED, expires_at=NOW + 300), NOW + 100, NOW + 315),
        (replace(NEVER_JOINED, expires_at=NOW + 300), NOW + 285, NOW + 315),
        (NEVER_JOINED, NOW + 285, NOW + 600),  # as it was
        (replace(NEVER_JOINED, livekit=JOINED), NOW + 400, NOW + 1_000),
        (replace(NEVER_JOINED, checkpoint_turns=1), NOW + 400, NOW + 1_000),
        (session(), NOW + 2_000, NOW + 2_600),  # without a time limit
    ],
)
def test_without_a_sign_of_life_the_latest_expiry_is_the_time_limit_of_the_call(
    stored: Session, now: int, expires_at: int
) -> None:
    assert Setup(stored, now=now).renew(WITH_HANDLE).expires_at == expires_at


@pytest.mark.parametrize("now", [NOW + 286, NOW + 400])
def test_a_session_without_a_sign_of_life_cannot_be_renewed_after_its_time_limit(now: int) -> None:
    setup = Setup(NEVER_JOINED, now=now)

    with pytest.raises(SessionNotActive):
        setup.renew()

    assert (setup.rooms.opened, setup.live_tokens.requests, setup.session) == ([], [], NEVER_JOINED)


# ---- Number of renewals ---------------------------------------------------------------------------------


def test_a_session_can_be_renewed_20_times() -> None:
    setup = Setup()

    for _ in range(20):
        setup.renew()
    with pytest.raises(RenewalLimitReached):
        setup.renew()

    assert (len(setup.live_tokens.requests), len(setup.rooms.opened)) == (20, 20)


def test_concurrent_renewals_issue_20_tokens_at_most() -> None:
    setup = Setup()

    outcomes = setup.race(*(setup.renew_session(SESSION_ID, RenewSessionRequest(), ACME) for _ in range(60)))

    assert [type(outcome) for outcome in outcomes].count(RenewalLimitReached) == 40
    assert len(setup.live_tokens.requests) == 20


def test_a_renewal_that_a_provider_refuses_counts() -> None:
    setup = Setup(live_tokens=FailingLiveTokens(GeminiUnavailable()))

    with pytest.raises(GeminiUnavailable):
        setup.renew()

    assert setup.session.renewals == 1


# ---- Ended calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ended",
    [
        replace(session(), status="completed"),
        replace(session(), status="failed"),
        replace(session(), hung_up_at=NOW + 60, end_reason="stopped"),
        replace(session(), hung_up_at=NOW + 60, end_reason="cap"),
    ],
    ids=lambda ended: f"{ended.status} {ended.end_reason}",
)
def test_an_ended_call_cannot_be_renewed(ended: Session) -> None:
    setup = Setup(ended)

    with pytest.raises(SessionNotActive):
        setup.renew()

    assert (setup.rooms.opened, setup.live_tokens.requests, setup.session) == ([], [], ended)


@pytest.mark.parametrize("head_start", range(10))
def test_a_call_that_is_stopped_during_its_renewal_is_over_and_its_room_closed(head_start: int) -> None:
    class OpenOrClosed(FakeRooms):
        """Records whether the room is open."""

        is_open = True

        async def open(self, session: Session) -> CreatedRoom:
            created = await super().open(session)
            self.is_open = True
            return created

        async def close(self, session_id: SessionId) -> None:
            await super().close(session_id)
            self.is_open = False

    rooms = OpenOrClosed()
    setup = Setup(rooms=rooms)

    async def stop() -> None:
        for _ in range(head_start):
            await asyncio.sleep(0)
        await setup.stop_session(SESSION_ID, ACME)

    renewed, stopped = setup.race(setup.renew_session(SESSION_ID, RenewSessionRequest(), ACME), stop())

    assert stopped is None
    assert isinstance(renewed, RenewedSession | SessionNotActive)
    assert (setup.session.is_ongoing, setup.session.end_reason) == (False, "stopped")
    assert not rooms.is_open


def test_a_renewal_of_an_ended_call_is_refused_even_if_its_room_cannot_be_closed() -> None:
    class StoppedMeanwhile(FakeSessions):
        async def renew(self, session_id: SessionId, expires_at: int) -> Session | None:
            assert await self.hang_up(self.stored[session_id], "stopped", NOW)
            return await super().renew(session_id, expires_at)

    class RoomsThatCannotClose(FailingRooms):
        async def open(self, session: Session) -> CreatedRoom:
            return await FakeRooms.open(self, session)

    setup = Setup(sessions=StoppedMeanwhile(session()), rooms=RoomsThatCannotClose(LiveKitUnavailable()))

    with pytest.raises(SessionNotActive):
        setup.renew()


def test_concurrent_renewals_all_succeed_and_the_latest_expiry_wins() -> None:
    setup = Setup()

    outcomes = setup.race(
        *(
            setup.renew_session_at(FakeClock(now))(SESSION_ID, RenewSessionRequest(), ACME)
            for now in (NOW + 502, NOW + 501)
        )
    )

    assert [outcome.expires_at for outcome in outcomes] == [NOW + 1_102, NOW + 1_101]
    assert setup.session.expires_at == NOW + 1_102
    assert setup.rooms.closed == []


# ---- Provider errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "error"),
    [
        (Setup(rooms=FailingRooms(LiveKitUnavailable())), LiveKitUnavailable),
        (Setup(live_tokens=FailingLiveTokens(GeminiUnavailable())), GeminiUnavailable),
    ],
    ids=["livekit", "gemini"],
)
def test_a_provider_error_leaves_the_session_unchanged(setup: Setup, error: type[Exception]) -> None:
    with pytest.raises(error):
        setup.renew()

    assert setup.session == replace(session(), renewals=1)
    assert setup.rooms.closed == []  # participants may be in it


def test_an_error_of_one_provider_does_not_wait_for_the_other() -> None:
    class HangingLiveTokens(FakeLiveTokens):
        async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
            await super().issue(request)
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.raises(LiveKitUnavailable):
        Setup(rooms=FailingRooms(LiveKitUnavailable()), live_tokens=HangingLiveTokens()).renew()


# ---- Authorization --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "error"),
    [
        (FakeCaller("globex"), SessionNotFound),
        (FakeClient(SessionId("019a0000-0000-7000-8000-00000000000f")), SessionNotFound),
        (UnknownCaller(), InvalidApiKey),
    ],
    ids=["another workspace", "another session's client", "unknown key"],
)
def test_an_unauthorized_caller_gets_no_connection(caller: SessionCaller, error: type[Exception]) -> None:
    setup = Setup()

    with pytest.raises(error):
        setup.renew(caller=caller)

    assert (setup.rooms.opened, setup.live_tokens.requests) == ([], [])
