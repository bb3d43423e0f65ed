"""Provisioning: one call gets its LiveKit room and its Gemini Live token, or neither."""

import asyncio
import time
from typing import Final

from pi_voice.access import agent_of
from pi_voice.agents import Agent
from pi_voice.errors import ProviderError
from pi_voice.ids import AgentId, Clock, SessionId, uuid7
from pi_voice.logs import logger
from pi_voice.ports import Agents, Caller, LiveOrder, LiveTokens, OpenedRoom, Rooms, Sessions
from pi_voice.prompt import instruction_for
from pi_voice.sessions import Connection, GeminiLiveConnection, NewSession, Session, StartedSession

CLEAN_UP_SECONDS: Final = 2.0
"""What removing the room of a failed session may take; create answers within 10 s whatever the providers do."""


class Provisioning:
    """Starts sessions."""

    def __init__(
        self,
        agents: Agents,
        sessions: Sessions,
        rooms: Rooms,
        live_tokens: LiveTokens,
        clock: Clock = time.time,
    ) -> None:
        self._agents = agents
        self._sessions = sessions
        self._rooms = rooms
        self._live_tokens = live_tokens
        self._clock = clock

    async def start(self, order: NewSession, caller: Caller) -> StartedSession:
        """Provision a session for one agent of the caller's workspace.

        Raises AgentNotFound, TtlTooShort, or a ProviderError: then the room is gone again, as far as LiveKit
        can be reached, and a failed session tells why.
        """
        owned = await agent_of(caller, self._agents, AgentId(order.agent_id))
        session_id = SessionId(uuid7(self._clock))
        session = Session.new(session_id, owned.workspace, owned.agent, order, now=int(self._clock()))
        try:
            room, live = await self._connect(session, owned.agent)
            session = session.opened(room.room_sid, room.started_at)
            await self._sessions.add(session)
        except ProviderError as error:
            await self._give_up(session, error)
            raise
        except Exception:
            await self._close_room(session)
            raise
        return StartedSession.model_construct(
            session_id=session.session_id,
            agent_id=session.agent_id,
            agent_version=session.agent_version,
            status="active",
            participant=session.participant,
            max_duration_seconds=session.max_duration_seconds,
            ttl_seconds=session.ttl_seconds,
            created_at=session.created_at,
            expires_at=session.expires_at,
            connection=Connection(
                livekit=self._rooms.admit(session, session.participant, order.media), gemini_live=live
            ),
            metadata=session.metadata,
        )

    async def _connect(self, session: Session, agent: Agent) -> tuple[OpenedRoom, GeminiLiveConnection]:
        """Make the room and the token side by side; the first that fails stops the other."""
        order = LiveOrder(instruction=instruction_for(agent), voice=agent.voice.name, expires_at=session.expires_at)
        try:
            async with asyncio.TaskGroup() as both:
                room = both.create_task(self._rooms.open(session))
                live = both.create_task(self._live_tokens.mint(order))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return room.result(), live.result()

    async def _give_up(self, session: Session, error: ProviderError) -> None:
        """Undo what can be undone and keep why; the caller hears of the provider's failure, not of this."""
        failed = session.failed(error, now=int(self._clock()))
        _, kept = await asyncio.gather(self._close_room(session), self._sessions.add(failed), return_exceptions=True)
        if isinstance(kept, Exception):
            logger.error("a failed session could not be kept", session_id=session.session_id, code=error.code)

    async def _close_room(self, session: Session) -> None:
        """Remove the room if LiveKit lets us; if not, it closes itself when its empty timeout is over."""
        try:
            async with asyncio.timeout(CLEAN_UP_SECONDS):
                await self._rooms.close(session.session_id)
        except (ProviderError, TimeoutError):
            logger.warning("a room is left to its empty timeout", session_id=session.session_id)
