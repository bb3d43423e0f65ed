import asyncio
from dataclasses import replace

import pytest

from pi_voice.domain.errors import InvalidApiKey, InvalidRequest, SessionNotActive, SessionNotFound
from pi_voice.domain.ids import SessionId
from pi_voice.domain.session_api import AddedParticipant, AddParticipantRequest
from pi_voice.domain.sessions import Participant, Session
from pi_voice.ports import SessionCaller
from pi_voice.use_cases.add_participant import AddParticipant
from tests.fakes import FakeCaller, FakeClock, FakeRooms, FakeSessions, UnknownCaller
from tests.unit.examples import NOW, SESSION_ID, session

COLLEAGUE = AddParticipantRequest(identity="colleague", name="Lee")


def admit(
    order: AddParticipantRequest = COLLEAGUE,
    *,
    to: Session | None = None,
    caller: SessionCaller = FakeCaller("acme"),  # noqa: B008 (it never changes)
    rooms: FakeRooms | None = None,
    now: float = NOW,
) -> AddedParticipant:
    """Let somebody into the one session there is."""
    admission = AddParticipant(FakeSessions(to or session()), rooms or FakeRooms(), FakeClock(now))
    return asyncio.run(admission(SESSION_ID, order, caller))


def test_another_person_gets_a_token_of_their_own_until_the_session_expires() -> None:
    rooms = FakeRooms()

    admitted = admit(rooms=rooms)

    assert admitted.session_id == SESSION_ID
    assert admitted.participant == Participant(identity="colleague", name="Lee")
    assert admitted.expires_at == 1_800_000_600
    assert admitted.connection.livekit.token == "livekit-token-for-colleague"
    assert admitted.connection.livekit.room == SESSION_ID
    assert rooms.tokens == [(Participant(identity="colleague", name="Lee"), ("microphone",), 1_800_000_600)]


def test_another_person_publishes_the_media_that_were_asked_for() -> None:
    rooms = FakeRooms()

    admit(AddParticipantRequest(identity="colleague", media=("microphone", "camera")), rooms=rooms)

    assert [media for _, media, _ in rooms.tokens] == [("microphone", "camera")]


def test_the_session_s_own_participant_would_be_thrown_out_and_cannot_be_admitted_again() -> None:
    rooms = FakeRooms()

    with pytest.raises(InvalidRequest) as refusal:
        admit(AddParticipantRequest(identity="caller-1"), rooms=rooms)

    assert [detail.path for detail in refusal.value.details] == ["identity"]
    assert rooms.tokens == []


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_nobody_is_admitted_to_a_session_that_has_ended(status: str) -> None:
    with pytest.raises(SessionNotActive):
        admit(to=replace(session(), status=status))  # type: ignore[arg-type]


def test_nobody_is_admitted_to_a_call_that_was_hung_up() -> None:
    with pytest.raises(SessionNotActive):
        admit(to=replace(session(), hung_up_at=NOW + 5, end_reason="stopped"))


def test_who_comes_after_the_expiry_is_told_so() -> None:
    with pytest.raises(SessionNotActive, match="connections have expired"):
        admit(now=NOW + 600)


def test_nobody_is_admitted_to_a_session_that_has_expired() -> None:
    assert admit(now=NOW + 599.9).expires_at == NOW + 600
    with pytest.raises(SessionNotActive):
        admit(now=NOW + 600)


def test_another_workspace_s_session_is_as_unknown_as_one_that_never_was() -> None:
    never_was = SessionId("019a0000-0000-7000-8000-00000000000f")

    with pytest.raises(SessionNotFound):
        admit(caller=FakeCaller("globex"))
    with pytest.raises(SessionNotFound):
        asyncio.run(AddParticipant(FakeSessions(), FakeRooms())(never_was, COLLEAGUE, FakeCaller("acme")))


def test_another_workspace_does_not_learn_that_a_session_has_ended() -> None:
    with pytest.raises(SessionNotFound):
        admit(to=replace(session(), status="completed"), caller=FakeCaller("globex"))


def test_who_may_not_call_learns_nothing_of_sessions() -> None:
    with pytest.raises(InvalidApiKey):
        admit(caller=UnknownCaller())
    with pytest.raises(InvalidApiKey):
        asyncio.run(AddParticipant(FakeSessions(), FakeRooms())(SESSION_ID, COLLEAGUE, UnknownCaller()))
