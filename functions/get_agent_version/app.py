"""GET /api/v1/voice/agents/{agent_id}/versions/{version}."""

from pi_voice import container
from pi_voice.domain.agents import Agent, VersionNumber
from pi_voice.domain.errors import AgentNotFound
from pi_voice.domain.ids import AgentId
from pi_voice.entrypoints.callers import Caller

app = container.api()
manage_agents = container.manage_agents()


@app.get(
    "/api/v1/voice/agents/{agent_id}/versions/{version}",
    summary="Get a version of an agent",
    raises=(AgentNotFound,),
)
async def handle(agent_id: AgentId, version: VersionNumber, caller: Caller) -> Agent:
    """Return one version of an agent. The versions of a deleted agent are not found."""
    return await manage_agents.get_agent_version(agent_id, version, caller)


handler = app.handler
