"""Create, get, list, update and delete agents."""

import time
from typing import Final

from pydantic_core import to_json

from pi_voice.domain.agents import (
    Agent,
    AgentConfig,
    CreateAgentRequest,
    ListAgentsQuery,
    MergePatch,
    SavedAgent,
    merge,
    unknown_fields,
)
from pi_voice.domain.base import UNKNOWN_FIELD, parse_request
from pi_voice.domain.errors import ErrorDetail, InvalidRequest, StorageError
from pi_voice.domain.ids import AgentId, Clock, uuid7
from pi_voice.domain.output_schema_validation import validate_output_schema
from pi_voice.domain.pagination import Page
from pi_voice.domain.tool_validation import validate_tools
from pi_voice.ports import Agents, Caller
from pi_voice.use_cases.authorization import authorized_agent

_SAVE_ATTEMPTS: Final = 5


class ManageAgents:
    """Agents of a workspace and their versions."""

    def __init__(self, agents: Agents, clock: Clock = time.time) -> None:
        self._agents = agents
        self._clock = clock

    async def create_agent(self, request: CreateAgentRequest, caller: Caller) -> SavedAgent:
        """Create version 1 of a new agent; raises InvalidOutputSchema."""
        workspace = await caller.workspace()
        warnings = _warnings(request)
        now = int(self._clock())
        agent = _version(request, AgentId(uuid7(self._clock)), 1, created_at=now, updated_at=now)
        if not await self._agents.save(workspace, agent):
            raise StorageError
        return _saved(agent, warnings)

    async def repeat_create_agent(self, agent_id: AgentId, caller: Caller) -> SavedAgent:
        """Return the response of an earlier create request, for its Idempotency-Key; raises AgentNotFound."""
        await authorized_agent(caller, self._agents, agent_id)
        agent = await self._agents.version(agent_id, 1)
        return _saved(agent, _warnings(agent))

    async def get_agent(self, agent_id: AgentId, caller: Caller) -> Agent:
        """Return the current version of an agent; raises AgentNotFound."""
        return (await authorized_agent(caller, self._agents, agent_id)).agent

    async def list_agents(self, query: ListAgentsQuery, caller: Caller) -> Page[Agent]:
        """Return one page of the workspace's agents, newest first; raises InvalidCursor."""
        return await self._agents.page(await caller.workspace(), query)

    async def update_agent(self, agent_id: AgentId, patch: MergePatch, caller: Caller) -> SavedAgent:
        """Apply a merge patch and return the new version, or the current one if nothing changed.

        Of two concurrent updates the later one is applied to the result of the first. Raises AgentNotFound,
        InvalidOutputSchema, and InvalidRequest if the result is not a valid agent.
        """
        for _ in range(_SAVE_ATTEMPTS):
            owned = await authorized_agent(caller, self._agents, agent_id)
            before = AgentConfig.model_construct(**dict(owned.agent))
            config = _patched(before, patch)
            warnings = _warnings(config)
            if config.model_dump_json() == before.model_dump_json():  # as JSON, because True == 1 in Python
                return _saved(owned.agent, warnings)
            agent = _version(
                config,
                agent_id,
                owned.agent.version + 1,
                created_at=owned.agent.created_at,
                updated_at=int(self._clock()),
            )
            if await self._agents.save(owned.workspace, agent):
                return _saved(agent, warnings)
        raise StorageError

    async def delete_agent(self, agent_id: AgentId, caller: Caller) -> None:
        """Delete an agent; its versions remain for sessions that use them. Raises AgentNotFound."""
        owned = await authorized_agent(caller, self._agents, agent_id)
        await self._agents.delete(owned.workspace, agent_id)


def _warnings(config: AgentConfig) -> list[ErrorDetail]:
    """Validate what the types of the fields do not; raises InvalidOutputSchema, InvalidRequest."""
    return [
        *validate_output_schema(config.output_schema, config.output_schema_strict),
        *validate_tools(config.tools),
    ]


def _patched(config: AgentConfig, patch: MergePatch) -> AgentConfig:
    if unknown := unknown_fields(patch):
        raise InvalidRequest(details=[ErrorDetail(path, UNKNOWN_FIELD) for path in unknown])
    merged = to_json(merge(config.model_dump(mode="json"), patch))
    return parse_request(lambda: AgentConfig.model_validate_json(merged))


def _saved(agent: Agent, warnings: list[ErrorDetail]) -> SavedAgent:
    return SavedAgent.model_construct(**dict(agent), warnings=warnings)


def _version(config: AgentConfig, agent_id: AgentId, version: int, *, created_at: int, updated_at: int) -> Agent:
    return Agent.model_construct(
        **dict(config),
        agent_id=agent_id,
        version=version,
        created_at=created_at,
        updated_at=updated_at,
    )
