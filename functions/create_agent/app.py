"""POST /api/v1/voice/agents."""

from pi_voice import container
from pi_voice.domain.agents import CreateAgentRequest, SavedAgent
from pi_voice.domain.errors import AgentNotFound, InvalidOutputSchema, InvalidVariables
from pi_voice.entrypoints.callers import Caller
from pi_voice.entrypoints.http import Idempotent

app = container.api()
manage_agents = container.manage_agents()


@app.post(
    "/api/v1/voice/agents",
    status_code=201,
    summary="Create an agent",
    raises=(InvalidOutputSchema, InvalidVariables, AgentNotFound),
    idempotent=Idempotent("agent_id", manage_agents.repeat_create_agent),
)
async def handle(request: CreateAgentRequest, caller: Caller) -> SavedAgent:
    """Create version 1 of an agent, after its output schema and variables were validated."""
    return await manage_agents.create_agent(request, caller)


handler = app.handler
