"""Output schemas: compile hints to JSON Schema, adapt it for Gemini, and validate results against it."""

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from pi_voice.domain.base import dotted_path
from pi_voice.domain.errors import ErrorDetail

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

JsonSchema = dict[str, JsonValue]

TYPE_NAMES: Final = frozenset({"string", "number", "integer", "boolean", "array", "object"})

GEMINI_KEYWORDS: Final = frozenset(
    {
        "$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items",
        "prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties",
        "additionalProperties", "required", "propertyOrdering",
    }
)  # fmt: skip
"""Keywords that Gemini supports in `responseJsonSchema`, from Google's reference of GenerationConfig."""

GEMINI_FORMATS: Final = frozenset({"date-time", "date", "time"})

SCHEMAS_BY_NAME: Final = ("properties", "$defs")
LISTS_OF_SCHEMAS: Final = ("anyOf", "oneOf", "prefixItems")
SCHEMAS: Final = ("items", "additionalProperties")

_BOUNDS: Final = frozenset({"minItems", "maxItems", "minimum", "maximum"})
_SENT: Final = GEMINI_KEYWORDS - _BOUNDS - {"$id", "$anchor"}
IN_WORDS: Final = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "matches the regular expression {}",
    "format": "format {}",
    "const": "exactly {}",
}
"""Description of keywords that Gemini ignores, or that would make the schema too complex for it."""

_MAX_ERRORS: Final = 20
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


def gemini_schema(schema: JsonSchema) -> JsonSchema:
    """Return the schema for Gemini: unsupported or costly keywords are described in words, or left out.

    `violations` validates results against the whole schema afterwards.
    """
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}  # Gemini accepts no other keyword beside it
    sent: JsonSchema = {}
    for keyword, value in schema.items():
        match value:
            case _ if keyword not in _SENT or (keyword == "format" and value not in sorted(GEMINI_FORMATS)):
                continue
            case {} if keyword in SCHEMAS:
                sent[keyword] = gemini_schema(value)
            case {} if keyword in SCHEMAS_BY_NAME:
                sent[keyword] = {name: gemini_schema(inner) for name, inner in value.items() if isinstance(inner, dict)}
            case [*_] if keyword in LISTS_OF_SCHEMAS:
                sent[keyword] = [gemini_schema(inner) for inner in value if isinstance(inner, dict)]
            case _:
                sent[keyword] = value
    if words := ", ".join(_in_words(schema)):
        description = sent.get("description")
        sent["description"] = f"{description} ({words})" if description else words
    return sent


def _in_words(schema: JsonSchema) -> Iterator[str]:
    for keyword, words in IN_WORDS.items():
        value = schema.get(keyword)
        if isinstance(value, str | int | float) and not (keyword == "format" and value in GEMINI_FORMATS):
            yield words.format(str(value).lower() if isinstance(value, bool) else value)


def violations(results: JsonValue, schema: JsonSchema) -> list[ErrorDetail]:
    """Validate results against their schema (draft 2020-12, with formats) and return up to 20 errors.

    Messages contain the schema's requirements, never values of the results.
    """
    validator = _validator_class()
    errors = validator(schema, format_checker=validator.FORMAT_CHECKER).iter_errors(results)
    return [ErrorDetail(_path(error), _message(error)) for error in errors][:_MAX_ERRORS]


def _path(error: "ValidationError") -> str:
    """Return the path of an error on one line, shortened: unless the schema names the keys, the model chooses them."""
    return " ".join(dotted_path(error.absolute_path).split())[:_MAX_PATH_CHARACTERS]


@cache
def _validator_class() -> type["Draft202012Validator"]:
    """Return a validator class that matches patterns with RE2, in time linear in the text.

    Python's `re` can take exponential time on a short text.
    """
    import re2  # noqa: PLC0415 (with jsonschema 150 ms, only when results are validated)
    from jsonschema import Draft202012Validator, validators  # noqa: PLC0415
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415

    def pattern(_: object, expression: str, text: object, __: object) -> Iterator[ValidationError]:
        if isinstance(text, str) and not re2.search(expression, text):
            yield ValidationError("does not match")

    validator_class: type[Draft202012Validator] = validators.extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": pattern}
    )
    return validator_class


def _message(error: "ValidationError") -> str:
    """Return what the schema requires at the place of an error."""
    required, message = error.validator_value, f"Breaks {error.validator}."
    match error.validator, required:
        case "type", [*kinds]:
            message = f"Should be of type {' or '.join(map(str, kinds))}."
        case "type", kind:
            message = f"Should be of type {kind}."
        case "required", [*names] if isinstance(error.instance, dict):
            message = f"Lacks {_shortened([str(name) for name in names if name not in error.instance])}."
        case "enum", [*members]:
            message = f"Should be one of {_shortened([str(member) for member in members])}."
        case "additionalProperties", False:
            message = "Has a property that the schema does not name."
        case str(keyword), str() | int() | float() if keyword in IN_WORDS and not isinstance(required, bool):
            message = f"Breaks {keyword}: {IN_WORDS[keyword].format(_quoted(str(required)))}."
    return message


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(map(_quoted, names[:_MAX_NAMES])) + more


def _quoted(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED_CHARACTERS else f"{text[:_MAX_QUOTED_CHARACTERS]}\u2026"
