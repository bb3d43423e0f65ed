"""POST /api/v1/voice/agents/{agent_id}/versions/{version}/restore."""

from pi_voice import container
from pi_voice.domain.agents import SavedAgent, VersionNumber
from pi_voice.domain.errors import AgentNotFound, AgentVersionConflict, InvalidOutputSchema, InvalidVariables
from pi_voice.domain.ids import AgentId
from pi_voice.entrypoints.callers import Caller, IfMatch, RequestHash
from pi_voice.entrypoints.http import Idempotent

app = container.api()
manage_agents = container.manage_agents()


@app.post(
    "/api/v1/voice/agents/{agent_id}/versions/{version}/restore",
    status_code=200,
    summary="Restore a version of an agent",
    raises=(AgentNotFound, AgentVersionConflict, InvalidOutputSchema, InvalidVariables),
    idempotent=Idempotent("version_id", manage_agents.repeat_restore_agent_version),
)
async def handle(
    agent_id: AgentId, version: VersionNumber, caller: Caller, if_match: IfMatch, request_hash: RequestHash
) -> SavedAgent:
    """Create the agent's next version, equal to an earlier one. Sessions in progress keep their version."""
    return await manage_agents.restore_agent_version(agent_id, version, caller, if_match, request_hash)


handler = app.handler
