"""Rate limits: one counter per workspace and minute, with a TTL, in the table of idempotency keys."""

import time

from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.attributes import to_item
from pi_voice.adapters.dynamodb.table import ConditionFailed, Table
from pi_voice.domain.errors import RateLimited
from pi_voice.domain.ids import Clock, WorkspaceId


class DynamoRateLimiter(Table):
    """Counts a workspace's requests per minute."""

    def __init__(self, dynamodb: AwsClient, name: str, per_minute: int, clock: Clock = time.time) -> None:
        super().__init__(dynamodb, name)
        self._per_minute = per_minute
        self._clock = clock

    async def acquire(self, workspace: WorkspaceId) -> None:
        """Count one request in the current minute; raises RateLimited."""
        now = self._clock()
        minute, elapsed = divmod(now, 60)
        try:
            await self._request(
                "update_item",
                TableName=self._name,
                Key=to_item({"id": f"rate#{workspace}#{int(minute)}"}),
                UpdateExpression="SET expiration = :end ADD taken :one",
                ConditionExpression="attribute_not_exists(taken) OR taken < :limit",
                ExpressionAttributeValues=to_item({":end": int(now) + 3_600, ":one": 1, ":limit": self._per_minute}),
            )
        except ConditionFailed:
            raise RateLimited(60 - elapsed) from None
