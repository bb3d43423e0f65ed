"""Create a session: one call gets its LiveKit room and its Gemini Live token, or neither."""

import asyncio
import time
from functools import partial
from typing import Final

from pi_voice.domain.agents import Agent
from pi_voice.domain.call_agent import agent_of_call
from pi_voice.domain.connection_api import CreatedSession, CreateSessionRequest
from pi_voice.domain.errors import (
    AgentNotFound,
    GeminiError,
    GeminiUnavailable,
    InternalError,
    InvalidVariables,
    LiveKitError,
    LiveKitUnavailable,
    ProviderError,
    RateLimited,
    SessionNotActive,
    SessionNotFound,
    StorageError,
    TtlTooShort,
    UpstreamTimeout,
    VoiceError,
)
from pi_voice.domain.extractions import ErrorInfo
from pi_voice.domain.ids import AgentId, Clock, SessionId, uuid7
from pi_voice.domain.prompts import instruction_for
from pi_voice.domain.sessions import DEFAULT_GRACE_SECONDS, Session
from pi_voice.logs import logger
from pi_voice.ports import Agents, Caller, CreatedRoom, RateLimiter, SessionCaller, Sessions
from pi_voice.use_cases.authorization import authorized_agent, authorized_session, version_of
from pi_voice.use_cases.issue_connections import IssueConnections, IssuedConnections, OnRoomCreated

CLEAN_UP_SECONDS: Final = 2.0
"""Time limit for closing the room of a failed session."""


class CreateSession:
    """Provisions sessions."""

    ERRORS = (
        AgentNotFound,
        SessionNotFound,
        SessionNotActive,
        TtlTooShort,
        InvalidVariables,
        RateLimited,
        LiveKitError,
        LiveKitUnavailable,
        GeminiError,
        GeminiUnavailable,
        UpstreamTimeout,
    )

    def __init__(
        self,
        agents: Agents,
        sessions: Sessions,
        issue_connections: IssueConnections,
        rate_limiter: RateLimiter,
        grace_seconds: int = DEFAULT_GRACE_SECONDS,
        clock: Clock = time.time,
    ) -> None:
        self._agents = agents
        self._sessions = sessions
        self._issue_connections = issue_connections
        self._rate_limiter = rate_limiter
        self._grace_seconds = grace_seconds
        self._clock = clock

    async def __call__(self, request: CreateSessionRequest, caller: Caller) -> CreatedSession:
        """Provision a session for an agent of the caller's workspace.

        Raises RateLimited, AgentNotFound, TtlTooShort, InvalidVariables, InvalidRequest, or a ProviderError. After a
        ProviderError the room is closed if LiveKit can be reached, and the session is stored as failed with the reason.
        """
        current = await authorized_agent(caller, self._agents, AgentId(request.agent_id), self._rate_limiter.acquire)
        owned = await version_of(self._agents, current, request.agent_version)
        now = self._clock()  # one time for both: lists select by the time in the id, and show `created_at`
        session_id = SessionId(uuid7(lambda: now))
        session = request.new_session(session_id, owned, int(now), self._grace_seconds)
        try:
            issued = await self._issue(session, owned.agent, on_room_created=partial(self._store, session))
        except StorageError:  # the failed session could not be stored either
            await self._close_room(session)
            raise
        except Exception as error:
            await self._fail(session, error if isinstance(error, VoiceError) else InternalError())
            raise
        return self._created(session, issued)

    async def repeat_create_session(self, session_id: SessionId, caller: SessionCaller) -> CreatedSession:
        """Return the response of an earlier create request, for its Idempotency-Key, with new tokens.

        The tokens have the original expiry. It counts like a new session, because it issues as many tokens. Raises
        RateLimited, SessionNotFound, SessionNotActive, or a ProviderError.
        """
        session = await authorized_session(caller, self._sessions, session_id, self._rate_limiter.acquire)
        if not session.is_ongoing or self._clock() >= session.expires_at:
            raise SessionNotActive
        agent = await self._agents.version(session.agent_id, session.agent_version)
        return self._created(session, await self._issue(session, agent))

    async def _issue(
        self, session: Session, agent: Agent, on_room_created: OnRoomCreated | None = None
    ) -> IssuedConnections:
        """Issue the connections of a session, locked to its agent as it speaks in this session."""
        speaking = agent_of_call(agent, session)
        return await self._issue_connections(session, speaking, instruction_for(speaking), on_room_created)

    def _created(self, session: Session, issued: IssuedConnections) -> CreatedSession:
        return CreatedSession.model_construct(
            session_id=session.session_id,
            agent_id=session.agent_id,
            agent_version=session.agent_version,
            status="active",
            participant=session.participant,
            max_duration_seconds=session.max_duration_seconds,
            ttl_seconds=session.ttl_seconds,
            created_at=session.created_at,
            expires_at=session.expires_at,
            client_metadata=session.client_metadata,
            client_token=issued.client_token,
            connection=issued.connection,
        )

    async def _store(self, session: Session, room: CreatedRoom) -> None:
        """Store the session. A write in flight is awaited even if Gemini fails, because it cannot be undone."""
        write = asyncio.create_task(self._sessions.add(session.opened(room.room_sid, room.started_at)))
        try:
            await asyncio.wait([write])
        finally:
            await write

    async def _fail(self, session: Session, error: VoiceError) -> None:
        """Close the room and store the session as failed. Errors here are logged; the caller gets the first error."""
        _, stored = await asyncio.gather(
            self._close_room(session), self._store_failed(session, error), return_exceptions=True
        )
        if isinstance(stored, Exception):
            logger.error("failed_session_not_stored", session_id=session.session_id, code=error.code)

    async def _store_failed(self, session: Session, error: VoiceError) -> None:
        """Store the session as failed, whether or not it was stored as active before."""
        failed = session.failed(ErrorInfo(code=error.code, message=error.message), "failed", now=int(self._clock()))
        if not await self._sessions.add(failed):
            await self._sessions.fail(session, failed, close_room_at=None)

    async def _close_room(self, session: Session) -> None:
        """Close the room. If LiveKit cannot be reached, the room closes itself after its empty timeout."""
        try:
            async with asyncio.timeout(CLEAN_UP_SECONDS):
                await self._issue_connections.close_room(session.session_id)
        except (ProviderError, TimeoutError):
            logger.warning("room_not_closed", session_id=session.session_id)
