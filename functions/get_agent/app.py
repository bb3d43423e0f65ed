"""GET /api/v1/voice/agents/{agent_id}."""

from pi_voice import container
from pi_voice.domain.agents import Agent
from pi_voice.domain.errors import AgentNotFound
from pi_voice.domain.ids import AgentId
from pi_voice.entrypoints.callers import Caller

app = container.api()
manage_agents = container.manage_agents()


@app.get("/api/v1/voice/agents/{agent_id}", summary="Get an agent", raises=(AgentNotFound,))
async def handle(agent_id: AgentId, caller: Caller) -> Agent:
    """Return the current version of an agent."""
    return await manage_agents.get_agent(agent_id, caller)


handler = app.handler
