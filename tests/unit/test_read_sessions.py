import asyncio
from dataclasses import replace

import pytest

from pi_voice.domain.errors import InvalidApiKey, SessionActive, SessionNotFound, StorageError
from pi_voice.domain.ids import SessionId, TranscriptId
from pi_voice.domain.session_api import ListSessionsQuery
from pi_voice.domain.sessions import Session
from pi_voice.use_cases.read_sessions import ReadSessions
from tests.fakes import (
    FakeCaller,
    FakeCheckpoints,
    FakeClient,
    FakeSessions,
    FakeTranscripts,
    TranscriptsThatCannotDelete,
    UnknownCaller,
)
from tests.unit.examples import SESSION_ID, TURNS, session

ACME = FakeCaller("acme")
TRANSCRIPT_ID = TranscriptId("019a0000-0000-7000-8000-0000000000aa")


def completed() -> Session:
    return replace(session(), status="completed", transcript_id=TRANSCRIPT_ID, turns=2, results={"city": "Oslo"})


def transcripts() -> FakeTranscripts:
    kept = FakeTranscripts()
    kept.kept[TRANSCRIPT_ID] = TURNS
    return kept


def history_of(sessions: FakeSessions, kept: FakeTranscripts | None = None) -> ReadSessions:
    """Make a history without checkpoints."""
    return ReadSessions(sessions, kept or FakeTranscripts(), FakeCheckpoints(sessions))


def test_an_active_session_is_shown_without_a_transcript() -> None:
    state = asyncio.run(history_of(FakeSessions(session())).get(SESSION_ID, ACME))

    assert (state.status, state.transcript, state.results) == ("active", None, None)


def test_a_completed_session_is_shown_with_its_transcript_and_results() -> None:
    state = asyncio.run(history_of(FakeSessions(completed()), transcripts()).get(SESSION_ID, ACME))

    assert (state.status, state.transcript, state.results) == ("completed", TURNS, {"city": "Oslo"})


def test_a_session_that_was_completed_with_nothing_said_has_an_empty_transcript() -> None:
    silent = replace(completed(), turns=0)

    state = asyncio.run(history_of(FakeSessions(silent)).get(SESSION_ID, ACME))

    assert state.transcript == []


def test_a_session_whose_transcript_has_expired_is_shown_without_it() -> None:
    state = asyncio.run(history_of(FakeSessions(completed())).get(SESSION_ID, ACME))

    assert state.transcript is None


def test_a_workspace_s_sessions_are_listed_without_transcript_and_results() -> None:
    theirs = replace(session("globex"), session_id=SessionId("019a0000-0000-7000-8000-00000000000f"))

    page = asyncio.run(history_of(FakeSessions(completed(), theirs), transcripts()).page(ListSessionsQuery(), ACME))

    assert [summary.session_id for summary in page.data] == [SESSION_ID]
    assert "Oslo" not in page.model_dump_json()


def test_an_ended_session_is_deleted_with_its_transcript() -> None:
    sessions, kept = FakeSessions(completed()), transcripts()

    asyncio.run(history_of(sessions, kept).delete(SESSION_ID, ACME))

    assert sessions.kept == {}
    assert kept.kept == {}


def test_a_session_s_own_client_may_look_at_it_and_at_no_other() -> None:
    theirs = replace(completed(), session_id=SessionId("019a0000-0000-7000-8000-00000000000f"))
    history = history_of(FakeSessions(completed(), theirs), transcripts())
    client = FakeClient(SESSION_ID)

    assert asyncio.run(history.get(SESSION_ID, client)).transcript == TURNS
    with pytest.raises(SessionNotFound):
        asyncio.run(history.get(theirs.session_id, client))


def test_an_ended_session_is_deleted_with_what_was_kept_as_the_call_went() -> None:
    sessions = FakeSessions(session())
    checkpoints = FakeCheckpoints(sessions)
    asyncio.run(checkpoints.append(session(), TURNS, 100))
    sessions.kept[SESSION_ID] = replace(sessions.kept[SESSION_ID], status="completed")

    asyncio.run(ReadSessions(sessions, FakeTranscripts(), checkpoints).delete(SESSION_ID, ACME))

    assert (sessions.kept, checkpoints.kept) == ({}, {})


def test_a_failed_session_is_deleted_too() -> None:
    sessions = FakeSessions(replace(session(), status="failed"))

    asyncio.run(history_of(sessions).delete(SESSION_ID, ACME))

    assert sessions.kept == {}


def test_an_active_session_is_not_deleted() -> None:
    sessions = FakeSessions(session())

    with pytest.raises(SessionActive):
        asyncio.run(history_of(sessions).delete(SESSION_ID, ACME))

    assert sessions.kept == {SESSION_ID: session()}


def test_a_session_whose_transcript_cannot_be_removed_stays_so_that_it_can_be_deleted_again() -> None:
    sessions = FakeSessions(completed())

    with pytest.raises(StorageError):
        asyncio.run(history_of(sessions, TranscriptsThatCannotDelete()).delete(SESSION_ID, ACME))

    assert sessions.kept == {SESSION_ID: completed()}


@pytest.mark.parametrize("session_id", [SESSION_ID, "019a0000-0000-7000-8000-00000000000f", "no-id"])
def test_another_workspace_s_session_is_as_unknown_as_one_that_never_was(session_id: SessionId) -> None:
    sessions, kept = FakeSessions(completed()), transcripts()
    history = history_of(sessions, kept)

    with pytest.raises(SessionNotFound):
        asyncio.run(history.get(session_id, FakeCaller("globex")))
    with pytest.raises(SessionNotFound):
        asyncio.run(history.delete(session_id, FakeCaller("globex")))

    assert sessions.kept == {SESSION_ID: completed()}
    assert kept.kept == {TRANSCRIPT_ID: TURNS}


def test_who_may_not_call_learns_nothing_of_sessions() -> None:
    history = history_of(FakeSessions())

    with pytest.raises(InvalidApiKey):
        asyncio.run(history.get(SESSION_ID, UnknownCaller()))
    with pytest.raises(InvalidApiKey):
        asyncio.run(history.delete(SESSION_ID, UnknownCaller()))
    with pytest.raises(InvalidApiKey):
        asyncio.run(history.page(ListSessionsQuery(), UnknownCaller()))
