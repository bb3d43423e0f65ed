"""Output schemas: compile hints to JSON Schema, and validate results."""

import json
from typing import Final

from pydantic import JsonValue

from pi_voice.domain.errors import ErrorDetail
from pi_voice.domain.gemini_schema import IN_WORDS
from pi_voice.domain.schema_evaluation import MAX_FAULTS, Evaluation, Fault
from pi_voice.domain.schema_reader import JsonSchema, read_schema
from pi_voice.domain.string_formats import words_for

TYPE_NAMES: Final = frozenset({"string", "number", "integer", "boolean", "array", "object"})

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
        case "array":
            return {"type": "array", "items": {"type": "string"}}
        case "object":
            return {"type": "object", "additionalProperties": {"type": "string"}}
        case str() if hint in TYPE_NAMES:
            return {"type": hint}
        case {}:
            return _compile_object(hint)
        case [inner]:
            return {"type": "array", "items": _compile_hint(inner)}
        case _:
            return {"type": "string", "description": hint}


def _nullable(schema: JsonSchema) -> JsonSchema:
    return {**schema, "type": [schema["type"], "null"]}


def violations(results: JsonValue, schema: JsonSchema) -> list[ErrorDetail]:
    """Validate results against their schema and return up to 20 errors; raises SchemaTooComplex.

    Messages contain the schema's requirements, never values of the results.
    """
    faults = [*Evaluation(read_schema(schema)).faults(results)]
    if not faults and not isinstance(results, dict):
        faults.append(Fault((), "type", "object"))
    return [ErrorDetail(_path(fault), message_of(fault)) for fault in faults[:MAX_FAULTS]]


def _path(fault: Fault) -> str:
    """Return the path of a fault on one line, shortened: unless the schema names the keys, the model chooses them."""
    steps = ".".join(map(str, fault.path))
    return " ".join(steps.split())[:_MAX_PATH_CHARACTERS]


_FAULTS: Final = {
    "false": "Should not be there.",
    "additionalProperties": "Has a property that the schema does not name.",
    "oneOf": "Matches more than one of the alternatives, or none of them.",
    "anyOf": "Matches none of the alternatives.",
    "propertyNames": "Is not a name that the schema allows.",
    "contentSchema": "Should be JSON in a text.",
}


def message_of(fault: Fault) -> str:
    """Return what the schema requires at the place of a fault."""
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
