"""Stop a session: close its LiveKit room, because a client asked for it or the call exceeded its time limit."""

import time

from pi_voice.domain import session_api
from pi_voice.domain.errors import (
    LiveKitError,
    LiveKitUnavailable,
    SessionNotActive,
    SessionNotFound,
    UpstreamTimeout,
)
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.sessions import Session
from pi_voice.ports import Rooms, SessionCaller, Sessions, ToolCalls
from pi_voice.use_cases.authorization import authorized_session
from pi_voice.use_cases.settle_duties import room_closed, settle_duties


class StopSession:
    """Hangs up calls at LiveKit. The Gemini connection cannot be closed from here; it ends with its token."""

    ERRORS = (SessionNotFound, SessionNotActive, LiveKitError, LiveKitUnavailable, UpstreamTimeout)

    def __init__(self, sessions: Sessions, tool_calls: ToolCalls, rooms: Rooms, clock: Clock = time.time) -> None:
        self._sessions = sessions
        self._tool_calls = tool_calls
        self._rooms = rooms
        self._clock = clock

    async def __call__(self, session_id: SessionId, caller: SessionCaller) -> session_api.Session:
        """Hang up an active call. Its transcript may still be sent. A repeated request closes the room again.

        Raises SessionNotFound, SessionNotActive, or a ProviderError; after a ProviderError the sweeper closes the room.
        """
        session = await authorized_session(caller, self._sessions, session_id)
        if session.status != "active":
            raise SessionNotActive
        stopped = await self.hang_up(session, "stopped")
        return session_api.Session.of_stored(stopped, None, await self._tool_calls.read(stopped))

    async def hang_up(self, session: Session, reason: str) -> Session:
        """Record the hang-up with its reason, then close the room.

        Recording comes first, because a participant's token reopens the room: the webhook of that join finds the
        record and closes the room again. Raises SessionNotActive, or a ProviderError.
        """
        now = int(self._clock())
        recorded = await self._sessions.hang_up(session, reason, now)
        if recorded is None:
            raise SessionNotActive
        await self._rooms.close(session.session_id)
        await settle_duties(self._sessions, recorded, room_closed(recorded, closed_at=now))
        return recorded
