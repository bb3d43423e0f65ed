"""One table: its requests with retries of conflicts, and translated errors.

Every public method of a store is one request unless its docstring says otherwise.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.attributes import Item, from_item, to_item
from pi_voice.domain.errors import StorageError, UnreadableRow
from pi_voice.logs import logger

BY_WORKSPACE: Final = "by_workspace"
_TRANSACTION_ATTEMPTS: Final = 5
_CONFLICT_ATTEMPTS: Final = 5
_KEYS: Final = {"agent_id", "delivery_id", "endpoint_id", "key_hash", "key_id", "piece", "session_id", "version"}
"""Attributes that name a row in the log."""

Row = TypeVar("Row")


class ConditionFailed(Exception):
    """The condition of a write did not hold, so nothing was written.

    `item` is the stored item, if the request asked for it and there is one; otherwise it is empty. Of a transaction it
    is the item of the first condition that did not hold.
    """

    def __init__(self, item: Item) -> None:
        super().__init__()
        self.item = item


class _TransactionCanceled(Exception):
    def __init__(self, reasons: list[Mapping[str, Any]]) -> None:
        super().__init__()
        self.reasons = [str(reason.get("Code")) for reason in reasons]
        self.items = [from_item(reason.get("Item", {})) for reason in reasons]


class Table:
    """Requests to one table."""

    def __init__(self, dynamodb: AwsClient, name: str) -> None:
        self._dynamodb = dynamodb
        self._name = name

    async def _request(self, operation: str, **arguments: Any) -> Any:
        """Send one request, and retry it if it conflicts with a transaction on the same row.

        Raises StorageError, and ConditionFailed.
        """
        for attempt in count():
            try:
                return await self._dynamodb.request(operation, **arguments)
            except ClientError as error:
                response: Mapping[str, Any] = error.response
                match code := response["Error"]["Code"]:
                    case "ConditionalCheckFailedException":
                        raise ConditionFailed(from_item(response.get("Item", {}))) from None
                    case "TransactionCanceledException":
                        raise _TransactionCanceled(response.get("CancellationReasons", [])) from None
                if code != "TransactionConflictException" or attempt == _CONFLICT_ATTEMPTS:
                    logger.error("dynamodb_request_refused", operation=operation, code=code)
                    raise StorageError from None
            except (BotoCoreError, TimeoutError) as error:
                logger.error("dynamodb_request_failed", table=self._name, error=type(error).__name__)
                raise StorageError from None
            await backoff(attempt)
        raise AssertionError  # count() is infinite

    async def _transact(self, *writes: Mapping[str, Any]) -> None:
        """Write all or nothing. Retry unless a condition failed: after a conflict with another write, or throttling.

        boto3 adds a client token, so that DynamoDB processes a repeated transaction once. Raises StorageError, and
        ConditionFailed.
        """
        for attempt in range(_TRANSACTION_ATTEMPTS):
            try:
                await self._request("transact_write_items", TransactItems=writes)
            except _TransactionCanceled as canceled:
                if "ConditionalCheckFailed" in canceled.reasons:
                    failed = canceled.reasons.index("ConditionalCheckFailed")
                    raise ConditionFailed(canceled.items[failed]) from None
                logger.info("transaction_retried", table=self._name, reasons=sorted(set(canceled.reasons)))
                await backoff(attempt)
            else:
                return
        raise StorageError

    async def _get(self, key: Mapping[str, Any]) -> Item | None:
        answer = await self._request("get_item", TableName=self._name, Key=to_item(key), ConsistentRead=True)
        return from_item(answer["Item"]) if "Item" in answer else None

    def _read(self, read: Callable[[Item], Row], item: Item) -> Row:
        """Read a row from its item; raises UnreadableRow, and logs its key without its content."""
        try:
            return read(item)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            key = {name: value for name, value in item.items() if name in _KEYS}
            logger.error("row_unreadable", table=self._name, key=key, error=type(error).__name__)
            raise UnreadableRow from None

    def _readable(self, read: Callable[[Item], Row], items: Iterable[Item]) -> list[Row]:
        """Read the rows of a list, without those that cannot be read."""
        rows = []
        for item in items:
            with suppress(UnreadableRow):
                rows.append(self._read(read, item))
        return rows

    async def _all(self, request: dict[str, Any]) -> list[Item]:
        """Return all rows of a query, one request per megabyte."""
        rows: list[Item] = []
        while True:
            answer = await self._request("query", **request)
            rows += map(from_item, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return rows
            request = {**request, "ExclusiveStartKey": answer["LastEvaluatedKey"]}


async def backoff(attempt: int) -> None:
    """Wait for a conflicting transaction to end: 10 to 20 ms, doubled with each attempt."""
    await asyncio.sleep(random.uniform(0.01, 0.02) * 2**attempt)  # noqa: S311 (no secret)
