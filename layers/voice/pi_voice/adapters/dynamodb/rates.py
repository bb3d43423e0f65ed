"""Rate limits: one counter per operation, owner and minute, with a TTL, in the table of idempotency keys.

A counter is one row, and DynamoDB accepts 1,000 writes a second for a row, refused ones included. API Gateway's
throttling keeps all requests together below that, by default at 100 a second.
"""

import time

from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.attributes import to_item
from pi_voice.adapters.dynamodb.table import ConditionFailed, Table
from pi_voice.domain.errors import RateLimited
from pi_voice.domain.ids import Clock


class DynamoRateLimiter(Table):
    """Counts the requests of one operation per minute, for each workspace or session."""

    def __init__(
        self, dynamodb: AwsClient, name: str, operation: str, per_minute: int, clock: Clock = time.time
    ) -> None:
        super().__init__(dynamodb, name)
        self._operation = operation
        self._per_minute = per_minute
        self._clock = clock

    async def acquire(self, owner: str) -> None:
        """Count one request of an owner in the current minute; raises RateLimited, StorageError."""
        now = self._clock()
        minute, elapsed = divmod(now, 60)
        try:
            await self._request(
                "update_item",
                TableName=self._name,
                Key=to_item({"id": f"rate#{self._operation}#{owner}#{int(minute)}"}),
                UpdateExpression="SET expiration = :end ADD taken :one",
                ConditionExpression="attribute_not_exists(taken) OR taken < :limit",
                ExpressionAttributeValues=to_item({":end": int(now) + 3_600, ":one": 1, ":limit": self._per_minute}),
            )
        except ConditionFailed:
            raise RateLimited(self._operation, self._per_minute, 60 - elapsed) from None
