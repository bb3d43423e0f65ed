"""One table: requests in threads, bounded retries, translated errors.

Every public method of a store is one request unless its docstring says otherwise. Requests run in threads, so that a
use case can run two of them concurrently.
"""

import asyncio
import random
import uuid
from collections.abc import Mapping
from itertools import count
from typing import Any, Final

from pi_voice.adapters.aws import AwsService, Refused, Unanswered
from pi_voice.adapters.dynamodb.attributes import Item, from_item, to_item
from pi_voice.domain.errors import StorageError
from pi_voice.logs import logger

BY_WORKSPACE: Final = "by_workspace"
_TRANSACTION_ATTEMPTS: Final = 5
_CONFLICT_ATTEMPTS: Final = 5
_CONDITION_FAILED: Final = {"ConditionalCheckFailedException", "TransactionCanceledException"}


class Table:
    """Requests to one table."""

    def __init__(self, dynamodb: AwsService, name: str) -> None:
        self._dynamodb = dynamodb
        self._name = name

    async def _request(self, operation: str, **arguments: Any) -> Any:
        """Send one request, and retry it if it conflicts with a transaction on the same row.

        Raises StorageError, and Refused if a condition failed.
        """
        for attempt in count():
            try:
                async with asyncio.timeout(self._dynamodb.patience_seconds):
                    return await asyncio.to_thread(self._dynamodb.ask, operation, arguments)
            except Refused as refusal:
                if refusal.code in _CONDITION_FAILED:
                    raise
                if refusal.code != "TransactionConflictException" or attempt == _CONFLICT_ATTEMPTS:
                    logger.error("dynamodb_request_refused", operation=operation, code=refusal.code)
                    raise StorageError from None
            except (Unanswered, TimeoutError) as error:
                logger.error("dynamodb_request_failed", table=self._name, error=str(error) or type(error).__name__)
                raise StorageError from None
            await backoff(attempt)
        raise AssertionError  # count() is infinite

    async def _transact(self, *writes: Mapping[str, Any]) -> None:
        """Write all or nothing. Retry unless a condition failed: after a conflict with another write, or throttling.

        The client token makes DynamoDB process a repeated transaction once. Raises StorageError, and Refused if a
        condition failed.
        """
        for attempt in range(_TRANSACTION_ATTEMPTS):
            try:
                await self._request("TransactWriteItems", TransactItems=writes, ClientRequestToken=str(uuid.uuid4()))
            except Refused as cancelled:
                reasons = {reason.get("Code") for reason in cancelled.answer.get("CancellationReasons", [])}
                if "ConditionalCheckFailed" in reasons:
                    raise
                logger.info("transaction_retried", table=self._name, reasons=sorted(map(str, reasons)))
                await backoff(attempt)
            else:
                return
        raise StorageError

    async def _get(self, key: Mapping[str, Any]) -> Item | None:
        answer = await self._request("GetItem", TableName=self._name, Key=to_item(key), ConsistentRead=True)
        return from_item(answer["Item"]) if "Item" in answer else None

    async def _all(self, request: dict[str, Any]) -> list[Item]:
        """Return all rows of a query, one request per megabyte."""
        rows: list[Item] = []
        while True:
            answer = await self._request("Query", **request)
            rows += map(from_item, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return rows
            request = {**request, "ExclusiveStartKey": answer["LastEvaluatedKey"]}


async def backoff(attempt: int) -> None:
    """Wait for a conflicting transaction to end: 10 to 20 ms, doubled with each attempt."""
    await asyncio.sleep(random.uniform(0.01, 0.02) * 2**attempt)  # noqa: S311 (no secret)
