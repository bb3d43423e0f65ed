"""GET /api/v1/voice/agents: the workspace's agents, newest first."""

from pi_voice.agents import Agent, AgentQuery
from pi_voice.documents import Page
from pi_voice.errors import InvalidCursor
from pi_voice.http import Caller, api
from pi_voice.wiring import catalog

app = api()
agents = catalog()


@app.get("/api/v1/voice/agents", summary="List agents", raises=(InvalidCursor,))
async def list_agents(query: AgentQuery, caller: Caller) -> Page[Agent]:
    """Return one page of agents; follow `next_cursor` until it is null."""
    return await agents.page(query, caller)


handler = app.handler
