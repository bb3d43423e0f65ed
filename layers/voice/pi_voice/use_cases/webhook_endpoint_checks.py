"""Checks of a webhook endpoint before it is stored."""

from pi_voice.domain.errors import ErrorDetail, InvalidRequest
from pi_voice.domain.ids import AgentId, WorkspaceId
from pi_voice.ports import Agents


async def check_agent(agents: Agents, workspace: WorkspaceId, agent_id: AgentId | None) -> None:
    """Check that an endpoint's agent, if any, is one of its workspace; raises InvalidRequest."""
    if agent_id is None:
        return
    owned = await agents.current(agent_id)
    if owned is None or owned.workspace != workspace:
        message = "Is not the id of an agent. List yours with GET /api/v1/voice/agents."
        raise InvalidRequest(details=[ErrorDetail("agent_id", message)])
