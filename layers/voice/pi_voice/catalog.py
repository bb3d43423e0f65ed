"""The catalog: a workspace's agents, and their versions."""

import time
from typing import Final

from pydantic_core import to_json

from pi_voice import schema_check
from pi_voice.access import agent_of
from pi_voice.agents import Agent, AgentQuery, AgentSpec, MergePatch, SavedAgent, merge, unknown_fields
from pi_voice.documents import UNKNOWN_FIELD, Detail, Page, read
from pi_voice.errors import Fault, InvalidRequest, StorageError
from pi_voice.ids import AgentId, Clock, uuid7
from pi_voice.ports import Agents, Caller

_SAVE_ATTEMPTS: Final = 5


class Catalog:
    """Creates, shows, changes and removes agents."""

    def __init__(self, agents: Agents, clock: Clock = time.time) -> None:
        self._agents = agents
        self._clock = clock

    async def create(self, spec: AgentSpec, caller: Caller) -> SavedAgent:
        """Make version 1 of a new agent; raises InvalidOutputSchema."""
        workspace = await caller.workspace()
        warnings = schema_check.check(spec.output_schema, spec.output_schema_strict)
        now = int(self._clock())
        agent = _version(spec, AgentId(uuid7(self._clock)), 1, created_at=now, updated_at=now)
        if not await self._agents.save(workspace, agent):
            raise StorageError
        return _saved(agent, warnings)

    async def again(self, agent_id: AgentId, caller: Caller) -> SavedAgent:
        """Answer once more the request that made an agent, with its first version; raises AgentNotFound."""
        await agent_of(caller, self._agents, agent_id)
        agent = await self._agents.version(agent_id, 1)
        return _saved(agent, schema_check.check(agent.output_schema, agent.output_schema_strict))

    async def get(self, agent_id: AgentId, caller: Caller) -> Agent:
        """Return an agent as it is now; raises AgentNotFound."""
        return (await agent_of(caller, self._agents, agent_id)).agent

    async def page(self, query: AgentQuery, caller: Caller) -> Page[Agent]:
        """Return one page of the workspace's agents, newest first; raises InvalidCursor."""
        return await self._agents.page(await caller.workspace(), query)

    async def update(self, agent_id: AgentId, patch: MergePatch, caller: Caller) -> SavedAgent:
        """Apply a merge patch and return the new version, or the old one if nothing changed.

        Raises AgentNotFound, InvalidOutputSchema, and InvalidRequest for a result that is no agent.
        Two changes at once both count: the slower one is applied again to what the faster one left.
        """
        for _ in range(_SAVE_ATTEMPTS):
            owned = await agent_of(caller, self._agents, agent_id)
            before = AgentSpec.model_validate_json(owned.agent.model_dump_json(include=_SPEC_FIELDS))
            spec = _patched(before, patch)
            warnings = schema_check.check(spec.output_schema, spec.output_schema_strict)
            if spec.model_dump_json() == before.model_dump_json():  # to Python, True is 1
                return _saved(owned.agent, warnings)
            agent = _version(
                spec,
                agent_id,
                owned.agent.version + 1,
                created_at=owned.agent.created_at,
                updated_at=int(self._clock()),
            )
            if await self._agents.save(owned.workspace, agent):
                return _saved(agent, warnings)
        raise StorageError

    async def delete(self, agent_id: AgentId, caller: Caller) -> None:
        """Remove an agent; calls in progress keep the version they were started with. Raises AgentNotFound."""
        owned = await agent_of(caller, self._agents, agent_id)
        await self._agents.delete(owned.workspace, agent_id)


_SPEC_FIELDS: Final = set(AgentSpec.model_fields)


def _patched(spec: AgentSpec, patch: MergePatch) -> AgentSpec:
    if unknown := unknown_fields(patch):
        raise InvalidRequest(faults=[Fault(path, UNKNOWN_FIELD) for path in unknown])
    merged = to_json(merge(spec.model_dump(mode="json"), patch))
    return read(lambda: AgentSpec.model_validate_json(merged))


def _saved(agent: Agent, warnings: list[Fault]) -> SavedAgent:
    told = [Detail(path=warning.path, message=warning.message) for warning in warnings]
    return SavedAgent.model_construct(**dict(agent), warnings=told)


def _version(spec: AgentSpec, agent_id: AgentId, version: int, *, created_at: int, updated_at: int) -> Agent:
    return Agent.model_construct(
        **dict(spec),
        agent_id=agent_id,
        version=version,
        created_at=created_at,
        updated_at=updated_at,
    )
