"""The history: sessions that are running and sessions that were."""

from pi_voice.access import session_of
from pi_voice.documents import Page
from pi_voice.errors import SessionActive
from pi_voice.ids import SessionId
from pi_voice.ports import Caller, Checkpoints, Sessions, Transcripts, Visitor
from pi_voice.sessions import SessionQuery, SessionState, SessionSummary, state_of, summary_of


class History:
    """Shows and removes sessions."""

    def __init__(self, sessions: Sessions, transcripts: Transcripts, checkpoints: Checkpoints) -> None:
        self._sessions = sessions
        self._transcripts = transcripts
        self._checkpoints = checkpoints

    async def get(self, session_id: SessionId, caller: Visitor) -> SessionState:
        """Return all that is known of a session; raises SessionNotFound."""
        session = await session_of(caller, self._sessions, session_id)
        if session.transcript_id is None:
            return state_of(session, None)
        return state_of(session, await self._transcripts.get(session.transcript_id) if session.turns else [])

    async def page(self, query: SessionQuery, caller: Caller) -> Page[SessionSummary]:
        """Return one page of the workspace's sessions, newest first; raises InvalidCursor."""
        page = await self._sessions.page(await caller.workspace(), query)
        return Page[SessionSummary](data=[summary_of(session) for session in page.data], next_cursor=page.next_cursor)

    async def delete(self, session_id: SessionId, caller: Visitor) -> None:
        """Remove an ended session with its transcript and results; raises SessionNotFound, SessionActive.

        What was said goes first, so that a failure half-way leaves a session that can be deleted again and
        never a transcript that nobody can find.
        """
        session = await session_of(caller, self._sessions, session_id)
        if session.status == "active":
            raise SessionActive
        if session.transcript_id is not None:
            await self._transcripts.delete(session.transcript_id)
        if session.checkpoint_turns:
            await self._checkpoints.delete(session_id)
        await self._sessions.delete(session_id)
