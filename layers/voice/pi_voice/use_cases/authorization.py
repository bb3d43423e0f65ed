"""Authorization: whose key a caller has, and which agents and sessions it may use."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from pi_voice.domain.api_keys import Secret
from pi_voice.domain.errors import AgentNotFound, InvalidApiKey, SessionNotFound, WebhookEndpointNotFound
from pi_voice.domain.ids import AgentId, Clock, EndpointId, KeyHash, SessionId, WorkspaceId
from pi_voice.domain.sessions import Session
from pi_voice.ports import Agents, ApiKeys, Caller, Scope, SessionCaller, Sessions, WebhookEndpoints

if TYPE_CHECKING:  # most functions do not need agents or webhook endpoints
    from pi_voice.domain.agents import OwnedAgent
    from pi_voice.domain.webhook_endpoints import WebhookEndpoint

CACHE_SECONDS: Final = 60
_CACHE_SIZE: Final = 1_000

Authorization = TypeVar("Authorization")
Row = TypeVar("Row")
Count = Callable[[str], Awaitable[None]]
"""Counts a request of a scope's owner, and raises RateLimited over the limit."""


async def authorized_agent(
    caller: Caller, agents: Agents, agent_id: AgentId, count: Count | None = None
) -> "OwnedAgent":
    """Return an agent of the caller's workspace, after the request was counted.

    Raises InvalidApiKey, AgentNotFound, and what `count` raises.
    """
    scope, owned = await _concurrently(_counted(caller, count), agents.current(agent_id))
    if owned is None or owned.workspace != scope.workspace:
        raise AgentNotFound
    return owned


async def version_of(agents: Agents, owned: "OwnedAgent", version: int | None) -> "OwnedAgent":
    """Return an agent at one of its versions; None: the current one. Raises AgentVersionNotFound."""
    if version is None or version == owned.agent.version:
        return owned
    return owned._replace(agent=await agents.version(owned.agent.agent_id, version))


async def authorized_session(
    caller: SessionCaller, sessions: Sessions, session_id: SessionId, count: Count | None = None
) -> Session:
    """Return a session that the caller may access, after the request was counted.

    Raises InvalidApiKey, SessionNotFound, and what `count` raises.
    """
    scope, session = await _concurrently(_counted(caller, count), sessions.get(session_id))
    if session is None or not scope.covers(session):
        raise SessionNotFound
    return session


async def authorized_endpoint(
    caller: Caller, endpoints: WebhookEndpoints, endpoint_id: EndpointId
) -> "WebhookEndpoint":
    """Return a webhook endpoint of the caller's workspace; raises InvalidApiKey, WebhookEndpointNotFound."""
    endpoint = await endpoints.find(await caller.workspace(), endpoint_id)
    if endpoint is None:
        raise WebhookEndpointNotFound
    return endpoint


async def _counted(caller: SessionCaller, count: Count | None) -> Scope:
    """Return the caller's scope, and count the request once the credential is known to be valid."""
    scope = await caller.scope()
    if count is not None:
        await count(scope.owner)
    return scope


async def _concurrently(authorization: Awaitable[Authorization], reading: Awaitable[Row]) -> tuple[Authorization, Row]:
    """Authorize the caller and read the row at the same time. An error of the authorization takes precedence."""
    authorized, row = await asyncio.gather(authorization, reading, return_exceptions=True)
    if isinstance(authorized, BaseException):
        raise authorized
    if isinstance(row, BaseException):
        raise row
    return authorized, row


class ApiKeyVerifier:
    """Looks up the workspace of an API key, and caches it for a minute."""

    def __init__(self, keys: ApiKeys, clock: Clock = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._cache: dict[KeyHash, tuple[WorkspaceId, float]] = {}

    async def workspace_of(self, secret: Secret) -> WorkspaceId:
        """Return the workspace of a key; raises InvalidApiKey if the key is unknown or revoked."""
        now = self._clock()
        workspace, expires_at = self._cache.get(secret.hash, (None, 0.0))
        if workspace is not None and now < expires_at:
            return workspace
        key = await self._keys.find(secret.hash)
        if key is None or key.revoked_at is not None:
            self._cache.pop(secret.hash, None)
            raise InvalidApiKey
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        self._cache[secret.hash] = (key.workspace, now + CACHE_SECONDS)
        return key.workspace
