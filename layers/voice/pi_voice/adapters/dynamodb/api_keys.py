"""API keys, by the hash of their secret."""

from pi_voice.adapters.dynamodb.attributes import Item, from_item, to_item
from pi_voice.adapters.dynamodb.table import BY_WORKSPACE, Table
from pi_voice.domain.api_keys import ApiKey
from pi_voice.domain.ids import KeyHash, KeyId, WorkspaceId, is_uuid


class DynamoApiKeys(Table):
    """API keys, by the hash of their secret."""

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        """Return the key with this hash, revoked or not; raises UnreadableRow."""
        item = await self._get({"key_hash": key_hash})
        return self._read(_api_key, item) if item else None

    async def add(self, key: ApiKey, key_hash: KeyHash) -> None:
        """Store a key; one with the same secret is replaced."""
        item = {"key_hash": key_hash, **key.model_dump(exclude_none=True)}
        await self._request("put_item", TableName=self._name, Item=to_item(item))

    async def in_workspace(self, workspace: WorkspaceId) -> list[ApiKey]:
        """Return all keys of a workspace, newest first; one request per megabyte."""
        rows = await self._rows("workspace = :workspace", {":workspace": workspace})
        return self._readable(_api_key, rows)

    async def revoke(self, workspace: WorkspaceId, key_id: KeyId, now: int) -> ApiKey | None:
        """Revoke a key and return it, in two requests; None if the workspace has no such key."""
        if not is_uuid(key_id):
            return None
        rows = await self._rows(
            "workspace = :workspace AND key_id = :key_id", {":workspace": workspace, ":key_id": key_id}
        )
        if not rows:
            return None
        answer = await self._request(
            "update_item",
            TableName=self._name,
            Key=to_item({"key_hash": rows[0]["key_hash"]}),
            UpdateExpression="SET revoked_at = if_not_exists(revoked_at, :now)",
            ExpressionAttributeValues=to_item({":now": now}),
            ReturnValues="ALL_NEW",
        )
        return self._read(_api_key, from_item(answer["Attributes"]))

    async def _rows(self, condition: str, values: Item) -> list[Item]:
        return await self._all(
            {
                "TableName": self._name,
                "IndexName": BY_WORKSPACE,
                "KeyConditionExpression": condition,
                "ExpressionAttributeValues": to_item(values),
                "ScanIndexForward": False,
            }
        )


def _api_key(item: Item) -> ApiKey:
    return ApiKey(**{name: item[name] for name in ApiKey.model_fields if name in item})
