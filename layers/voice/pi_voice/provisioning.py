"""Provisioning: one call gets its LiveKit room and its Gemini Live token, or neither."""

import asyncio
import time
from functools import partial
from typing import Final

from pi_voice.access import agent_of, session_of
from pi_voice.connecting import Connected, Connecting
from pi_voice.errors import InternalError, ProviderError, SessionNotActive, StorageError, VoiceError
from pi_voice.ids import AgentId, Clock, SessionId, uuid7
from pi_voice.logs import logger
from pi_voice.ports import Agents, Caller, OpenedRoom, Sessions, Visitor
from pi_voice.prompt import instruction_for
from pi_voice.sessions import DEFAULT_GRACE_SECONDS, NewSession, Problem, Session, StartedSession

CLEAN_UP_SECONDS: Final = 2.0
"""What removing the room of a failed session may take; create answers within 10 s whatever the providers do."""


class Provisioning:
    """Starts sessions."""

    def __init__(
        self,
        agents: Agents,
        sessions: Sessions,
        connecting: Connecting,
        grace_seconds: int = DEFAULT_GRACE_SECONDS,
        clock: Clock = time.time,
    ) -> None:
        self._agents = agents
        self._sessions = sessions
        self._connecting = connecting
        self._grace_seconds = grace_seconds
        self._clock = clock

    async def start(self, order: NewSession, caller: Caller) -> StartedSession:
        """Provision a session for one agent of the caller's workspace.

        Raises AgentNotFound, TtlTooShort, or a ProviderError: then the room is gone again, as far as LiveKit
        can be reached, and a failed session tells why.
        """
        owned = await agent_of(caller, self._agents, AgentId(order.agent_id))
        session_id = SessionId(uuid7(self._clock))
        session = Session.new(session_id, owned, order, int(self._clock()), self._grace_seconds)
        try:
            made = await self._connecting.connect(
                session, owned.agent, instruction_for(owned.agent), on_open=partial(self._keep, session)
            )
        except StorageError:  # and then it cannot be kept why, either
            await self._close_room(session)
            raise
        except Exception as error:
            await self._give_up(session, error if isinstance(error, VoiceError) else InternalError())
            raise
        return self._started(session, made)

    async def again(self, session_id: SessionId, caller: Visitor) -> StartedSession:
        """Answer once more the request that started a session, with fresh tokens until the same expiry.

        Raises SessionNotFound, SessionNotActive, or a ProviderError.
        """
        session = await session_of(caller, self._sessions, session_id)
        if not session.is_on or self._clock() >= session.expires_at:
            raise SessionNotActive
        agent = await self._agents.version(session.agent_id, session.agent_version)
        made = await self._connecting.connect(session, agent, instruction_for(agent))
        return self._started(session, made)

    def _started(self, session: Session, made: Connected) -> StartedSession:
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
            client_token=made.client_token,
            connection=made.connection,
            metadata=session.metadata,
        )

    async def _keep(self, session: Session, room: OpenedRoom) -> None:
        """Keep the session, to the end even if Gemini fails meanwhile: a write that is under way cannot be undone."""
        keeping = asyncio.create_task(self._sessions.add(session.opened(room.room_sid, room.started_at)))
        try:
            await asyncio.wait([keeping])
        finally:
            await keeping

    async def _give_up(self, session: Session, error: VoiceError) -> None:
        """Undo what can be undone and keep why; the caller hears of the first failure, and not of this."""
        _, kept = await asyncio.gather(
            self._close_room(session), self._keep_why(session, error), return_exceptions=True
        )
        if isinstance(kept, Exception):
            logger.error("a failed session could not be kept", session_id=session.session_id, code=error.code)

    async def _keep_why(self, session: Session, error: VoiceError) -> None:
        """Have the session failed, whether or not it is kept already."""
        failed = session.failed(Problem(code=error.code, message=error.message), "failed", now=int(self._clock()))
        if not await self._sessions.add(failed):
            await self._sessions.fail(failed)

    async def _close_room(self, session: Session) -> None:
        """Remove the room if LiveKit lets us; if not, it closes itself when its empty timeout is over."""
        try:
            async with asyncio.timeout(CLEAN_UP_SECONDS):
                await self._connecting.disconnect(session.session_id)
        except (ProviderError, TimeoutError):
            logger.warning("a room is left to its empty timeout", session_id=session.session_id)
