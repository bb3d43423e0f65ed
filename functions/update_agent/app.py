"""PATCH /api/v1/voice/agents/{agent_id}."""

from pi_voice import container
from pi_voice.domain.agents import SavedAgent
from pi_voice.domain.errors import AgentNotFound, AgentVersionConflict, InvalidOutputSchema, InvalidVariables
from pi_voice.domain.ids import AgentId
from pi_voice.domain.merge_patch import MergePatch
from pi_voice.entrypoints.callers import Caller, IfMatch

app = container.api()
manage_agents = container.manage_agents()


@app.patch(
    "/api/v1/voice/agents/{agent_id}",
    summary="Update an agent",
    raises=(AgentNotFound, AgentVersionConflict, InvalidOutputSchema, InvalidVariables),
)
async def handle(agent_id: AgentId, patch: MergePatch, caller: Caller, if_match: IfMatch) -> SavedAgent:
    """Create the agent's next version by a JSON merge patch. Sessions in progress keep their version."""
    return await manage_agents.update_agent(agent_id, patch, caller, if_match)


handler = app.handler
