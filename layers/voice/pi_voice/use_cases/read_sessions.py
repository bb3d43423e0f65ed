"""Get and list sessions."""

from pi_voice.domain import session_api
from pi_voice.domain.ids import SessionId
from pi_voice.domain.pagination import Page
from pi_voice.domain.session_api import ListSessionsQuery, SessionSummary
from pi_voice.ports import Caller, SessionCaller, Sessions, Transcripts
from pi_voice.use_cases.authorization import authorized_session


class ReadSessions:
    """Reads of sessions, with and without their transcript."""

    def __init__(self, sessions: Sessions, transcripts: Transcripts) -> None:
        self._sessions = sessions
        self._transcripts = transcripts

    async def get_session(self, session_id: SessionId, caller: SessionCaller) -> session_api.Session:
        """Return a session with its transcript and results; raises SessionNotFound."""
        session = await authorized_session(caller, self._sessions, session_id)
        if session.transcript_id is None:
            return session_api.Session.with_transcript(session, None)
        transcript = await self._transcripts.get(session_id, session.transcript_id) if session.turns else []
        return session_api.Session.with_transcript(session, transcript)

    async def list_sessions(self, query: ListSessionsQuery, caller: Caller) -> Page[SessionSummary]:
        """Return one page of the workspace's sessions, newest first; raises InvalidCursor."""
        page = await self._sessions.page(await caller.workspace(), query)
        summaries = [SessionSummary.of(session) for session in page.data]
        return Page[SessionSummary](data=summaries, next_cursor=page.next_cursor)
