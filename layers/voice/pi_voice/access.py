"""Access: who may call, what is theirs, and how operators give and take that right."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Final, TypeVar

from pi_voice import api_keys
from pi_voice.agents import OwnedAgent
from pi_voice.api_keys import ApiKey, IssuedApiKey, KeyToRevoke, NewApiKey, Secret, WorkspaceKeys
from pi_voice.documents import Page
from pi_voice.errors import AgentNotFound, ApiKeyNotFound, InvalidApiKey, SessionNotFound
from pi_voice.ids import AgentId, Clock, KeyHash, KeyId, SessionId, WorkspaceId, uuid7
from pi_voice.ports import Agents, ApiKeys, Caller, Sessions, Visitor
from pi_voice.sessions import Session

CACHE_SECONDS: Final = 60
_CACHE_SIZE: Final = 1_000

Right = TypeVar("Right")
Row = TypeVar("Row")


async def agent_of(caller: Caller, agents: Agents, agent_id: AgentId) -> OwnedAgent:
    """Return an agent of the caller's workspace; raises InvalidApiKey, AgentNotFound."""
    workspace, owned = await _side_by_side(caller.workspace(), agents.current(agent_id))
    if owned is None or owned.workspace != workspace:
        raise AgentNotFound
    return owned


async def session_of(visitor: Visitor, sessions: Sessions, session_id: SessionId) -> Session:
    """Return a session that the caller may see; raises InvalidApiKey, SessionNotFound."""
    scope, session = await _side_by_side(visitor.scope(), sessions.get(session_id))
    if session is None or not scope.covers(session):
        raise SessionNotFound
    return session


async def _side_by_side(right: Awaitable[Right], reading: Awaitable[Row]) -> tuple[Right, Row]:
    """Look the key up and read the row at once; what is wrong with the key is told before anything else."""
    found, row = await asyncio.gather(right, reading, return_exceptions=True)
    if isinstance(found, BaseException):
        raise found
    if isinstance(row, BaseException):
        raise row
    return found, row


class KeyRing:
    """Tells whose a key is, and remembers the answer for a minute."""

    def __init__(self, keys: ApiKeys, clock: Clock = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._known: dict[KeyHash, tuple[WorkspaceId, float]] = {}

    async def workspace_of(self, secret: Secret) -> WorkspaceId:
        """Return the workspace of a key; raises InvalidApiKey when it is unknown or revoked."""
        now = self._clock()
        workspace, until = self._known.get(secret.hash, (None, 0.0))
        if workspace is not None and now < until:
            return workspace
        key = await self._keys.find(secret.hash)
        if key is None or key.revoked_at is not None:
            self._known.pop(secret.hash, None)
            raise InvalidApiKey
        if len(self._known) >= _CACHE_SIZE:
            self._known.clear()
        self._known[secret.hash] = (key.workspace, now + CACHE_SECONDS)
        return key.workspace


class Access:
    """Gives out API keys and takes them back; for operators alone."""

    def __init__(self, keys: ApiKeys, clock: Clock = time.time) -> None:
        self._keys = keys
        self._clock = clock

    async def issue(self, order: NewApiKey, secret: Secret | None = None) -> IssuedApiKey:
        """Make a key of a workspace and return it with its secret, once."""
        secret = secret or api_keys.generate()
        key = ApiKey(
            key_id=KeyId(uuid7(self._clock)),
            workspace=WorkspaceId(order.workspace),
            name=order.name,
            hint=secret.hint,
            created_at=int(self._clock()),
        )
        await self._keys.add(key, secret.hash)
        return IssuedApiKey(
            key_id=key.key_id,
            workspace=key.workspace,
            name=key.name,
            api_key=secret.reveal(),
            created_at=key.created_at,
        )

    async def list(self, order: WorkspaceKeys) -> Page[ApiKey]:
        """Return all keys of a workspace, newest first, without their secrets."""
        return Page[ApiKey](data=await self._keys.of(WorkspaceId(order.workspace)))

    async def revoke(self, order: KeyToRevoke) -> ApiKey:
        """Take a key back; it may work for up to a minute more. Raises ApiKeyNotFound."""
        key = await self._keys.revoke(WorkspaceId(order.workspace), KeyId(order.key_id), now=int(self._clock()))
        if key is None:
            raise ApiKeyNotFound
        return key
