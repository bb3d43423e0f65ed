"""DELETE /api/v1/voice/agents/{agent_id}: an agent is gone."""

from pi_voice.errors import AgentNotFound
from pi_voice.http import Caller, api
from pi_voice.ids import AgentId
from pi_voice.wiring import catalog

app = api()
agents = catalog()


@app.delete("/api/v1/voice/agents/{agent_id}", summary="Delete an agent", raises=(AgentNotFound,))
async def delete_agent(agent_id: AgentId, caller: Caller) -> None:
    """Remove an agent; calls in progress keep the version they were started with."""
    await agents.delete(agent_id, caller)


handler = app.handler
