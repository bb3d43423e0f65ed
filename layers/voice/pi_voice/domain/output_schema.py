"""Output schemas: what an agent asks for, as the JSON Schema that Gemini fills and that results are held to."""

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

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
"""The keywords that Gemini honours in `responseJsonSchema`, by Google's definition of GenerationConfig."""

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
"""What the model is told in words, because it would ignore the keyword, or find it too much to hold."""

_MAX_FAULTS: Final = 20
_MAX_SHOWN: Final = 10
_MAX_PLACE: Final = 200


def compile_output_schema(
    output_schema: JsonSchema | None, output_schema_strict: JsonSchema | None
) -> JsonSchema | None:
    """Return the JSON Schema of the results that are asked for, None where none are; a strict schema wins over hints.

    What is asked for has to be checked before (`pi_voice.schema_check`).
    """
    if output_schema_strict is not None:
        return output_schema_strict
    return _object(output_schema) if output_schema else None


def _object(hints: dict[str, JsonValue]) -> JsonSchema:
    """Compile an object whose keys are all there, each with a value or null."""
    return {
        "type": "object",
        "properties": {name: _nullable(_one(hint)) for name, hint in hints.items()},
        "required": list(hints),
        "additionalProperties": False,
        "propertyOrdering": list(hints),
    }


def _one(hint: JsonValue) -> JsonSchema:
    match hint:
        case "array":
            return {"type": "array", "items": {"type": "string"}}
        case "object":
            return {"type": "object", "additionalProperties": {"type": "string"}}
        case str() if hint in TYPE_NAMES:
            return {"type": hint}
        case {}:
            return _object(hint)
        case [inner]:
            return {"type": "array", "items": _one(inner)}
        case _:
            return {"type": "string", "description": hint}


def _nullable(schema: JsonSchema) -> JsonSchema:
    return {**schema, "type": [schema["type"], "null"]}


def gemini_schema(schema: JsonSchema) -> JsonSchema:
    """Return the schema that Gemini is sent: what it ignores or cannot hold is told in words, or left out.

    `violations` holds results to all of it afterwards.
    """
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}  # Gemini takes no other keyword beside it
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
    if words := ", ".join(_words(schema)):
        told = sent.get("description")
        sent["description"] = f"{told} ({words})" if told else words
    return sent


def _words(schema: JsonSchema) -> Iterator[str]:
    for keyword, words in IN_WORDS.items():
        value = schema.get(keyword)
        if isinstance(value, str | int | float) and not (keyword == "format" and value in GEMINI_FORMATS):
            yield words.format(str(value).lower() if isinstance(value, bool) else value)


def violations(results: JsonValue, schema: JsonSchema) -> list[ErrorDetail]:
    """Name where results do not obey their schema (draft 2020-12, formats checked); empty when they do.

    At most 20. The messages tell what the schema asks for, and nothing of the results.
    """
    validator = _validator_class()
    errors = validator(schema, format_checker=validator.FORMAT_CHECKER).iter_errors(results)
    return [ErrorDetail(_place(error), _told(error)) for error in errors][:_MAX_FAULTS]


def _place(error: "ValidationError") -> str:
    """Name a place in results on one line, and briefly: where a schema leaves keys open, they are the model's words."""
    steps = ".".join(map(str, error.absolute_path))
    return " ".join(steps.split())[:_MAX_PLACE]


@cache
def _validator_class() -> type["Draft202012Validator"]:
    """Make a validator whose patterns take a time that grows with the text alone.

    Python's own regular expressions may take for ever on a short text; RE2's cannot.
    """
    import re2  # noqa: PLC0415 (with jsonschema 150 ms; only what is held to a schema pays)
    from jsonschema import Draft202012Validator, validators  # noqa: PLC0415
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415

    def pattern(_: object, wanted: str, text: object, __: object) -> Iterator[ValidationError]:
        if isinstance(text, str) and not re2.search(wanted, text):
            yield ValidationError("does not match")

    made: type[Draft202012Validator] = validators.extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": pattern}
    )
    return made


def _told(error: "ValidationError") -> str:
    """Say what a schema asks for in a place where it was not obeyed."""
    wanted, told = error.validator_value, f"Breaks {error.validator}."
    match error.validator, wanted:
        case "type", [*kinds]:
            told = f"Should be of type {' or '.join(map(str, kinds))}."
        case "type", kind:
            told = f"Should be of type {kind}."
        case "required", [*names] if isinstance(error.instance, dict):
            told = f"Lacks {_listed([str(name) for name in names if name not in error.instance])}."
        case "enum", [*members]:
            told = f"Should be one of {_listed([str(member) for member in members])}."
        case "additionalProperties", False:
            told = "Has a property that the schema does not name."
        case str(keyword), str() | int() | float() if keyword in IN_WORDS and not isinstance(wanted, bool):
            told = f"Breaks {keyword}: {IN_WORDS[keyword].format(wanted)}."
    return told


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(names[:_MAX_SHOWN]) + more
