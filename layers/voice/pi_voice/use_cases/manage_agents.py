"""Create, get, list, update and delete agents, and their versions."""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Final

from pydantic_core import to_json

from pi_voice.domain.agents import (
    MAX_AGENT_BYTES,
    Agent,
    AgentConfig,
    CreateAgentRequest,
    ListAgentsQuery,
    ListAgentVersionsQuery,
    OwnedAgent,
    SavedAgent,
    VersionNumber,
    unknown_fields,
)
from pi_voice.domain.base import UNKNOWN_FIELD, parse_request
from pi_voice.domain.call_agent import check_texts
from pi_voice.domain.errors import AgentVersionNotFound, AlreadyProcessed, ErrorDetail, InvalidRequest, StorageError
from pi_voice.domain.ids import AgentId, Clock, WorkspaceId, uuid7
from pi_voice.domain.merge_patch import MergePatch, merge
from pi_voice.domain.output_schema_validation import validate_output_schema
from pi_voice.domain.pagination import Page
from pi_voice.domain.preconditions import check_if_match
from pi_voice.domain.tool_validation import validate_tools
from pi_voice.domain.tools import Tool, server_runs
from pi_voice.ports import Agents, Caller, WebhookEndpoints
from pi_voice.use_cases.authorization import authorized_agent, version_of

_SAVE_ATTEMPTS: Final = 5
_NO_ENDPOINT: Final = "Is no webhook endpoint of this workspace. List yours with GET /api/v1/voice/webhook-endpoints."


class ManageAgents:
    """Agents of a workspace and their versions."""

    def __init__(self, agents: Agents, endpoints: WebhookEndpoints, clock: Clock = time.time) -> None:
        self._agents = agents
        self._endpoints = endpoints
        self._clock = clock

    async def create_agent(self, request: CreateAgentRequest, caller: Caller) -> SavedAgent:
        """Create version 1 of a new agent; raises InvalidOutputSchema, InvalidVariables, InvalidRequest."""
        workspace = await caller.workspace()
        now = int(self._clock())
        agent = _version(request, AgentId(uuid7(self._clock)), 1, created_at=now, updated_at=now)
        saved = _checked(agent)
        await self._check_endpoints(workspace, agent.tools)
        if not await self._agents.save(workspace, agent):
            raise StorageError
        return saved

    async def repeat_create_agent(self, agent_id: AgentId, caller: Caller) -> SavedAgent:
        """Return the response of an earlier create request, for its Idempotency-Key; raises AgentNotFound."""
        await authorized_agent(caller, self._agents, agent_id)
        return _checked(await self._agents.version(agent_id, 1))

    async def get_agent(self, agent_id: AgentId, caller: Caller) -> Agent:
        """Return the current version of an agent; raises AgentNotFound."""
        return (await authorized_agent(caller, self._agents, agent_id)).agent

    async def list_agents(self, query: ListAgentsQuery, caller: Caller) -> Page[Agent]:
        """Return one page of the workspace's agents, newest first; raises InvalidCursor."""
        return await self._agents.page(await caller.workspace(), query)

    async def list_agent_versions(
        self, agent_id: AgentId, query: ListAgentVersionsQuery, caller: Caller
    ) -> Page[Agent]:
        """Return one page of an agent's versions, newest first; raises AgentNotFound, InvalidCursor."""
        await authorized_agent(caller, self._agents, agent_id)
        return await self._agents.version_page(agent_id, query)

    async def get_agent_version(self, agent_id: AgentId, version: VersionNumber, caller: Caller) -> Agent:
        """Return one version of an agent that was not deleted; raises AgentNotFound."""
        owned = await authorized_agent(caller, self._agents, agent_id)
        return (await version_of(self._agents, owned, _number(version))).agent

    async def update_agent(
        self, agent_id: AgentId, patch: MergePatch, caller: Caller, if_match: str | None = None
    ) -> SavedAgent:
        """Apply a merge patch and return the new version, or the current one if nothing changed.

        Of two concurrent updates the later one is applied to the result of the first, unless `if_match` names the
        version before. Raises AgentNotFound, AgentVersionConflict, InvalidOutputSchema, InvalidVariables, and
        InvalidRequest if the result is not a valid agent.
        """
        for _ in range(_SAVE_ATTEMPTS):
            owned = await authorized_agent(caller, self._agents, agent_id)
            check_if_match(if_match, owned.agent.version)
            if (saved := await self._save_change(owned, _patched(_config(owned.agent), patch))) is not None:
                return saved
        raise StorageError

    async def restore_agent_version(
        self,
        agent_id: AgentId,
        version: VersionNumber,
        caller: Caller,
        if_match: str | None = None,
        request_hash: str | None = None,
    ) -> SavedAgent:
        """Make a new version equal to an earlier one, or return the current one if it is equal already.

        Raises AgentNotFound, AgentVersionConflict, and what `update_agent` raises for an agent that is not valid by
        today's rules. Raises AlreadyProcessed if the current version was made by the same request.
        """
        for _ in range(_SAVE_ATTEMPTS):
            owned = await authorized_agent(caller, self._agents, agent_id)
            if request_hash is not None and owned.request_hash == request_hash:
                raise AlreadyProcessed(owned.agent.version_id)
            check_if_match(if_match, owned.agent.version)
            restored = await version_of(self._agents, owned, _number(version))
            config = _patched(_config(restored.agent), {})  # the rules may be stricter today
            if (saved := await self._save_change(owned, config, request_hash)) is not None:
                return saved
        raise StorageError

    async def repeat_restore_agent_version(self, version_id: str, caller: Caller) -> SavedAgent:
        """Return the response of an earlier restore request, for its Idempotency-Key; raises AgentNotFound."""
        agent_id, _, version = version_id.partition("/")
        owned = await authorized_agent(caller, self._agents, AgentId(agent_id))
        return _checked((await version_of(self._agents, owned, int(version))).agent)

    async def delete_agent(self, agent_id: AgentId, caller: Caller) -> None:
        """Delete an agent; its versions remain for sessions that use them. Raises AgentNotFound."""
        owned = await authorized_agent(caller, self._agents, agent_id)
        await self._agents.delete(owned.workspace, agent_id)

    async def _save_change(
        self, owned: OwnedAgent, config: AgentConfig, request_hash: str | None = None
    ) -> SavedAgent | None:
        """Save the next version of an agent, unless nothing changed; None if another request saved one before."""
        before = owned.agent
        if config.model_dump_json() == _config(before).model_dump_json():  # as JSON, because True == 1 in Python
            return _checked(before)
        agent = _version(
            config,
            before.agent_id,
            before.version + 1,
            created_at=before.created_at,
            updated_at=int(self._clock()),
        )
        saved = _checked(agent)
        await self._check_endpoints(owned.workspace, agent.tools)
        return saved if await self._agents.save(owned.workspace, agent, request_hash) else None

    async def _check_endpoints(self, workspace: WorkspaceId, tools: Sequence[Tool]) -> None:
        """Raise InvalidRequest for tools on a server whose webhook endpoint the workspace does not have."""
        named = dict(server_runs(tools))
        ids = {run.endpoint_id for run in named.values()}
        found = await asyncio.gather(*(self._endpoints.find(workspace, endpoint_id) for endpoint_id in ids))
        known = {endpoint.endpoint_id for endpoint in found if endpoint is not None}
        missing = [number for number, run in named.items() if run.endpoint_id not in known]
        if missing:
            details = [ErrorDetail(f"tools.{number}.run.endpoint_id", _NO_ENDPOINT) for number in missing]
            raise InvalidRequest(details=details)


