"""Delete a session with its transcript and results."""

from pi_voice.domain.errors import SessionActive, SessionNotFound
from pi_voice.domain.ids import SessionId
from pi_voice.ports import Checkpoints, SessionCaller, Sessions, Transcripts
from pi_voice.use_cases.authorization import authorized_session


class DeleteSession:
    """Deletes ended sessions."""

    ERRORS = (SessionNotFound, SessionActive)

    def __init__(self, sessions: Sessions, transcripts: Transcripts, checkpoints: Checkpoints) -> None:
        self._sessions = sessions
        self._transcripts = transcripts
        self._checkpoints = checkpoints

    async def __call__(self, session_id: SessionId, caller: SessionCaller) -> None:
        """Delete an ended session with its transcript and results; raises SessionNotFound, SessionActive.

        The row goes last: if a request fails in between, the delete can be repeated, and no transcript is left
        without its session.
        """
        session = await authorized_session(caller, self._sessions, session_id)
        if session.status == "active":
            raise SessionActive
        if session.transcript_id is not None:
            await self._transcripts.delete(session.transcript_id)
        if session.checkpoint_turns:
            await self._checkpoints.delete(session_id)
        await self._sessions.delete(session_id)
