"""Compute the DynamoDB capacity that requests consume, by the published rules, from the rows.

moto answers every ReturnConsumedCapacity with one unit, so the rows are read before and after each write.
Sources: "DynamoDB item sizes and formats" and "Read/write capacity unit consumption" in the Developer Guide.
"""

import asyncio
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from local.template import Table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

READ_BYTES: Final = 4_096
WRITE_BYTES: Final = 1_024

Item = Mapping[str, Any]
Json = Any


@dataclass(frozen=True, slots=True)
class Units:
    """Read and write request units, as billed for on-demand tables."""

    reads: float = 0.0
    writes: float = 0.0

    def __add__(self, other: "Units") -> "Units":
        return Units(self.reads + other.reads, self.writes + other.writes)


def size_of(item: Item) -> int:
    """Return the size of a row in bytes, attribute names included."""
    return sum(len(name.encode()) + _size(value) for name, value in item.items())


def _size(value: Mapping[str, Any]) -> int:
    [(kind, content)] = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "N":
            return math.ceil(len(content.strip("-").replace(".", "").strip("0") or "0") / 2) + 1
        case "B":
            return len(content) * 3 // 4 if isinstance(content, str) else len(content)
        case "M":
            return 3 + sum(len(name.encode()) + _size(inner) + 1 for name, inner in content.items())
        case "L":
            return 3 + sum(_size(inner) + 1 for inner in content)
        case _:
            return 1  # a boolean, or null


def reads(size: int, *, consistent: bool) -> float:
    """Return the read units for the bytes that one request reads from one table."""
    return max(1, math.ceil(size / READ_BYTES)) * (1.0 if consistent else 0.5)


def writes(size: int) -> float:
    """Return the write units for the bytes of a row."""
    return float(max(1, math.ceil(size / WRITE_BYTES)))


def written(before: Item | None, after: Item | None, definition: Mapping[str, Any]) -> float:
    """Return the write units of one changed row, for the table and for each index that copies it."""
    total = writes(max(size_of(before or {}), size_of(after or {})))
    for index in definition.get("GlobalSecondaryIndexes", []):
        old, new = (_copied(row, index, definition) for row in (before, after))
        if old == new:
            continue
        keys = [key["AttributeName"] for key in index["KeySchema"]]
        if old and new and [old[name] for name in keys] != [new[name] for name in keys]:
            total += writes(size_of(old)) + writes(size_of(new))  # a changed key is a deletion and a put
        else:
            total += writes(max(size_of(old or {}), size_of(new or {})))
    return total


def _copied(row: Item | None, index: Mapping[str, Any], definition: Mapping[str, Any]) -> Item | None:
    keys = [key["AttributeName"] for key in index["KeySchema"]]
    if row is None or any(name not in row for name in keys):
        return None
    projection = index["Projection"]
    if projection["ProjectionType"] == "ALL":
        return row
    own = [key["AttributeName"] for key in definition["KeySchema"]]
    return {name: row[name] for name in (*keys, *own, *projection.get("NonKeyAttributes", [])) if name in row}


class CapacityMeter:
    """Computes the capacity of requests from the rows that they read and write."""

    def __init__(self, dynamodb: "DynamoDBClient", tables: Iterable[Table]) -> None:
        self._dynamodb = dynamodb
        self._definitions = {table.name: cast("Mapping[str, Any]", table.definition) for table in tables}

    async def look(self, operation: str, body: bytes) -> list[Item | None]:
        """Return the current versions of the rows that a request will write; none for a read."""
        changes = _changes(operation, json.loads(body)) if body else []
        return list(await asyncio.gather(*(asyncio.to_thread(self._row, table, row) for table, row in changes)))

    async def cost(
        self, operation: str, body: bytes, answer: bytes, before: Sequence[Item | None]
    ) -> tuple[Units, int]:
        """Return the capacity that a request consumed, and the number of rows that it read."""
        asked, response = json.loads(body), json.loads(answer or b"{}")
        changes = _changes(operation, asked)
        after = await self.look(operation, body)
        cost = sum(
            written(old, new, self._definitions[table])
            for (table, _), old, new in zip(changes, before, after, strict=True)
        )
        if changes:
            return Units(writes=cost * (2 if operation == "TransactWriteItems" else 1)), 0
        if operation == "BatchGetItem":
            rows = [row for table in response["Responses"].values() for row in table]
            [request] = asked["RequestItems"].values()
            whole = [
                await asyncio.to_thread(self._row, table, key)
                for table in asked["RequestItems"]
                for key in request["Keys"]
            ]
            consistent = request.get("ConsistentRead", False)
            return Units(reads=sum(reads(size_of(row or {}), consistent=consistent) for row in whole)), len(rows)
        rows = response["Items"] if "Items" in response else [response["Item"]] if "Item" in response else []
        if "ProjectionExpression" in asked:  # whole rows are read
            rows = [await asyncio.to_thread(self._row, asked["TableName"], row) or row for row in rows]
        size = sum(map(size_of, rows))
        scanned = response.get("ScannedCount", len(rows))
        if rows and scanned > len(rows):  # rows that a filter removed were read too
            size = size * scanned // len(rows)
        return Units(reads=reads(size, consistent=asked.get("ConsistentRead", False))), scanned

    def _row(self, table: str, row: Item) -> Item | None:
        keys = [key["AttributeName"] for key in self._definitions[table]["KeySchema"]]
        found = self._dynamodb.get_item(TableName=table, Key={name: row[name] for name in keys}, ConsistentRead=True)
        return found.get("Item")


def _changes(operation: str, asked: Json) -> list[tuple[str, Item]]:
    """Return pairs of a table that a request writes to and, at least, the key of the row."""
    match operation:
        case "PutItem":
            return [(asked["TableName"], asked["Item"])]
        case "UpdateItem" | "DeleteItem":
            return [(asked["TableName"], asked["Key"])]
        case "BatchWriteItem":
            writes = [
                (table, each)
                for table, parts in asked["RequestItems"].items()
                for part in parts
                for each in part.values()
            ]
            return [(table, each.get("Item") or each["Key"]) for table, each in writes]
        case "TransactWriteItems":
            parts = [part for each in asked["TransactItems"] for part in each.values()]
            return [(part["TableName"], part.get("Item") or part["Key"]) for part in parts]
        case _:
            return []
