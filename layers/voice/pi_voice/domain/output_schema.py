"""Output schemas: compile hints to JSON Schema, and validate results."""

import json
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from pi_voice.domain.base import JsonSchema, dotted_path
from pi_voice.domain.errors import ErrorDetail

if TYPE_CHECKING:
    from pi_voice.domain.schema_evaluation import Fault

_TIME_OF_DAY: Final = "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]+)?)?(Z|[+-][0-9]{2}:[0-9]{2})?$"
_TYPES: Final[dict[str, JsonSchema]] = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "array": {"type": "array", "items": {"type": "string"}},
    "object": {"type": "object", "additionalProperties": {"type": "string"}},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time", "pattern": _TIME_OF_DAY, "description": "a time of day, as in 19:30"},
    "datetime": {"type": "string", "format": "date-time"},
}
_ALIASES: Final = {
    "str": "string",
    "text": "string",
    "float": "number",
    "decimal": "number",
    "int": "integer",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}
HINT_TYPES: Final[dict[str, JsonSchema]] = {**_TYPES, **{alias: _TYPES[name] for alias, name in _ALIASES.items()}}
"""JSON Schemas of the type names in hints, in lower case."""

_MAX_NAMES: Final = 10
_MAX_PATH_CHARACTERS: Final = 200
_MAX_QUOTED_CHARACTERS: Final = 120
"""Maximum length of what a message quotes from a schema, such as a pattern or a name."""


def compile_output_schema(
    output_schema: JsonSchema | None, output_schema_strict: JsonSchema | None
) -> JsonSchema | None:
    """Return the JSON Schema of the results, None if neither is given; a strict schema takes precedence over hints.

    The arguments must be valid (`output_schema_validation`).
    """
    if output_schema_strict is not None:
        return output_schema_strict
    return _compile_object(output_schema) if output_schema else None


def _compile_object(hints: dict[str, JsonValue]) -> JsonSchema:
    """Compile an object of hints: all keys are required, and each value may be null."""
    return {
        "type": "object",
        "properties": {name: _nullable(_compile_hint(hint)) for name, hint in hints.items()},
        "required": list(hints),
        "additionalProperties": False,
        "propertyOrdering": list(hints),
    }


def _compile_hint(hint: JsonValue) -> JsonSchema:
    match hint:
        case str() if hint.lower() in HINT_TYPES:
            return HINT_TYPES[hint.lower()]
        case {"enum": [_, _, *_] as members} if is_choice(hint):
            return {"type": "string", "enum": members}
        case {}:
            return _compile_object(hint)
        case [inner]:
            return {"type": "array", "items": _compile_hint(inner)}
        case _:
            return {"type": "string", "description": hint}


def is_choice(hint: JsonValue) -> bool:
    """Return whether a hint is a choice of two or more texts; with one text it is an object with an array in it."""
    members = hint.get("enum") if isinstance(hint, dict) and len(hint) == 1 else None
    return isinstance(members, list) and len(members) > 1 and all(isinstance(each, str) for each in members)


def _nullable(schema: JsonSchema) -> JsonSchema:
    nullable: JsonSchema = {**schema, "type": [schema["type"], "null"]}
    if isinstance(members := schema.get("enum"), list):
        nullable["enum"] = [*members, None]
    return nullable


def violations(results: JsonValue, schema: JsonSchema) -> list[ErrorDetail]:
    """Validate results against their schema and return up to 20 errors; raises SchemaTooComplex.

    Messages contain the schema's requirements, never values of the results.
    """
    from pi_voice.domain.schema_evaluation import MAX_FAULTS, Evaluation, Fault  # noqa: PLC0415 (5 ms, when needed)
    from pi_voice.domain.schema_reader import read_schema  # noqa: PLC0415 (the same)

    faults = [*Evaluation(read_schema(schema)).faults(results)]
    if not faults and not isinstance(results, dict):
        faults.append(Fault((), "type", "object"))
    return [ErrorDetail(_path(fault), message_of(fault)) for fault in faults[:MAX_FAULTS]]


def _path(fault: "Fault") -> str:
    """Return the path of a fault on one line, shortened: unless the schema names the keys, the model chooses them."""
    return " ".join(dotted_path(fault.path).split())[:_MAX_PATH_CHARACTERS]


_FAULTS: Final = {
    "false": "Should not be there.",
    "additionalProperties": "Has a property that the schema does not name.",
    "oneOf": "Matches more than one of the alternatives, or none of them.",
    "anyOf": "Matches none of the alternatives.",
    "propertyNames": "Is not a name that the schema allows.",
    "contentSchema": "Should be JSON in a text.",
}


def message_of(fault: "Fault") -> str:
    """Return what the schema requires at the place of a fault."""
    from pi_voice.domain.gemini_schema import IN_WORDS  # noqa: PLC0415 (5 ms, when needed)
    from pi_voice.domain.string_formats import words_for  # noqa: PLC0415 (the same)

    message = _FAULTS.get(fault.keyword, f"Breaks {fault.keyword}.")
    match fault.keyword, fault.required:
        case "type", kinds:
            message = f"Should be of type {' or '.join(map(str, kinds if isinstance(kinds, list) else [kinds]))}."
        case "required", [*names]:
            message = f"Lacks {_shortened([*map(str, names)])}."
        case "enum", [*members]:
            message = f"Should be one of {_shortened([*map(_text, members)])}."
        case "const", value:
            message = f"Should be exactly {_quoted(_text(value))}."
        case "format", name:
            message = f"Breaks format: {_quoted(words_for(str(name)))}."
        case "offset", name:
            message = f"Is without an offset. Write {_quoted(words_for(str(name)))}."
        case keyword, str() | int() | float() as value if keyword in IN_WORDS:
            message = f"Breaks {keyword}: {IN_WORDS[keyword].format(_quoted(str(value)))}."
    return message


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(map(_quoted, names[:_MAX_NAMES])) + more


def _quoted(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED_CHARACTERS else f"{text[:_MAX_QUOTED_CHARACTERS]}\u2026"
