"""POST /api/v1/voice/agents: a new agent."""

from pi_voice.agents import AgentSpec, SavedAgent
from pi_voice.errors import AgentNotFound, InvalidOutputSchema
from pi_voice.http import Caller, Once, api
from pi_voice.wiring import catalog

app = api()
agents = catalog()


@app.post(
    "/api/v1/voice/agents",
    status_code=201,
    summary="Create an agent",
    raises=(InvalidOutputSchema, AgentNotFound),
    once=Once("agent_id", agents.again),
)
async def create_agent(spec: AgentSpec, caller: Caller) -> SavedAgent:
    """Make version 1 of an agent, once its output schema is known to be good."""
    return await agents.create(spec, caller)


handler = app.handler
