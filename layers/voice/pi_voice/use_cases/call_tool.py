"""Record a tool call: what the page did when the agent called a function."""

import asyncio
import time
from typing import Final

from pi_voice.domain.agents import Agent
from pi_voice.domain.errors import (
    ErrorDetail,
    InvalidRequest,
    SessionNotActive,
    SessionNotFound,
    StorageError,
    ToolCallsTooLarge,
)
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.tool_calls import CallToolRequest, ToolCall, check_count, check_size
from pi_voice.domain.tools import HANG_UP
from pi_voice.ports import Agents, SessionCaller, Sessions, ToolCalls
from pi_voice.use_cases.authorization import authorized_session

_ATTEMPTS: Final = 5


class CallTool:
    """Records the tool calls of running calls."""

    ERRORS = (SessionNotFound, SessionNotActive, ToolCallsTooLarge)

    def __init__(self, agents: Agents, sessions: Sessions, tool_calls: ToolCalls, clock: Clock = time.time) -> None:
        self._agents = agents
        self._sessions = sessions
        self._tool_calls = tool_calls
        self._clock = clock

    async def __call__(self, session_id: SessionId, request: CallToolRequest, caller: SessionCaller) -> ToolCall:
        """Record a call of an active session, once per `call_id`; a repeated one returns the recorded call.

        When this returns, the call is durable. Raises SessionNotFound, SessionNotActive, ToolCallsTooLarge, and
        InvalidRequest if the agent has no such tool.
        """
        session: Session | None = await authorized_session(caller, self._sessions, session_id)
        for _ in range(_ATTEMPTS):
            if session is None:
                raise SessionNotActive
            known, agent = await asyncio.gather(
                self._find(session, request.call_id),
                self._agents.version(session.agent_id, session.agent_version),
            )
            if known is not None:
                return known
            if session.status != "active":
                raise SessionNotActive
            call = _checked(request, agent, int(self._clock()))
            check_count(session.tool_calls)
            size = check_size(request, session.tool_call_bytes)
            if await self._tool_calls.record(session, call, size):
                return call
            session = await self._sessions.get(session_id)  # a concurrent request may have recorded this or another
        raise StorageError

    async def _find(self, session: Session, call_id: str) -> ToolCall | None:
        return await self._tool_calls.find(session.session_id, call_id) if session.tool_calls else None


def _checked(request: CallToolRequest, agent: Agent, now: int) -> ToolCall:
    """Return the call to record; raises InvalidRequest."""
    names = [tool.name for tool in agent.tools] + [HANG_UP] * agent.behaviors.may_hang_up
    if request.name not in names:
        has = f"It has {', '.join(names)}." if names else "It has none."
        raise InvalidRequest(
            details=[ErrorDetail("name", f"Is no tool of version {agent.version} of the agent. {has}")]
        )
    if request.response is None:
        raise InvalidRequest(details=[ErrorDetail("response", "Is required, because the page runs this tool.")])
    return ToolCall.model_construct(
        call_id=request.call_id,
        name=request.name,
        arguments=request.arguments,
        status=request.status,
        response=request.response,
        milliseconds=request.milliseconds,
        called_at=now,
    )
