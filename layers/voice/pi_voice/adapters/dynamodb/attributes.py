"""DynamoDB's attribute values, by boto3's serializer, with Python's own numbers and bytes."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from pydantic import JsonValue
from pydantic_core import to_json

Attributes = dict[str, Any]
Item = dict[str, Any]


class _Deserializer(TypeDeserializer):
    """Returns int, float and bytes, where boto3 returns Decimal and a Binary of its own."""

    def _deserialize_n(self, value: str) -> int | float:
        try:
            return int(value)
        except ValueError:
            return float(value)

    def _deserialize_b(self, value: bytes) -> bytes:
        return value


_SERIALIZER: Final = TypeSerializer()
_DESERIALIZER: Final = _Deserializer()


def to_item(values: Mapping[str, Any]) -> Attributes:
    """Convert Python values to attribute values. A float must be an attribute of its own, not inside another one."""
    return {
        name: _SERIALIZER.serialize(Decimal(repr(value)) if isinstance(value, float) else value)
        for name, value in values.items()
    }


def from_item(attributes: Mapping[str, Any]) -> Item:
    """Convert attribute values to Python values."""
    return {name: _DESERIALIZER.deserialize(attribute) for name, attribute in attributes.items()}


def to_json_text(value: JsonValue) -> str | None:
    """Serialize free JSON as `row_limits` measures it.

    DynamoDB's own types would change numbers, and limit nesting to 32 levels.
    """
    return None if value is None else to_json(value).decode()


def from_json_text(text: str | None) -> Any:
    """Parse free JSON."""
    return None if text is None else json.loads(text)