def _config(agent: Agent) -> AgentConfig:
    """Return what the owner set of an agent, with values that only a newer version knows."""
    return AgentConfig.model_construct(**{name: getattr(agent, name) for name in AgentConfig.model_fields})


def _number(version: VersionNumber) -> int:
    """Return the number of a version in a path; raises AgentVersionNotFound for one that no version has."""
    if not re.fullmatch("[1-9][0-9]{0,8}", version):
        raise AgentVersionNotFound
    return int(version)


def _patched(config: AgentConfig, patch: MergePatch) -> AgentConfig:
    if unknown := unknown_fields(patch):
        raise InvalidRequest(details=[ErrorDetail(path, UNKNOWN_FIELD) for path in unknown])
    merged = to_json(merge(config.model_dump(mode="json"), patch))
    return parse_request(lambda: AgentConfig.model_validate_json(merged))


def _checked(agent: Agent) -> SavedAgent:
    """Return an agent with its warnings; raises InvalidOutputSchema, InvalidVariables, InvalidRequest."""
    warnings = [
        *validate_output_schema(agent.output_schema, agent.output_schema_strict),
        *validate_tools(agent.tools),
        *check_texts(agent),
    ]
    if (size := len(agent.model_dump_json().encode())) > MAX_AGENT_BYTES:
        message = f"Takes {size:,} bytes as JSON; at most {MAX_AGENT_BYTES:,} are taken. Shorten its longest fields."
        raise InvalidRequest(details=[ErrorDetail("", message)])
    return SavedAgent.model_construct(**dict(agent), warnings=warnings)


def _version(config: AgentConfig, agent_id: AgentId, version: int, *, created_at: int, updated_at: int) -> Agent:
    return Agent.model_construct(
        **dict(config),
        agent_id=agent_id,
        version=version,
        created_at=created_at,
        updated_at=updated_at,
    )
