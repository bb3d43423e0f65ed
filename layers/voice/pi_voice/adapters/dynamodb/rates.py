"""Rate limits: one counter per operation, owner and minute, with a TTL, in the table of idempotency keys.

A counter is one row, and DynamoDB accepts 1,000 writes a second for a row, refused ones included. API Gateway's
throttling keeps all requests together below that, by default at 100 a second.
"""

import time
from collections import Counter
from typing import Final

from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.attributes import to_item
from pi_voice.adapters.dynamodb.table import ConditionFailed, Table
from pi_voice.domain.errors import RateLimited
from pi_voice.domain.ids import Clock

_SHARE: Final = 20
"""A container takes at most this fraction of the limit at once."""


class DynamoRateLimiter(Table):
    """Counts the requests of one operation per minute, for each workspace or session.

    A container that has many requests of one owner takes several from the counter at once, as many as it had in this
    minute before, so that most requests wait for no write. What it took and did not use is lost for the minute.
    """

    def __init__(
        self, dynamodb: AwsClient, name: str, operation: str, per_minute: int, clock: Clock = time.time
    ) -> None:
        super().__init__(dynamodb, name)
        self._operation = operation
        self._per_minute = per_minute
        self._clock = clock
        self._minute = 0
        self._taken: Counter[str] = Counter()
        self._left: Counter[str] = Counter()

    async def acquire(self, owner: str) -> None:
        """Count one request of an owner in the current minute; raises RateLimited, StorageError."""
        now = self._clock()
        minute = int(now // 60)
        if minute != self._minute:
            self._minute, self._taken, self._left = minute, Counter(), Counter()
        if not self._left[owner]:
            several = min(self._taken[owner], self._per_minute // _SHARE)
            if not (several > 1 and await self._take(owner, several, int(now))) and not await self._take(
                owner, 1, int(now)
            ):
                raise RateLimited(self._operation, self._per_minute, 60 - now % 60)
        self._left[owner] -= 1

    async def _take(self, owner: str, number: int, now: int) -> bool:
        """Take a number of requests from the counter, and return whether the limit has room for them."""
        values = {":end": now + 3_600, ":number": number, ":room": self._per_minute - number}
        try:
            await self._request(
                "update_item",
                TableName=self._name,
                Key=to_item({"id": f"rate#{self._operation}#{owner}#{self._minute}"}),
                UpdateExpression="SET expiration = :end ADD taken :number",
                ConditionExpression="attribute_not_exists(taken) OR taken <= :room",
                ExpressionAttributeValues=to_item(values),
            )
        except ConditionFailed:
            return False
        self._taken[owner] += number
        self._left[owner] += number
        return True
