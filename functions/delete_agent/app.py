"""DELETE /api/v1/voice/agents/{agent_id}."""

from pi_voice import container
from pi_voice.domain.errors import AgentNotFound
from pi_voice.domain.ids import AgentId
from pi_voice.entrypoints.callers import Caller

app = container.api()
manage_agents = container.manage_agents()


@app.delete("/api/v1/voice/agents/{agent_id}", summary="Delete an agent", raises=(AgentNotFound,))
async def handle(agent_id: AgentId, caller: Caller) -> None:
    """Delete an agent. Sessions in progress keep their version."""
    await manage_agents.delete_agent(agent_id, caller)


handler = app.handler
