"""Call a tool: record what the page did when the agent called a function, or run the function on a server."""

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
    ToolCallInProgress,
    ToolCallsTooLarge,
)
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.tool_calls import CallToolRequest, StoredToolCall, ToolCall, check_count, check_size
from pi_voice.domain.tools import HANG_UP, ServerRun, Tool
from pi_voice.ports import Agents, SessionCaller, Sessions, ToolCalls
from pi_voice.use_cases.authorization import authorized_session
from pi_voice.use_cases.run_server_tool import RunServerTool

_ATTEMPTS: Final = 5


class CallTool:
    """Records the tool calls of running calls."""

    ERRORS = (SessionNotFound, SessionNotActive, ToolCallsTooLarge, ToolCallInProgress)

    def __init__(
        self,
        agents: Agents,
        sessions: Sessions,
        tool_calls: ToolCalls,
        run_server_tool: RunServerTool,
        clock: Clock = time.time,
    ) -> None:
        self._agents = agents
        self._sessions = sessions
        self._tool_calls = tool_calls
        self._run_server_tool = run_server_tool
        self._clock = clock

    async def __call__(self, session_id: SessionId, request: CallToolRequest, caller: SessionCaller) -> ToolCall:
        """Record a call of an active session, once per `call_id`, after it was run if its tool is on a server.

        A repeated request returns the recorded call. When this returns, the call is durable. Raises SessionNotFound,
        SessionNotActive, ToolCallsTooLarge, ToolCallInProgress, and InvalidRequest if the agent has no such tool.
        """
        session: Session | None = await authorized_session(caller, self._sessions, session_id)
        for _ in range(_ATTEMPTS):
            if session is None:
                raise SessionNotActive
            stored, agent = await asyncio.gather(
                self._find(session, request.call_id),
                self._agents.version(session.agent_id, session.agent_version),
            )
            if stored is not None and stored.run is None:
                return stored.call
            if session.status != "active":
                raise SessionNotActive
            tool = _tool(request, agent)
            if tool is not None and isinstance(tool.run, ServerRun):
                call = await self._run_server_tool(session, tool, tool.run, request, stored)
            else:
                call = await self._record(session, request)
            if call is not None:
                return call
            session = await self._sessions.get(session_id)  # a concurrent request may have recorded this or another
        raise StorageError

    async def _find(self, session: Session, call_id: str) -> StoredToolCall | None:
        return await self._tool_calls.find(session.session_id, call_id) if session.tool_calls else None

    async def _record(self, session: Session, request: CallToolRequest) -> ToolCall | None:
        """Record what the page did; None if the session has changed."""
        if request.response is None:
            raise InvalidRequest(details=[ErrorDetail("response", "Is required, because the page runs this tool.")])
        call = ToolCall.model_construct(
            call_id=request.call_id,
            name=request.name,
            arguments=request.arguments,
            status=request.status,
            response=request.response,
            milliseconds=request.milliseconds,
            called_at=int(self._clock()),
        )
        check_count(session.tool_calls)
        size = check_size(request, session.tool_call_bytes)
        return None if await self._tool_calls.record(session, call, size) is None else call


def _tool(request: CallToolRequest, agent: Agent) -> Tool | None:
    """Return the tool that a request calls, None for the built-in one; raises InvalidRequest."""
    for tool in agent.tools:
        if tool.name == request.name:
            return tool
    if request.name == HANG_UP and agent.behaviors.may_hang_up:
        return None
    names = [tool.name for tool in agent.tools] + [HANG_UP] * agent.behaviors.may_hang_up
    has = f"It has {', '.join(names)}." if names else "It has none."
    raise InvalidRequest(details=[ErrorDetail("name", f"Is no tool of version {agent.version} of the agent. {has}")])
