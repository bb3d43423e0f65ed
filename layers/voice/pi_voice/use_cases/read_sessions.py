"""Get and list sessions."""

from pi_voice.domain import session_api
from pi_voice.domain.ids import SessionId
from pi_voice.domain.pagination import Page
from pi_voice.domain.session_api import ListSessionsQuery, SessionSummary
from pi_voice.ports import Caller, SessionCaller, Sessions
from pi_voice.use_cases.authorization import authorized_session
from pi_voice.use_cases.call_content import CallContent


class ReadSessions:
    """Reads of sessions, with and without their transcript."""

    def __init__(self, sessions: Sessions, content: CallContent) -> None:
        self._sessions = sessions
        self._content = content

    async def get_session(self, session_id: SessionId, caller: SessionCaller) -> session_api.Session:
        """Return a session with its transcript, tool calls and results; raises SessionNotFound."""
        session = await authorized_session(caller, self._sessions, session_id)
        transcript, tool_calls = await self._content.both(session)
        return session_api.Session.of_stored(session, transcript, tool_calls)

    async def list_sessions(self, query: ListSessionsQuery, caller: Caller) -> Page[SessionSummary]:
        """Return one page of the workspace's sessions, newest first; raises InvalidCursor."""
        page = await self._sessions.page(await caller.workspace(), query)
        summaries = [SessionSummary.of(session) for session in page.data]
        return Page[SessionSummary](data=summaries, next_cursor=page.next_cursor)
