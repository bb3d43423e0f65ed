"""Connecting: one call's LiveKit room and Gemini Live token, made side by side."""

import asyncio
from dataclasses import dataclass

from pi_voice.agents import Agent
from pi_voice.client_tokens import ClientTokens
from pi_voice.ids import SessionId
from pi_voice.ports import LiveOrder, LiveTokens, OpenedRoom, Rooms
from pi_voice.sessions import Connection, GeminiLiveConnection, Session


@dataclass(frozen=True, slots=True)
class Connected:
    """The room that LiveKit made or found, and the token that Gemini gave."""

    room: OpenedRoom
    live: GeminiLiveConnection


class Connecting:
    """Gives a session all that its client needs to talk."""

    def __init__(self, rooms: Rooms, live_tokens: LiveTokens, client_tokens: ClientTokens) -> None:
        self._rooms = rooms
        self._live_tokens = live_tokens
        self._client_tokens = client_tokens

    async def connect(self, session: Session, agent: Agent, instruction: str) -> Connected:
        """Make the room, or find it, and the token; the first that fails stops the other. Raises a ProviderError."""
        order = LiveOrder(instruction=instruction, voice=agent.voice.name, expires_at=session.expires_at)
        try:
            async with asyncio.TaskGroup() as both:
                room = both.create_task(self._rooms.open(session))
                live = both.create_task(self._live_tokens.mint(order))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return Connected(room.result(), live.result())

    async def disconnect(self, session_id: SessionId) -> None:
        """Remove the room; raises a ProviderError."""
        await self._rooms.close(session_id)

    def connection(self, session: Session, live: GeminiLiveConnection) -> Connection:
        """Let the session's own participant into both."""
        return Connection(livekit=self._rooms.admit(session, session.participant, session.media), gemini_live=live)

    def client_token(self, session: Session) -> str:
        """Sign a token that outlives the session by as long as its transcript may come late."""
        return self._client_tokens.issue(session.session_id, session.given_up_at)
