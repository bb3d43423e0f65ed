"""Renew a session: give a call new connections when its old ones expired or are about to."""

import asyncio
import time
from dataclasses import replace

from pi_voice.domain.call_agent import agent_of_call
from pi_voice.domain.connection_api import RenewedSession, RenewSessionRequest
from pi_voice.domain.errors import (
    GeminiError,
    GeminiUnavailable,
    LiveKitError,
    LiveKitUnavailable,
    ProviderError,
    RenewalLimitReached,
    SessionNotActive,
    SessionNotFound,
    UpstreamTimeout,
)
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.prompts import instruction_for, instruction_to_continue
from pi_voice.domain.sessions import SHORTEST_RENEWAL_SECONDS
from pi_voice.logs import logger
from pi_voice.ports import Agents, Checkpoints, SessionCaller, Sessions, ToolCalls
from pi_voice.use_cases.authorization import authorized_session
from pi_voice.use_cases.issue_connections import IssueConnections


class RenewSession:
    """Extends active sessions."""

    ERRORS = (
        SessionNotFound,
        SessionNotActive,
        RenewalLimitReached,
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
        checkpoints: Checkpoints,
        tool_calls: ToolCalls,
        issue_connections: IssueConnections,
        clock: Clock = time.time,
    ) -> None:
        self._agents = agents
        self._sessions = sessions
        self._checkpoints = checkpoints
        self._tool_calls = tool_calls
        self._issue_connections = issue_connections
        self._clock = clock

    async def __call__(
        self, session_id: SessionId, request: RenewSessionRequest, caller: SessionCaller
    ) -> RenewedSession:
        """Issue new tokens for the same room and the same agent, and move the expiry.

        The agent is the session's version, with its overrides and variables. The new prompt tells it to go on instead
        of greeting. If the client cannot resume the Gemini session, it contains the turns and tool calls so far;
        without any, it is the prompt of a new call. The renewal is counted before anything is issued. Raises
        SessionNotFound, SessionNotActive, RenewalLimitReached, or a ProviderError.
        """
        session = await authorized_session(caller, self._sessions, session_id)
        now = int(self._clock())
        if session.status != "active":
            raise SessionNotActive
        if session.hung_up_at is not None:
            raise SessionNotActive("The call was hung up and cannot be renewed. Complete the session.")
        latest = session.latest_expiry
        if latest - now < SHORTEST_RENEWAL_SECONDS:
            raise SessionNotActive("The session is too old to be renewed. Create another session.")
        if await self._sessions.count_renewal(session_id) is None:
            raise SessionNotActive
        renewed = replace(session, expires_at=max(session.expires_at, min(now + session.ttl_seconds, latest)))
        agent = agent_of_call(await self._agents.version(session.agent_id, session.agent_version), session)
        if request.has_resumption_handle:
            instruction = instruction_to_continue(agent)
        elif session.checkpoint_turns or session.tool_calls:
            turns, tool_calls = await asyncio.gather(self._checkpoints.read(session), self._tool_calls.read(session))
            instruction = instruction_to_continue(agent, turns, tool_calls)
        else:
            instruction = instruction_for(agent)
        issued = await self._issue_connections(renewed, agent, instruction)
        if await self._sessions.renew(session_id, renewed.expires_at) is None:
            await self._close_reopened_room(session_id)
            raise SessionNotActive
        return RenewedSession.model_construct(
            session_id=session_id,
            expires_at=renewed.expires_at,
            client_token=issued.client_token,
            connection=issued.connection,
        )

    async def _close_reopened_room(self, session_id: SessionId) -> None:
        """Close the room of a call that ended while its renewal opened the room again.

        If that fails, the room closes when it was empty for its timeout, or when the sweeper closes it again.
        """
        try:
            await self._issue_connections.close_room(session_id)
        except ProviderError as error:
            logger.warning("room_not_closed", session_id=session_id, code=error.code)
