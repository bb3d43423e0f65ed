"""Everything that DynamoDB stores, as text, to look for words that have to be deleted."""

import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

_GZIP = 31
"""The window size by which zlib expects a header of gzip."""


def stored_words(dynamodb: "DynamoDBClient", tables: Iterable[str]) -> dict[str, str]:
    """Return all texts of each table by its name; bytes are decompressed if they begin like gzip."""
    return {table: "\n".join(_texts(_items(dynamodb, table))) for table in tables}


def _items(dynamodb: "DynamoDBClient", table: str) -> list[Any]:
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return [item for page in pages for item in page["Items"]]


def _texts(value: Any) -> Iterator[str]:
    match value:
        case dict() | list():
            for each in value.values() if isinstance(value, dict) else value:
                yield from _texts(each)
        case bytes():
            yield _decompressed(value).decode(errors="replace")
        case _:
            yield str(value)


def _decompressed(data: bytes) -> bytes:
    """Decompress the first piece of a transcript, complete or not; return other bytes as they are."""
    try:
        return zlib.decompressobj(_GZIP).decompress(data)
    except zlib.error:
        return data
