"""Hanging up: a call is over because somebody stopped it, or because it is past its cap."""

import time

from pi_voice.access import session_of
from pi_voice.errors import SessionNotActive
from pi_voice.ids import Clock, SessionId
from pi_voice.ports import Rooms, Sessions, Visitor
from pi_voice.sessions import Session, SessionState, state_of


class HangingUp:
    """Ends calls at LiveKit, the one hang-up that a function has; the Gemini leg ends with its token."""

    def __init__(self, sessions: Sessions, rooms: Rooms, clock: Clock = time.time) -> None:
        self._sessions = sessions
        self._rooms = rooms
        self._clock = clock

    async def stop(self, session_id: SessionId, caller: Visitor) -> SessionState:
        """Hang up an active call now; its transcript may still be sent. A repeat hangs up again.

        Raises SessionNotFound, SessionNotActive, or a ProviderError: then the sweeper closes the room.
        """
        session = await session_of(caller, self._sessions, session_id)
        if session.status != "active":
            raise SessionNotActive
        return state_of(await self.hang_up(session, "stopped"), None)

    async def hang_up(self, session: Session, reason: str) -> Session:
        """Note that a call is over and why, close its room, and only then call it done.

        In this order, because a token opens the room again: the webhook that tells of a join finds the note.
        Raises SessionNotActive, or a ProviderError.
        """
        noted = await self._sessions.hang_up(session.session_id, reason, now=int(self._clock()))
        if noted is None:
            raise SessionNotActive
        await self.close_room(session.session_id)
        await self._sessions.schedule(noted, noted.next_due_at)
        return noted

    async def close_room(self, session_id: SessionId) -> None:
        """Hang up whoever is in a session's room; raises a ProviderError."""
        await self._rooms.close(session_id)
