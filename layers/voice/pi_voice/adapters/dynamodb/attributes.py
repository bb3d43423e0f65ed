"""DynamoDB's attribute values, by boto3's serializer, with Python's own numbers and bytes."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from boto3.dynamodb.types import Binary, TypeDeserializer, TypeSerializer
from pydantic import JsonValue
from pydantic_core import to_json

Attributes = dict[str, Any]
Item = dict[str, Any]

_SERIALIZER: Final = TypeSerializer()
_DESERIALIZER: Final = TypeDeserializer()


def to_item(values: Mapping[str, Any]) -> Attributes:
    """Convert Python values to attribute values. A float must be an attribute of its own, not inside another one."""
    return {
        name: _SERIALIZER.serialize(Decimal(repr(value)) if isinstance(value, float) else value)
        for name, value in values.items()
    }


def from_item(attributes: Mapping[str, Any]) -> Item:
    """Convert attribute values to Python values."""
    return {name: _plain(_DESERIALIZER.deserialize(attribute)) for name, attribute in attributes.items()}


def to_json_text(value: JsonValue) -> str | None:
    """Serialize free JSON as `row_limits` measures it.

    DynamoDB's own types would change numbers, and limit nesting to 32 levels.
    """
    return None if value is None else to_json(value).decode()


def from_json_text(text: str | None) -> Any:
    """Parse free JSON."""
    return None if text is None else json.loads(text)


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case Binary():
            return bytes(value)  # type: ignore[call-overload]
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value
