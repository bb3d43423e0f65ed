"""Create, list and revoke API keys; for operators only."""

import time

from pi_voice.domain import api_keys
from pi_voice.domain.api_keys import (
    ApiKey,
    CreateApiKeyRequest,
    CreatedApiKey,
    ListApiKeysRequest,
    RevokeApiKeyRequest,
    Secret,
)
from pi_voice.domain.errors import ApiKeyNotFound
from pi_voice.domain.ids import Clock, KeyId, WorkspaceId, uuid7
from pi_voice.domain.pagination import Page
from pi_voice.ports import ApiKeys


class ManageApiKeys:
    """Operator functions for API keys."""

    def __init__(self, keys: ApiKeys, clock: Clock = time.time) -> None:
        self._keys = keys
        self._clock = clock

    async def create_api_key(self, request: CreateApiKeyRequest, secret: Secret | None = None) -> CreatedApiKey:
        """Create a key of a workspace and return its secret, which is not stored."""
        secret = secret or api_keys.generate()
        key = ApiKey(
            key_id=KeyId(uuid7(self._clock)),
            workspace=WorkspaceId(request.workspace),
            name=request.name,
            hint=secret.hint,
            created_at=int(self._clock()),
        )
        await self._keys.add(key, secret.hash)
        return CreatedApiKey(
            key_id=key.key_id,
            workspace=key.workspace,
            name=key.name,
            api_key=secret.reveal(),
            created_at=key.created_at,
        )

    async def list_api_keys(self, request: ListApiKeysRequest) -> Page[ApiKey]:
        """Return all keys of a workspace, newest first, without their secrets."""
        return Page[ApiKey](data=await self._keys.in_workspace(WorkspaceId(request.workspace)))

    async def revoke_api_key(self, request: RevokeApiKeyRequest) -> ApiKey:
        """Revoke a key, which may work for another 60 seconds; raises ApiKeyNotFound."""
        now = int(self._clock())
        key = await self._keys.revoke(WorkspaceId(request.workspace), KeyId(request.key_id), now)
        if key is None:
            raise ApiKeyNotFound
        return key
