"""GET /api/v1/voice/agents/{agent_id}/versions."""

from pi_voice import container
from pi_voice.domain.agents import Agent, ListAgentVersionsQuery
from pi_voice.domain.errors import AgentNotFound, InvalidCursor
from pi_voice.domain.ids import AgentId
from pi_voice.domain.pagination import Page
from pi_voice.entrypoints.callers import Caller

app = container.api()
manage_agents = container.manage_agents()


@app.get(
    "/api/v1/voice/agents/{agent_id}/versions",
    summary="List the versions of an agent",
    raises=(AgentNotFound, InvalidCursor),
)
async def handle(agent_id: AgentId, query: ListAgentVersionsQuery, caller: Caller) -> Page[Agent]:
    """Return one page of an agent's versions, newest first. Follow `next_cursor` until it is null."""
    return await manage_agents.list_agent_versions(agent_id, query, caller)


handler = app.handler
