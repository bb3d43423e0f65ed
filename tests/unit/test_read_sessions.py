import asyncio
from dataclasses import replace

import pytest

from pi_voice.domain.errors import InvalidApiKey, SessionNotFound
from pi_voice.domain.ids import SessionId, TranscriptId
from pi_voice.domain.session_api import ListSessionsQuery
from pi_voice.domain.sessions import Session
from pi_voice.use_cases.call_content import CallContent
from pi_voice.use_cases.read_sessions import ReadSessions
from tests.support.fakes import FakeCaller, FakeClient, FakeSessions, FakeToolCalls, FakeTranscripts, UnknownCaller
from tests.unit.examples import SESSION_ID, TURNS, session

ACME = FakeCaller("acme")
TRANSCRIPT_ID = TranscriptId("019a0000-0000-7000-8000-0000000000aa")
OTHER_ID = SessionId("019a0000-0000-7000-8000-00000000000f")


def completed_session() -> Session:
    return replace(session(), status="completed", transcript_id=TRANSCRIPT_ID, turns=2, results={"city": "Oslo"})


def stored_transcripts() -> FakeTranscripts:
    transcripts = FakeTranscripts()
    transcripts.stored[SESSION_ID, TRANSCRIPT_ID] = TURNS
    return transcripts


def content(transcripts: FakeTranscripts | None = None) -> CallContent:
    return CallContent(transcripts or FakeTranscripts(), FakeToolCalls())


def test_an_active_session_is_returned_without_a_transcript() -> None:
    read_sessions = ReadSessions(FakeSessions(session()), content())

    returned = asyncio.run(read_sessions.get_session(SESSION_ID, ACME))

    assert (returned.status, returned.transcript, returned.results) == ("active", None, None)


def test_a_completed_session_is_returned_with_its_transcript_and_results() -> None:
    read_sessions = ReadSessions(FakeSessions(completed_session()), content(stored_transcripts()))

    returned = asyncio.run(read_sessions.get_session(SESSION_ID, ACME))

    assert (returned.status, returned.transcript, returned.results) == ("completed", TURNS, {"city": "Oslo"})


def test_a_session_completed_without_turns_has_an_empty_transcript() -> None:
    read_sessions = ReadSessions(FakeSessions(replace(completed_session(), turns=0)), content())

    returned = asyncio.run(read_sessions.get_session(SESSION_ID, ACME))

    assert returned.transcript == []


def test_a_session_is_returned_without_its_transcript_once_that_has_expired() -> None:
    read_sessions = ReadSessions(FakeSessions(completed_session()), content())

    returned = asyncio.run(read_sessions.get_session(SESSION_ID, ACME))

    assert returned.transcript is None


def test_a_list_has_the_sessions_of_the_workspace_without_transcripts_and_results() -> None:
    foreign = replace(session("globex"), session_id=OTHER_ID)
    read_sessions = ReadSessions(FakeSessions(completed_session(), foreign), content(stored_transcripts()))

    page = asyncio.run(read_sessions.list_sessions(ListSessionsQuery(), ACME))

    assert [summary.session_id for summary in page.data] == [SESSION_ID]
    assert "Oslo" not in page.model_dump_json()


def test_a_client_token_reads_its_own_session_and_no_other() -> None:
    other = replace(completed_session(), session_id=OTHER_ID)
    read_sessions = ReadSessions(FakeSessions(completed_session(), other), content(stored_transcripts()))
    client = FakeClient(SESSION_ID)

    assert asyncio.run(read_sessions.get_session(SESSION_ID, client)).transcript == TURNS
    with pytest.raises(SessionNotFound):
        asyncio.run(read_sessions.get_session(OTHER_ID, client))


@pytest.mark.parametrize("session_id", [SESSION_ID, OTHER_ID, "no-id"])
def test_a_session_of_another_workspace_is_not_found(session_id: SessionId) -> None:
    read_sessions = ReadSessions(FakeSessions(completed_session()), content(stored_transcripts()))

    with pytest.raises(SessionNotFound):
        asyncio.run(read_sessions.get_session(session_id, FakeCaller("globex")))


def test_a_caller_with_an_unknown_key_reads_no_sessions() -> None:
    read_sessions = ReadSessions(FakeSessions(), content())

    with pytest.raises(InvalidApiKey):
        asyncio.run(read_sessions.get_session(SESSION_ID, UnknownCaller()))
    with pytest.raises(InvalidApiKey):
        asyncio.run(read_sessions.list_sessions(ListSessionsQuery(), UnknownCaller()))
