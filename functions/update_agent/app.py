"""PATCH /api/v1/voice/agents/{agent_id}: the agent's next version."""

from pi_voice.agents import MergePatch, SavedAgent
from pi_voice.errors import AgentNotFound, InvalidOutputSchema
from pi_voice.http import Caller, api
from pi_voice.ids import AgentId
from pi_voice.wiring import catalog

app = api()
agents = catalog()


@app.patch("/api/v1/voice/agents/{agent_id}", summary="Update an agent", raises=(AgentNotFound, InvalidOutputSchema))
async def update_agent(agent_id: AgentId, patch: MergePatch, caller: Caller) -> SavedAgent:
    """Apply a JSON merge patch; calls in progress keep the version they were started with."""
    return await agents.update(agent_id, patch, caller)


handler = app.handler
