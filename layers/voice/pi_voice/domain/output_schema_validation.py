"""Validation of output schemas in requests: errors for what Gemini or we cannot process, warnings for what it ignores.

The path of an error is a dotted path into hints, or a JSON pointer (RFC 6901) into a strict schema.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from pydantic import JsonValue
from pydantic_core import to_json

from pi_voice.domain.base import dotted_path
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
"""Maximum nesting of objects and arrays: Gemini refuses deep schemas, and documents no limit."""

MAX_PROPERTIES: Final = 200
MAX_ENUM_VALUES: Final = 500
MAX_NAME_CHARACTERS: Final = 15_000
"""Maximum length of all names and enum values; long ones are the usual cause of "too many states for serving"."""

_MAX_STEPS: Final = 60
_MAX_ERRORS: Final = 20

IGNORED_BY_GEMINI: Final = frozenset(
    {
        "pattern", "minLength", "maxLength", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "const",
        "uniqueItems", "contains", "minContains", "maxContains", "minProperties", "maxProperties", "propertyNames",
        "dependentRequired", "dependentSchemas", "allOf", "not", "if", "then", "else", "unevaluatedItems",
        "unevaluatedProperties",
    }
)  # fmt: skip
"""Keywords that Gemini ignores; results are validated against them."""

_ANNOTATIONS: Final = frozenset(
    {
        "$schema", "$comment", "default", "examples", "deprecated", "readOnly", "writeOnly", "contentEncoding",
        "contentMediaType",
    }
)  # fmt: skip
_IGNORED_SCHEMAS: Final = ("not", "if", "then", "else", "contains", "propertyNames")
_IGNORED_LISTS: Final = ("allOf",)
_IGNORED_BY_NAME: Final = ("dependentSchemas",)
_UNEVALUATED: Final = ("unevaluatedItems", "unevaluatedProperties")
_TYPES: Final = TYPE_NAMES | {"null"}
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_TOO_DEEP: Final = (
    f"Is nested too deeply: at most {MAX_DEPTH} objects and arrays may be inside one another. Make the schema flatter."
)
_IGNORED_KEYWORD: Final = "Gemini ignores this keyword. Results are validated against it; explain it in a description."
_DESCRIBED_KEYWORD: Final = (
    "Gemini ignores this keyword. It is described in words, and results are validated against it."
)
_UNSUPPORTED: Final = {
    "$dynamicRef": 'Use "$ref" to a schema under this root\'s $defs.',
    "$dynamicAnchor": 'Use "$defs" and "$ref".',
    "patternProperties": 'Name the properties, or describe all others with "additionalProperties".',
    "definitions": 'Put definitions under "$defs".',
    "contentSchema": "Use an object instead of JSON inside a string.",
}


def validate_output_schema(hints: JsonSchema | None, strict: JsonSchema | None) -> list[ErrorDetail]:
    """Validate an output schema and return warnings: keywords that Gemini ignores or reads differently.

    Raises InvalidOutputSchema with up to 20 errors.
    """
    if hints:
        _check_hints(hints)
    return _check_strict(strict) if strict is not None else []


# ---- Hints ----


def _check_hints(hints: JsonSchema) -> None:
    _check_size("output_schema", hints)
    errors = [*_hint_errors("output_schema", hints)]
    if (keys := _count_keys(hints)) > MAX_KEYS:
        errors.append(ErrorDetail("output_schema", f"Has {keys} keys; at most {MAX_KEYS} are taken."))
    if errors:
        raise InvalidOutputSchema(details=errors[:_MAX_ERRORS])


def _hint_errors(path: str, hint: JsonValue, depth: int = 0) -> Iterator[ErrorDetail]:
    if depth > MAX_DEPTH:
        yield ErrorDetail(path, _TOO_DEEP)
        return
    match hint:
        case str() if hint.strip():
            return
        case {}:
            if not hint:
                yield ErrorDetail(path, "Is an empty object. Name its keys.")
            for name, inner in hint.items():
                if not name.strip():
                    yield ErrorDetail(path, "Has a key without a name.")
                yield from _hint_errors(f"{path}.{dotted_path([name])}", inner, depth + 1)
        case [inner]:
            yield from _hint_errors(f"{path}.0", inner, depth + 1)
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
    """A schema inside the root schema, and whether Gemini reads it."""

    pointer: str
    schema: JsonValue
    depth: int = 0
    is_seen: bool = True

    def at(self, step: str, schema: JsonValue, *, deeper: bool = False, is_seen: bool = True) -> "_Place":
        """Return the place of a schema inside this one."""
        return _Place(f"{self.pointer}/{step}", schema, self.depth + deeper, self.is_seen and is_seen)


def _check_strict(root: JsonSchema) -> list[ErrorDetail]:
    name = "output_schema_strict"
    _check_size(name, root)
    errors = []
    if root.get("type") != "object":
        errors.append(ErrorDetail(f"{name}#", 'The root must have "type": "object", because results are an object.'))
    places = list(_places(_Place("", root)))
    for check in (_schema_errors, _metaschema_errors, _cycle_errors, _limit_errors):  # each relies on those before it
        errors += [ErrorDetail(f"{name}#{pointer}", message) for pointer, message in check(places, root)]
        if errors:
            raise InvalidOutputSchema(details=errors[:_MAX_ERRORS])
    return [ErrorDetail(f"{name}#{pointer}", message) for place in places for pointer, message in _warnings(place)]


def _check_size(name: str, schema: JsonSchema) -> None:
    """Check the size before anything else, because the work and the memory of the other checks grow with it."""
    if (size := len(to_json(schema))) > MAX_BYTES:
        detail = ErrorDetail(name, f"Takes {size:,} bytes as JSON; at most {MAX_BYTES:,} are taken.")
        raise InvalidOutputSchema(details=[detail])


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
        if keyword in (*SCHEMAS, *_IGNORED_SCHEMAS, *_UNEVALUATED):
            yield place.at(keyword, value, deeper=deeper, is_seen=is_seen)
        elif keyword in (*SCHEMAS_BY_NAME, *_IGNORED_BY_NAME) and isinstance(value, dict):
            for name, inner in value.items():
                yield place.at(f"{keyword}/{_escaped(name)}", inner, deeper=deeper, is_seen=is_seen)
        elif keyword in (*LISTS_OF_SCHEMAS, *_IGNORED_LISTS) and isinstance(value, list):
            for number, inner in enumerate(value):
                yield place.at(f"{keyword}/{number}", inner, deeper=deeper, is_seen=is_seen)


def _schema_errors(places: list[_Place], root: JsonSchema) -> Iterator[tuple[str, str]]:
    """Yield the errors of each schema, without those of the schemas inside it."""
    for place in places:
        if not isinstance(place.schema, dict):
            yield place.pointer, "Should be a schema, which is an object."
            continue
        if place.depth > MAX_DEPTH or place.pointer.count("/") > _MAX_STEPS:
            yield place.pointer, _TOO_DEEP
        for step, message in _keyword_errors(place, place.schema, root):
            yield f"{place.pointer}/{_escaped(step)}", message


def _keyword_errors(place: _Place, schema: JsonSchema, root: JsonSchema) -> Iterator[tuple[str, str]]:
    for keyword in sorted(schema.keys() & _UNSUPPORTED.keys()):
        yield keyword, f"Is not supported. {_UNSUPPORTED[keyword]}"
    types = schema.get("type", [])
    kinds = types if isinstance(types, list) else [types]
    if any(not isinstance(kind, str) or kind not in _TYPES for kind in kinds):
        yield "type", f"Should be one of {', '.join(sorted(_TYPES))}, or a list of them."
    members = schema.get("enum")
    if place.is_seen and isinstance(members, list) and any(isinstance(each, bool | dict | list) for each in members):
        yield "enum", "Gemini supports only strings, numbers and null in an enum."
    if "$id" in schema and schema is not root:
        yield "$id", "Is allowed at the root only, because every $ref is resolved from there. Remove it."
    if not _are_strings(schema.get("propertyOrdering", [])):
        yield "propertyOrdering", "Should be a list of property names."
    if "$ref" in schema:
        if not _resolves(schema["$ref"], root):
            yield "$ref", 'Should point to a schema under this root\'s $defs, such as "#/$defs/name".'
        beside = sorted(each for each in schema if each in GEMINI_KEYWORDS and not each.startswith("$"))
        if beside and place.is_seen:
            yield "$ref", f"Gemini takes no other keyword beside $ref. Move {', '.join(beside)} to its target."


def _metaschema_errors(places: list[_Place], root: JsonSchema) -> Iterator[tuple[str, str]]:
    """Validate the form of every keyword against the meta-schema (draft 2020-12), and patterns with RE2."""
    import re2  # noqa: PLC0415 (with jsonschema 150 ms, only for strict schemas)
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(root):
        pointer = "".join(f"/{_escaped(str(step))}" for step in error.absolute_path)
        yield pointer, f"Is not valid JSON Schema: it violates {error.validator!s} of the meta-schema."
    options = re2.Options()
    options.log_errors = False  # otherwise re2 writes to stderr
    for place in places:
        pattern = place.schema.get("pattern") if isinstance(place.schema, dict) else None
        if isinstance(pattern, str):
            try:
                re2.compile(pattern, options)
            except re2.error:
                yield (
                    f"{place.pointer}/pattern",
                    "Should be a regular expression that RE2 supports: without look-around and back-references.",
                )


def _cycle_errors(places: list[_Place], root: JsonSchema) -> Iterator[tuple[str, str]]:
    """Yield the definitions that contain themselves other than through properties that are not required.

    Google's reference allows cycles only there.
    """
    del places
    definitions = _definitions(root)
    for reference, definition in definitions.items():
        visited: set[str] = set()
        remaining = [*_required_references(definition)]
        while remaining:
            if (step := remaining.pop()) not in visited:
                visited.add(step)
                remaining += _required_references(definitions.get(step))
        if reference in visited:
            yield (
                reference.removeprefix("#"),
                "Refers to itself without end. Put the $ref into a property that is not required.",
            )


def _required_references(schema: JsonValue) -> Iterator[str]:
    """Yield the references of a schema, except those in properties that are not required."""
    if not isinstance(schema, dict):
        return
    if isinstance(reference := schema.get("$ref"), str):
        yield unquote(reference)
    required = schema.get("required")
    required_steps = {f"properties/{_escaped(str(name))}" for name in required} if isinstance(required, list) else set()
    for inner in _inside(_Place("", schema)):
        step = inner.pointer.removeprefix("/")
        if not step.startswith(("properties/", "$defs/")) or step in required_steps:
            yield from _required_references(inner.schema)


def _limit_errors(places: list[_Place], root: JsonSchema) -> Iterator[tuple[str, str]]:
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
    """Yield the keywords of one schema that Gemini ignores or reads differently."""
    schema = place.schema if isinstance(place.schema, dict) else {}
    for keyword, value in schema.items():
        pointer = f"{place.pointer}/{_escaped(keyword)}"
        if keyword == "$schema":
            if value != _DIALECT:
                yield pointer, "Is left out: all schemas are JSON Schema, draft 2020-12."
        elif keyword in _ANNOTATIONS:
            yield pointer, "Is left out: it is an annotation."
        elif keyword in IGNORED_BY_GEMINI and place.is_seen:
            is_described = keyword in IN_WORDS and not isinstance(value, dict | list | None)
            yield pointer, _DESCRIBED_KEYWORD if is_described else _IGNORED_KEYWORD
        elif keyword == "nullable":
            yield pointer, 'Means nothing in JSON Schema. Write "type": ["string", "null"].'
        elif keyword not in GEMINI_KEYWORDS | IGNORED_BY_GEMINI:
            yield pointer, "Is not a keyword of JSON Schema and has no effect. Check its spelling."
        elif keyword == "format" and value not in sorted(GEMINI_FORMATS):
            yield pointer, f"Gemini supports only {', '.join(sorted(GEMINI_FORMATS))}; this is described in words."
        elif keyword == "oneOf" and place.is_seen:
            yield pointer, "Gemini reads this as anyOf. Results are validated against oneOf."


# ---- References ----


def _definitions(root: JsonSchema) -> JsonSchema:
    definitions = root.get("$defs")
    if not isinstance(definitions, dict):
        return {}
    return {f"#/$defs/{_escaped(name)}": definition for name, definition in definitions.items()}


def _resolves(reference: JsonValue, root: JsonSchema) -> bool:
    return isinstance(reference, str) and unquote(reference) in _definitions(root)


def _are_strings(value: JsonValue) -> bool:
    return isinstance(value, list) and all(isinstance(inner, str) for inner in value)


def _escaped(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")
