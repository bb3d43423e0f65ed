import asyncio
from dataclasses import replace

import pytest

from pi_voice.domain.connection_api import AddedParticipant, AddParticipantRequest
from pi_voice.domain.errors import InvalidApiKey, InvalidRequest, SessionNotActive, SessionNotFound
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import Participant, Session
from pi_voice.ports import SessionCaller
from pi_voice.use_cases.add_participant import AddParticipant
from tests.support.fakes import FakeCaller, FakeClock, FakeRooms, FakeSessions, UnknownCaller
from tests.unit.examples import NOW, SESSION_ID, session

COLLEAGUE = AddParticipantRequest(identity="colleague", name="Lee")


def add(
    request: AddParticipantRequest = COLLEAGUE,
    *,
    stored: Session | None = None,
    caller: SessionCaller = FakeCaller("acme"),  # noqa: B008 (it never changes)
    rooms: FakeRooms | None = None,
    now: float = NOW,
) -> AddedParticipant:
    """Add a participant to the only session."""
    add_participant = AddParticipant(FakeSessions(stored or session()), rooms or FakeRooms(), FakeClock(now))
    return asyncio.run(add_participant(SESSION_ID, request, caller))


def test_an_added_participant_gets_a_token_that_is_valid_until_the_session_expires() -> None:
    rooms = FakeRooms()

    added = add(rooms=rooms)

    assert added.session_id == SESSION_ID
    assert added.participant == Participant(identity="colleague", name="Lee")
    assert added.expires_at == 1_800_000_600
    assert added.connection.livekit.token == "livekit-token-for-colleague"
    assert added.connection.livekit.room == SESSION_ID
    assert rooms.tokens == [(Participant(identity="colleague", name="Lee"), ("microphone",), 1_800_000_600)]


def test_an_added_participant_may_publish_the_requested_media() -> None:
    rooms = FakeRooms()

    add(AddParticipantRequest(identity="colleague", media=("microphone", "camera")), rooms=rooms)

    assert [media for _, media, _ in rooms.tokens] == [("microphone", "camera")]


def test_the_identity_of_the_session_s_own_participant_is_rejected() -> None:
    rooms = FakeRooms()

    with pytest.raises(InvalidRequest) as raised:
        add(AddParticipantRequest(identity="caller-1"), rooms=rooms)

    assert [detail.path for detail in raised.value.details] == ["identity"]
    assert rooms.tokens == []


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_no_participant_is_added_to_an_ended_session(status: str) -> None:
    with pytest.raises(SessionNotActive):
        add(stored=replace(session(), status=status))  # type: ignore[arg-type]


def test_no_participant_is_added_to_a_call_that_was_hung_up() -> None:
    with pytest.raises(SessionNotActive, match="was hung up"):
        add(stored=replace(session(), hung_up_at=NOW + 5, end_reason="stopped"))


def test_after_the_expiry_the_error_says_that_the_connections_have_expired() -> None:
    with pytest.raises(SessionNotActive, match="connections have expired"):
        add(now=NOW + 600)


def test_a_participant_can_be_added_until_the_session_expires() -> None:
    assert add(now=NOW + 599.9).expires_at == NOW + 600
    with pytest.raises(SessionNotActive):
        add(now=NOW + 600)


def test_another_workspace_s_session_gives_the_same_error_as_an_unknown_session() -> None:
    unknown_id = SessionId("019a0000-0000-7000-8000-00000000000f")

    with pytest.raises(SessionNotFound):
        add(caller=FakeCaller("globex"))
    with pytest.raises(SessionNotFound):
        asyncio.run(AddParticipant(FakeSessions(), FakeRooms())(unknown_id, COLLEAGUE, FakeCaller("acme")))


def test_another_workspace_s_ended_session_is_not_found() -> None:
    with pytest.raises(SessionNotFound):
        add(stored=replace(session(), status="completed"), caller=FakeCaller("globex"))


def test_an_unknown_key_gives_the_same_error_for_existing_and_unknown_sessions() -> None:
    with pytest.raises(InvalidApiKey):
        add(caller=UnknownCaller())
    with pytest.raises(InvalidApiKey):
        asyncio.run(AddParticipant(FakeSessions(), FakeRooms())(SESSION_ID, COLLEAGUE, UnknownCaller()))
