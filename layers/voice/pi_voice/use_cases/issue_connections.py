"""Issue the connections of a call: create its LiveKit room and its Gemini Live token concurrently."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from pi_voice.domain.agents import Agent
from pi_voice.domain.client_tokens import ClientTokens
from pi_voice.domain.connection_api import Connection, LiveKitConnection
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.variables import phrases
from pi_voice.domain.vocabulary import vocabulary_of
from pi_voice.ports import CreatedRoom, LiveTokenRequest, LiveTokens, Rooms

OnRoomCreated = Callable[[CreatedRoom], Awaitable[None]]


class IssuedConnections(NamedTuple):
    """The connections of a session, and the client token for its routes."""

    connection: Connection
    client_token: str


class IssueConnections:
    """Issues the connections and the client token of a session."""

    def __init__(self, rooms: Rooms, live_tokens: LiveTokens, client_tokens: ClientTokens) -> None:
        self._rooms = rooms
        self._live_tokens = live_tokens
        self._client_tokens = client_tokens

    async def __call__(
        self, session: Session, agent: Agent, instruction: str, on_room_created: OnRoomCreated | None = None
    ) -> IssuedConnections:
        """Create or find the room, and issue all tokens. The first failure cancels the rest.

        `on_room_created` runs while the slower Gemini request is in flight. The client token is valid until the
        session's grace time is over, so that a late transcript is accepted. Raises a ProviderError, and what
        `on_room_created` raises.
        """
        request = LiveTokenRequest(
            instruction=instruction,
            voice=agent.voice.name,
            expires_at=session.expires_at,
            languages=agent.languages,
            vocabulary=vocabulary_of(agent, phrases(session.variables)),
            tools=agent.tools,
            may_hang_up=agent.behaviors.may_hang_up,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                live = tasks.create_task(self._live_tokens.issue(request))  # first, because it takes longer
                room = tasks.create_task(self._room(session, on_room_created))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        livekit, client_token = room.result()
        return IssuedConnections(Connection(livekit=livekit, gemini_live=live.result()), client_token)

    async def close_room(self, session_id: SessionId) -> None:
        """Close the room; raises a ProviderError."""
        await self._rooms.close(session_id)

    async def _room(self, session: Session, on_room_created: OnRoomCreated | None) -> tuple[LiveKitConnection, str]:
        """Create the room, and do all work that does not need the Gemini token."""
        created = await self._rooms.open(session)
        livekit = self._rooms.issue_token(session, session.participant, session.media)
        client_token = self._client_tokens.issue(session.session_id, session.abandoned_at)
        if on_room_created:
            await on_room_created(created)
        return livekit, client_token
