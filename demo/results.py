"""Results beside the agent's output schema: one row per value."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

Json = Any


class Row(NamedTuple):
    """One value: its path, what the schema asks for, and the result."""

    path: str
    wanted: str
    value: str


def rows(agent: dict[str, Json], results: Json) -> list[Row]:
    """Return a row per property of the agent's schema; a property without a result has an empty value."""
    strict, hints = agent.get("output_schema_strict"), agent.get("output_schema")
    if strict is not None:
        return list(_by_schema("", strict, results))
    return list(_by_hints("", hints or {}, results))


def _by_schema(path: str, schema: Json, value: Json) -> Iterator[Row]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if properties:
        for name, inner in properties.items():
            yield from _by_schema(_join_path(path, name), inner, _field_of(value, name))
    else:
        yield Row(path or "results", _describe(schema), _format(value))


def _by_hints(path: str, hint: Json, value: Json) -> Iterator[Row]:
    if isinstance(hint, dict) and _is_choice(hint):
        yield Row(path, " | ".join(hint["enum"]), _format(value))
    elif isinstance(hint, dict):
        for name, inner in hint.items():
            yield from _by_hints(_join_path(path, name), inner, _field_of(value, name))
    elif isinstance(hint, list):
        wanted = hint[0] if hint and isinstance(hint[0], str) else json.dumps(hint, ensure_ascii=False)
        yield Row(path, f"several: {wanted}", _format(value))
    else:
        yield Row(path, str(hint), _format(value))


def _is_choice(hint: dict[str, Json]) -> bool:
    """Return whether a hint is a choice between texts, and no object."""
    choices = hint.get("enum")
    return len(hint) == 1 and isinstance(choices, list) and len(choices) > 1


def _describe(schema: Json) -> str:
    """Describe a schema in a few words."""
    if not isinstance(schema, dict):
        return "anything"
    if "enum" in schema:
        kind = " | ".join(map(_format, schema["enum"]))
    else:
        types = schema.get("type", "anything")
        kind = schema.get("format") or (" or ".join(types) if isinstance(types, list) else types)
    if "minimum" in schema and "maximum" in schema:
        kind = f"{kind} {schema['minimum']} to {schema['maximum']}"
    return f"{schema['description']} ({kind})" if "description" in schema else str(kind)


def _format(value: Json) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(_format, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _join_path(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _field_of(value: Json, name: str) -> Json:
    return value.get(name) if isinstance(value, dict) else None
