"""Delete a session with its transcript and results."""

import time
from typing import Final

from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import SessionActive, SessionNotFound
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.sessions import Tombstone
from pi_voice.ports import SessionCaller, Sessions, Transcripts
from pi_voice.use_cases.authorization import authorized_session

DELETE_AGAIN_SECONDS: Final = 900
"""When the transcript is deleted once more: no function runs longer, so no request writes later."""


class DeleteSession:
    """Deletes ended sessions."""

    ERRORS = (SessionNotFound, SessionActive)

    def __init__(self, sessions: Sessions, transcripts: Transcripts, clock: Clock = time.time) -> None:
        self._sessions = sessions
        self._transcripts = transcripts
        self._clock = clock

    async def __call__(self, session_id: SessionId, caller: SessionCaller) -> None:
        """Delete an ended session with its transcript and results; raises SessionNotFound, SessionActive.

        A tombstone replaces the session first. Its duties delete the transcript once more, because a request that lost
        a race may write late, and close the room, once more when no token can reopen it.
        """
        session = await authorized_session(caller, self._sessions, session_id)
        if session.status == "active":
            raise SessionActive
        now = int(self._clock())
        duties = Duties().plus(delete_again=now + DELETE_AGAIN_SECONDS, close_room=now)
        await self._sessions.delete(Tombstone(session_id, duties, session.tokens_end_at), now)
        await self._transcripts.delete(session_id)
