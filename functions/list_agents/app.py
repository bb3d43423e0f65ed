"""GET /api/v1/voice/agents."""

from pi_voice import container
from pi_voice.domain.agents import Agent, ListAgentsQuery
from pi_voice.domain.errors import InvalidCursor
from pi_voice.domain.pagination import Page
from pi_voice.entrypoints.callers import Caller

app = container.api()
manage_agents = container.manage_agents()


@app.get("/api/v1/voice/agents", summary="List agents", raises=(InvalidCursor,))
async def handle(query: ListAgentsQuery, caller: Caller) -> Page[Agent]:
    """Return one page of agents, newest first. Follow `next_cursor` until it is null."""
    return await manage_agents.list_agents(query, caller)


handler = app.handler
