import asyncio
from dataclasses import replace

import pytest

from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import InvalidApiKey, SessionActive, SessionNotFound, StorageError
from pi_voice.domain.ids import SessionId, TranscriptId
from pi_voice.domain.sessions import Session, Tombstone
from pi_voice.use_cases.delete_session import DeleteSession
from tests.support.fakes import (
    FakeCaller,
    FakeClock,
    FakeSessions,
    FakeTranscripts,
    TranscriptsThatCannotDelete,
    UnknownCaller,
)
from tests.unit.examples import NOW, SESSION_ID, TURNS, session

ACME = FakeCaller("acme")
TRANSCRIPT_ID = TranscriptId("019a0000-0000-7000-8000-0000000000aa")


def completed_session() -> Session:
    return replace(session(), status="completed", transcript_id=TRANSCRIPT_ID, turns=2, results={"city": "Oslo"})


def stored_transcripts() -> FakeTranscripts:
    transcripts = FakeTranscripts()
    transcripts.stored[SESSION_ID, TRANSCRIPT_ID] = TURNS
    return transcripts


def delete_session_on(sessions: FakeSessions, transcripts: FakeTranscripts | None = None) -> DeleteSession:
    return DeleteSession(sessions, transcripts or FakeTranscripts(), FakeClock(NOW + 300))


def test_an_ended_session_is_deleted_with_its_transcript() -> None:
    sessions, transcripts = FakeSessions(completed_session()), stored_transcripts()

    asyncio.run(delete_session_on(sessions, transcripts)(SESSION_ID, ACME))

    assert sessions.stored == {}
    assert transcripts.stored == {}


def test_a_tombstone_deletes_once_more_and_closes_the_room_now_and_when_its_tokens_have_expired() -> None:
    sessions = FakeSessions(completed_session())

    asyncio.run(delete_session_on(sessions)(SESSION_ID, ACME))

    duties = Duties().plus(delete_again=NOW + 300 + 900, close_room=NOW + 300)
    assert sessions.tombstones == {SESSION_ID: Tombstone(SESSION_ID, duties, tokens_end_at=NOW + 600 + 60)}


def test_a_failed_session_can_be_deleted() -> None:
    sessions = FakeSessions(replace(session(), status="failed"))

    asyncio.run(delete_session_on(sessions)(SESSION_ID, ACME))

    assert sessions.stored == {}


def test_an_active_session_cannot_be_deleted() -> None:
    sessions = FakeSessions(session())

    with pytest.raises(SessionActive):
        asyncio.run(delete_session_on(sessions)(SESSION_ID, ACME))

    assert sessions.stored == {SESSION_ID: session()}


def test_a_transcript_that_cannot_be_deleted_is_deleted_by_the_tombstone_later() -> None:
    sessions = FakeSessions(completed_session())

    with pytest.raises(StorageError):
        asyncio.run(delete_session_on(sessions, TranscriptsThatCannotDelete())(SESSION_ID, ACME))

    assert sessions.stored == {}
    assert sessions.tombstones[SESSION_ID].duties.get("delete_again") is not None


@pytest.mark.parametrize("session_id", [SESSION_ID, "019a0000-0000-7000-8000-00000000000f", "no-id"])
def test_a_session_of_another_workspace_is_not_found(session_id: SessionId) -> None:
    sessions, transcripts = FakeSessions(completed_session()), stored_transcripts()

    with pytest.raises(SessionNotFound):
        asyncio.run(delete_session_on(sessions, transcripts)(session_id, FakeCaller("globex")))

    assert sessions.stored == {SESSION_ID: completed_session()}
    assert transcripts.stored == {(SESSION_ID, TRANSCRIPT_ID): TURNS}


@pytest.mark.parametrize("stored", [[], [completed_session()]], ids=["no session", "a session"])
def test_a_caller_with_an_unknown_key_deletes_nothing(stored: list[Session]) -> None:
    sessions = FakeSessions(*stored)

    with pytest.raises(InvalidApiKey):
        asyncio.run(delete_session_on(sessions)(SESSION_ID, UnknownCaller()))

    assert list(sessions.stored.values()) == stored
