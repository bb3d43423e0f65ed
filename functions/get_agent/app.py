"""GET /api/v1/voice/agents/{agent_id}: one agent as it is now."""

from pi_voice.agents import Agent
from pi_voice.errors import AgentNotFound
from pi_voice.http import Caller, api
from pi_voice.ids import AgentId
from pi_voice.wiring import catalog

app = api()
agents = catalog()


@app.get("/api/v1/voice/agents/{agent_id}", summary="Get an agent", raises=(AgentNotFound,))
async def get_agent(agent_id: AgentId, caller: Caller) -> Agent:
    """Return the current version of an agent."""
    return await agents.get(agent_id, caller)


handler = app.handler
