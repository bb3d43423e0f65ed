"""Checking output schemas when they are given to us: what Gemini would refuse, what it would ignore, what breaks us.

A fault names its place: a path of dots into hints, a JSON pointer (RFC 6901) into a strict schema.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from pydantic import JsonValue
from pydantic_core import to_json

from pi_voice.domain.errors import ErrorDetail, InvalidOutputSchema
from pi_voice.domain.output_schema import (
    GEMINI_FORMATS,
    GEMINI_KEYWORDS,
    IN_WORDS,
    LISTS_OF_SCHEMAS,
    SCHEMAS,
    SCHEMAS_BY_NAME,
    TYPE_NAMES,
    JsonSchema,
)

MAX_BYTES: Final = 32_768
MAX_KEYS: Final = 100
MAX_DEPTH: Final = 10
"""How many objects and arrays may lie inside one another: Gemini refuses deep schemas, and does not say how deep."""

MAX_PROPERTIES: Final = 200
MAX_ENUM_VALUES: Final = 500
MAX_NAME_CHARACTERS: Final = 15_000
"""What all names and enumerated values may take: long ones are what "too many states for serving" is most often."""

_MAX_STEPS: Final = 60
_MAX_FAULTS: Final = 20

HELD: Final = frozenset(
    {
        "pattern", "minLength", "maxLength", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "const",
        "uniqueItems", "contains", "minContains", "maxContains", "minProperties", "maxProperties", "propertyNames",
        "dependentRequired", "dependentSchemas", "allOf", "not", "if", "then", "else", "unevaluatedItems",
        "unevaluatedProperties",
    }
)  # fmt: skip
"""The keywords that Gemini ignores and that we hold results to."""

_NOTES: Final = frozenset(
    {
        "$schema", "$comment", "default", "examples", "deprecated", "readOnly", "writeOnly", "contentEncoding",
        "contentMediaType",
    }
)  # fmt: skip
_HELD_SCHEMAS: Final = ("not", "if", "then", "else", "contains", "propertyNames")
_HELD_LISTS: Final = ("allOf",)
_HELD_BY_NAME: Final = ("dependentSchemas",)
_UNEVALUATED: Final = ("unevaluatedItems", "unevaluatedProperties")
_TYPES: Final = TYPE_NAMES | {"null"}
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_TOO_DEEP: Final = (
    f"Is nested too deeply: at most {MAX_DEPTH} objects and arrays may lie inside one another. Make the schema flatter."
)
_UNSEEN: Final = "Gemini does not see this keyword. Results are held to it; say in a description what it wants."
_TOLD: Final = "Gemini does not see this keyword. It is told in words, and results are held to it."
_REFUSED: Final = {
    "$dynamicRef": 'Use "$ref" to a schema under this root\'s $defs.',
    "$dynamicAnchor": 'Use "$defs" and "$ref".',
    "patternProperties": 'Name the properties, or describe all others by "additionalProperties".',
    "definitions": 'Put definitions under "$defs".',
    "contentSchema": "Ask for an object instead of JSON inside a text.",
}


def validate_output_schema(hints: JsonSchema | None, strict: JsonSchema | None) -> list[ErrorDetail]:
    """Check what is asked for and return the warnings: what will be taken otherwise than it may be meant.

    Raises InvalidOutputSchema with each fault by its place.
    """
    if hints:
        _check_hints(hints)
    return _check_strict(strict) if strict is not None else []


# ---- Hints ----


def _check_hints(hints: JsonSchema) -> None:
    faults = [*_size_faults("output_schema", hints), *_hint_faults("output_schema", hints)]
    if (keys := _count_keys(hints)) > MAX_KEYS:
        faults.append(ErrorDetail("output_schema", f"Has {keys} keys; at most {MAX_KEYS} are taken."))
    if faults:
        raise InvalidOutputSchema(details=faults[:_MAX_FAULTS])


def _hint_faults(path: str, hint: JsonValue, depth: int = 0) -> Iterator[ErrorDetail]:
    if depth > MAX_DEPTH:
        yield ErrorDetail(path, _TOO_DEEP)
        return
    match hint:
        case str() if hint.strip():
            return
        case {}:
            if not hint:
                yield ErrorDetail(path, "Is an empty object. Name the keys that it should have.")
            for name, inner in hint.items():
                if not name.strip():
                    yield ErrorDetail(path, "Has a key without a name.")
                yield from _hint_faults(f"{path}.{name}", inner, depth + 1)
        case [inner]:
            yield from _hint_faults(f"{path}.0", inner, depth + 1)
        case _:
            yield ErrorDetail(
                path,
                "Should be a type name (string, number, integer, boolean, array, object), a sentence that "
                "describes the value, an object of hints, or an array of exactly one hint.",
            )


def _count_keys(hint: JsonValue) -> int:
    match hint:
        case {}:
            return len(hint) + sum(_count_keys(inner) for inner in hint.values())
        case [inner]:
            return _count_keys(inner)
        case _:
            return 0


# ---- Strict schemas ----


@dataclass(frozen=True, slots=True)
class _Place:
    """A schema somewhere in the root schema, and whether Gemini sees it."""

    pointer: str
    schema: JsonValue
    depth: int = 0
    is_seen: bool = True

    def at(self, step: str, schema: JsonValue, *, deeper: bool = False, is_seen: bool = True) -> "_Place":
        """Step into a schema inside this one."""
        return _Place(f"{self.pointer}/{step}", schema, self.depth + deeper, self.is_seen and is_seen)


def _check_strict(root: JsonSchema) -> list[ErrorDetail]:
    name = "output_schema_strict"
    faults = [*_size_faults(name, root)]
    if root.get("type") != "object":
        faults.append(ErrorDetail(f"{name}#", 'The root must say "type": "object", because results are an object.'))
    places = list(_places(_Place("", root)))
    for finding in (_own_faults, _form_faults, _cycle_faults, _limit_faults):  # each takes what passed the one before
        faults += [ErrorDetail(f"{name}#{pointer}", message) for pointer, message in finding(places, root)]
        if faults:
            raise InvalidOutputSchema(details=faults[:_MAX_FAULTS])
    return [ErrorDetail(f"{name}#{pointer}", message) for place in places for pointer, message in _warnings(place)]


def _size_faults(name: str, schema: JsonSchema) -> Iterator[ErrorDetail]:
    if (size := len(to_json(schema))) > MAX_BYTES:
        yield ErrorDetail(name, f"Takes {size:,} bytes as JSON; at most {MAX_BYTES:,} are taken.")


def _places(place: _Place) -> Iterator[_Place]:
    """Yield a schema and every schema inside it."""
    yield place
    if isinstance(place.schema, dict) and place.pointer.count("/") <= _MAX_STEPS:
        for inner in _inside(place):
            yield from _places(inner)


def _inside(place: _Place) -> Iterator[_Place]:
    schema = place.schema if isinstance(place.schema, dict) else {}
    for keyword, value in schema.items():
        deeper, is_seen = keyword in ("properties", *SCHEMAS, "prefixItems"), keyword in GEMINI_KEYWORDS
        if isinstance(value, bool) and keyword in ("additionalProperties", *_UNEVALUATED):
            continue
        if keyword in (*SCHEMAS, *_HELD_SCHEMAS, *_UNEVALUATED):
            yield place.at(keyword, value, deeper=deeper, is_seen=is_seen)
        elif keyword in (*SCHEMAS_BY_NAME, *_HELD_BY_NAME) and isinstance(value, dict):
            for name, inner in value.items():
                yield place.at(f"{keyword}/{_escaped(name)}", inner, deeper=deeper, is_seen=is_seen)
        elif keyword in (*LISTS_OF_SCHEMAS, *_HELD_LISTS) and isinstance(value, list):
            for number, inner in enumerate(value):
                yield place.at(f"{keyword}/{number}", inner, deeper=deeper, is_seen=is_seen)


def _own_faults(places: list[_Place], root: JsonSchema) -> Iterator[tuple[str, str]]:
    """Name what is wrong with each schema, apart from the schemas inside it."""
    for place in places:
        if not isinstance(place.schema, dict):
            yield place.pointer, "Should be a schema, which is an object."
            continue
        if place.depth > MAX_DEPTH or place.pointer.count("/") > _MAX_STEPS:
            yield place.pointer, _TOO_DEEP
        for step, message in _keyword_faults(place, place.schema, root):
            yield f"{place.pointer}/{_escaped(step)}", message


def _keyword_faults(place: _Place, schema: JsonSchema, root: JsonSchema) -> Iterator[tuple[str, str]]:
    for keyword in sorted(schema.keys() & _REFUSED.keys()):
        yield keyword, f"Is not supported. {_REFUSED[keyword]}"
    types = schema.get("type", [])
    kinds = types if isinstance(types, list) else [types]
    if any(not isinstance(kind, str) or kind not in _TYPES for kind in kinds):
        yield "type", f"Should be one of {', '.join(sorted(_TYPES))}, or a list of them."
    members = schema.get("enum")
    if place.is_seen and isinstance(members, list) and any(isinstance(each, bool | dict | list) for each in members):
        yield "enum", "Gemini enumerates texts and numbers (and null) only."
    if "$id" in schema and schema is not root:
        yield "$id", "Belongs to the root alone, because every $ref starts there. Remove it."
    if not _all_texts(schema.get("propertyOrdering", [])):
        yield "propertyOrdering", "Should be a list of names of properties."
    if "$ref" in schema:
        if not _resolves(schema["$ref"], root):
            yield "$ref", 'Should point to a schema under this root\'s $defs, such as "#/$defs/name".'
        beside = sorted(each for each in schema if each in GEMINI_KEYWORDS and not each.startswith("$"))
        if beside and place.is_seen:
            yield "$ref", f"Gemini takes no other keyword beside $ref. Move {', '.join(beside)} to its target."


def _form_faults(places: list[_Place], root: JsonSchema) -> Iterator[tuple[str, str]]:
    """Hold a schema to JSON Schema's own (draft 2020-12), which knows the form of every keyword's value."""
    import re2  # noqa: PLC0415 (with jsonschema 150 ms that only a strict schema pays)
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(root):
        pointer = "".join(f"/{_escaped(str(step))}" for step in error.absolute_path)
        yield pointer, f"Is not valid JSON Schema: the form of {error.validator!s} is broken here."
    options = re2.Options()
    options.log_errors = False  # it would write to stderr
    for place in places:
        pattern = place.schema.get("pattern") if isinstance(place.schema, dict) else None
        if isinstance(pattern, str):
            try:
                re2.compile(pattern, options)
            except re2.error:
                yield (
                    f"{place.pointer}/pattern",
                    "Should be a regular expression that RE2 reads: without look-around and back-references.",
                )


def _cycle_faults(places: list[_Place], root: JsonSchema) -> Iterator[tuple[str, str]]:
    """Name the definitions that lead back to themselves through what every value must have: they have no end.

    By Google's definition a cycle is taken in properties that are not required, and nowhere else.
    """
    del places
    definitions = _definitions(root)
    for reference, definition in definitions.items():
        seen: set[str] = set()
        ahead = [*_needed(definition)]
        while ahead:
            if (step := ahead.pop()) not in seen:
                seen.add(step)
                ahead += _needed(definitions.get(step))
        if reference in seen:
            yield (
                reference.removeprefix("#"),
                "Refers to itself without end. Put the $ref into a property that is not required.",
            )


def _needed(schema: JsonValue) -> Iterator[str]:
    """Yield the references that a value of a schema cannot do without."""
    if not isinstance(schema, dict):
        return
    if isinstance(reference := schema.get("$ref"), str):
        yield unquote(reference)
    required = schema.get("required")
    needed = {f"properties/{_escaped(str(name))}" for name in required} if isinstance(required, list) else set()
    for inner in _inside(_Place("", schema)):
        step = inner.pointer.removeprefix("/")
        if not step.startswith(("properties/", "$defs/")) or step in needed:
            yield from _needed(inner.schema)


def _limit_faults(places: list[_Place], root: JsonSchema) -> Iterator[tuple[str, str]]:
    del root
    properties, members = 0, 0
    characters = 0
    for place in places:
        schema = place.schema if isinstance(place.schema, dict) else {}
        names, values = schema.get("properties"), schema.get("enum")
        if isinstance(names, dict):
            properties += len(names)
            characters += sum(map(len, names))
        if isinstance(values, list):
            members += len(values)
            characters += sum(len(str(value)) for value in values)
    for count, most, what in (
        (properties, MAX_PROPERTIES, "properties"),
        (members, MAX_ENUM_VALUES, "enumerated values"),
        (characters, MAX_NAME_CHARACTERS, "characters of names and enumerated values"),
    ):
        if count > most:
            yield "", f"Has {count:,} {what} in all; at most {most:,} are taken, because Gemini refuses large schemas."


def _warnings(place: _Place) -> Iterator[tuple[str, str]]:
    """Name what Gemini will not see of a schema."""
    schema = place.schema if isinstance(place.schema, dict) else {}
    for keyword, value in schema.items():
        pointer = f"{place.pointer}/{_escaped(keyword)}"
        if keyword == "$schema":
            if value != _DIALECT:
                yield pointer, "Is left out: schemas are read as JSON Schema, draft 2020-12."
        elif keyword in _NOTES:
            yield pointer, "Is left out: it asks for nothing."
        elif keyword in HELD and place.is_seen:
            yield pointer, _TOLD if keyword in IN_WORDS and not isinstance(value, dict | list | None) else _UNSEEN
        elif keyword == "nullable":
            yield pointer, 'Means nothing in JSON Schema. Write "type": ["string", "null"].'
        elif keyword not in GEMINI_KEYWORDS | HELD:
            yield pointer, "Is not a keyword of JSON Schema, and means nothing. Check its spelling."
        elif keyword == "format" and value not in sorted(GEMINI_FORMATS):
            yield pointer, f"Gemini knows {', '.join(sorted(GEMINI_FORMATS))} alone; it is told this one in words."
        elif keyword == "oneOf" and place.is_seen:
            yield pointer, "Gemini reads this as anyOf. Results are held to it as it stands."


# ---- References ----


def _definitions(root: JsonSchema) -> JsonSchema:
    definitions = root.get("$defs")
    if not isinstance(definitions, dict):
        return {}
    return {f"#/$defs/{_escaped(name)}": definition for name, definition in definitions.items()}


def _resolves(reference: JsonValue, root: JsonSchema) -> bool:
    return isinstance(reference, str) and unquote(reference) in _definitions(root)


def _all_texts(value: JsonValue) -> bool:
    return isinstance(value, list) and all(isinstance(inner, str) for inner in value)


def _escaped(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")
