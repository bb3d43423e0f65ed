"""Connecting: one call's LiveKit room and Gemini Live token, made side by side."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pi_voice.agents import Agent
from pi_voice.client_tokens import ClientTokens
from pi_voice.ids import SessionId
from pi_voice.ports import LiveOrder, LiveTokens, OpenedRoom, Rooms
from pi_voice.sessions import Connection, LiveKitConnection, Session

OnOpen = Callable[[OpenedRoom], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Connected:
    """What lets the session's own client into all that it needs."""

    connection: Connection
    client_token: str


class Connecting:
    """Gives a session all that its client needs to talk."""

    def __init__(self, rooms: Rooms, live_tokens: LiveTokens, client_tokens: ClientTokens) -> None:
        self._rooms = rooms
        self._live_tokens = live_tokens
        self._client_tokens = client_tokens

    async def connect(
        self, session: Session, agent: Agent, instruction: str, on_open: OnOpen | None = None
    ) -> Connected:
        """Make the room, or find it, and all tokens; the first that fails stops the rest.

        `on_open` is told of the room while Gemini, which takes longer, is still at work. The client token outlives the
        session by as long as its transcript may come late. Raises a ProviderError, and what `on_open` raises.
        """
        order = LiveOrder(instruction=instruction, voice=agent.voice.name, expires_at=session.expires_at)
        try:
            async with asyncio.TaskGroup() as both:
                live = both.create_task(self._live_tokens.mint(order))  # first, because it takes longer
                room = both.create_task(self._room(session, on_open))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        livekit, client_token = room.result()
        return Connected(Connection(livekit=livekit, gemini_live=live.result()), client_token)

    async def disconnect(self, session_id: SessionId) -> None:
        """Remove the room; raises a ProviderError."""
        await self._rooms.close(session_id)

    async def _room(self, session: Session, on_open: OnOpen | None) -> tuple[LiveKitConnection, str]:
        """Make the room, and do while Gemini is still at work all that needs no Gemini."""
        opened = await self._rooms.open(session)
        livekit = self._rooms.admit(session, session.participant, session.media)
        client_token = self._client_tokens.issue(session.session_id, session.given_up_at)
        if on_open:
            await on_open(opened)
        return livekit, client_token
