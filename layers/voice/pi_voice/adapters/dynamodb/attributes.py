"""DynamoDB's attribute values (API Reference, "AttributeValue")."""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from pi_voice.adapters.aws import Refused

Attributes = dict[str, Any]
Item = dict[str, Any]


def to_item(values: Mapping[str, Any]) -> Attributes:
    """Convert Python values to attribute values."""
    return {name: _attribute(value) for name, value in values.items()}


def from_item(attributes: Mapping[str, Any]) -> Item:
    """Convert attribute values to Python values."""
    return {name: _value(attribute) for name, attribute in attributes.items()}


def refused_item(refusal: Refused) -> Item:
    """Return the item whose condition failed (ALL_OLD); empty if there was none."""
    return from_item(refusal.answer.get("Item", {}))


def to_json_text(value: JsonValue) -> str | None:
    """Serialize free JSON: DynamoDB's own types would change numbers, and limit nesting to 32 levels."""
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def from_json_text(text: str | None) -> Any:
    """Parse free JSON."""
    return None if text is None else json.loads(text)


def _attribute(value: Any) -> Attributes:
    content: Any
    match value:
        case None:
            kind, content = "NULL", True
        case bool():
            kind, content = "BOOL", value
        case int() | float():
            kind, content = "N", repr(value)
        case str():
            kind, content = "S", value
        case bytes():
            kind, content = "B", b64encode(value).decode()
        case dict():
            kind, content = "M", to_item(value)
        case list():
            kind, content = "L", [_attribute(inner) for inner in value]
        case _:
            raise TypeError(type(value))
    return {kind: content}


def _value(attribute: Mapping[str, Any]) -> Any:
    [(kind, value)] = attribute.items()
    match kind:
        case "S" | "BOOL":
            return value
        case "N":
            return _number(value)
        case "NULL":
            return None
        case "B":
            return b64decode(value)
        case "M":
            return from_item(value)
        case "L":
            return [_value(inner) for inner in value]
        case _:
            raise TypeError(kind)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text)
        return int(number) if number.is_integer() else number
