"""Validation of output schemas in requests: errors for what Gemini or we cannot process, warnings for what it ignores.

The path of an error is a dotted path into hints, or a JSON pointer (RFC 6901) into a strict schema.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue
from pydantic_core import to_json

from pi_voice.domain.base import JsonSchema, dotted_path
from pi_voice.domain.errors import ErrorDetail, InvalidOutputSchema, SchemaTooComplex
from pi_voice.domain.gemini_schema import (
    AS_JSON,
    CONTAINED,
    IN_WORDS,
    SENT_FORMATS,
    SENT_KEYWORDS,
    conditional_of,
    is_told,
)
from pi_voice.domain.output_schema import HINT_TYPES, is_choice
from pi_voice.domain.schema_evaluation import EndlessReference, Evaluation, is_readable
from pi_voice.domain.schema_reader import (
    TYPES,
    NormalSchema,
    Note,
    escaped,
    inside,
    opened,
    read_schema,
)
from pi_voice.domain.schema_satisfiability import unsatisfiable
from pi_voice.domain.string_formats import CHECKS, WITH_OFFSET

MAX_BYTES: Final = 32_768
MAX_KEYS: Final = 100
MAX_DEPTH: Final = 10
"""Maximum nesting of objects and arrays: Gemini refuses deep schemas, and documents no limit."""

MAX_PROPERTIES: Final = 200
MAX_ENUM_VALUES: Final = 500
MAX_NAME_CHARACTERS: Final = 15_000
"""Maximum length of all names and enum values; long ones are the usual cause of "too many states for serving"."""

_MAX_ERRORS: Final = 20
_MAX_DEPTH_IN_PLACE: Final = 60
"""Maximum number of schemas that are applied to one value inside one another, through references and alternatives."""

_PROBES: Final[tuple[JsonValue, ...]] = ({"": None}, [None], "", 0, True, None)
"""Values that each part of a schema is evaluated against when it is saved: they compile its patterns."""

_NESTING: Final = frozenset({"properties", "patternProperties", "items", "additionalProperties", "prefixItems"})
_UNSENT: Final = frozenset(
    {"not", "if", "then", "else", "contains", "propertyNames", "dependentSchemas", "dependencies",
     "patternProperties", "contentSchema", "unevaluatedItems", "unevaluatedProperties"}
)  # fmt: skip
_IN_WORDS: Final = frozenset(
    {"pattern", "minLength", "maxLength", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minProperties",
     "maxProperties", "uniqueItems", "propertyNames", "patternProperties", "dependentRequired", "dependencies"}
)  # fmt: skip
_GEMINI_IGNORES: Final = _IN_WORDS | AS_JSON.keys() | CONTAINED.keys() | {"oneOf", "then", "else"}
_ANNOTATIONS: Final = frozenset(
    {
        "$comment", "default", "examples", "deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType",
        "discriminator", "example", "externalDocs", "xml",
    }
)  # fmt: skip
_READ: Final = SENT_KEYWORDS | IN_WORDS.keys() | {
    "$schema", "$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor", "$vocabulary",
    "definitions", "title", "const", "allOf", "oneOf", "additionalItems",
}  # fmt: skip

_TOO_DEEP: Final = (
    f"Is nested too deeply: at most {MAX_DEPTH} objects and arrays may be inside one another. Make the schema flatter."
)
_TYPE_NAMES: Final = ("string", "number", "integer", "boolean", "array", "object", "date", "time", "datetime")
_KEYWORDS: Final = _READ | _GEMINI_IGNORES | _ANNOTATIONS
_IS_JSON_SCHEMA: Final = "Is JSON Schema, and hints are expected here. Send it as output_schema_strict."
_RESEMBLES_JSON_SCHEMA: Final = (
    "Resembles JSON Schema, and is read as an object with the keys {}. Send JSON Schema as output_schema_strict, "
    "or write a type name or a sentence here."
)
_IGNORED_KEYWORD: Final = "Gemini ignores this keyword. Results are validated against it; explain it in a description."
_DESCRIBED_KEYWORD: Final = (
    "Gemini ignores this keyword. It is described in words, and results are validated against it."
)
_UNKNOWN: Final = "Is not a keyword of JSON Schema and has no effect. Check its spelling."
_UNREADABLE: Final = (
    "Is described in words, and results are not validated against it: "
    "RE2 cannot read it, for example because of look-around or back-references."
)


def validate_output_schema(hints: JsonSchema | None, strict: JsonSchema | None) -> list[ErrorDetail]:
    """Validate an output schema and return warnings: keywords that Gemini ignores or reads differently.

    Raises InvalidOutputSchema with up to 20 errors.
    """
    if hints:
        _check_hints(hints)
    if strict is not None:
        return validate_schema("output_schema_strict", strict)
    return [*_hint_warnings("output_schema", hints)] if hints else []


# ---- Hints ----


def _check_hints(hints: JsonSchema) -> None:
    _check_size("output_schema", hints)
    properties = hints.get("properties")
    if hints.get("type") == "object" and isinstance(properties, dict) and all(map(_is_object, properties.values())):
        raise InvalidOutputSchema(details=[ErrorDetail("output_schema", _IS_JSON_SCHEMA)])
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
        case {"enum": [*members]} if depth and is_choice(hint):
            texts = [str(each).strip() for each in members]
            if "" in texts or len({*texts}) < len(texts):
                yield ErrorDetail(f"{path}.enum", "Should be different texts.")
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
                f"Should be a type name ({', '.join(_TYPE_NAMES)}), a sentence that describes the value, an object of "
                'hints, an array of exactly one hint, or a choice such as {"enum": ["low", "high"]}.',
            )


def _hint_warnings(path: str, hint: JsonValue) -> Iterator[ErrorDetail]:
    match hint:
        case str() if len(hint.split()) == 1 and hint.lower() not in HINT_TYPES:
            yield ErrorDetail(path, _unknown_type(hint.lower()))
        case {} if not is_choice(hint):
            if hint.get("type") == "object" or (hint.get("type") in TYPES and hint.keys() <= _KEYWORDS):
                yield ErrorDetail(path, _RESEMBLES_JSON_SCHEMA.format(", ".join(hint)))
            for name, inner in hint.items():
                yield from _hint_warnings(f"{path}.{name}", inner)
        case [inner]:
            yield from _hint_warnings(f"{path}.0", inner)


def _unknown_type(word: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 (only for a misspelled type)

    nearest = get_close_matches(word, HINT_TYPES, 1)
    advice = f'Did you mean "{nearest[0]}"?' if nearest else f"The types are {', '.join(_TYPE_NAMES)}."
    return f"Is read as a description of a text, because it is no type. {advice}"


def _is_object(value: JsonValue) -> bool:
    return isinstance(value, dict)


def _count_keys(hint: JsonValue) -> int:
    match hint:
        case {} if is_choice(hint):
            return 0
        case {}:
            return len(hint) + sum(_count_keys(inner) for inner in hint.values())
        case [inner]:
            return _count_keys(inner)
        case _:
            return 0


# ---- Strict schemas ----


@dataclass(frozen=True, slots=True)
class _Part:
    """A schema inside the document, and whether Gemini reads it."""

    pointer: str
    schema: JsonSchema
    depth: int = 0
    is_seen: bool = True


def validate_schema(name: str, document: JsonSchema, *, of_results: bool = True) -> list[ErrorDetail]:
    """Validate a JSON Schema in the field `name` and return warnings; raises InvalidOutputSchema with up to 20 errors.

    Of a schema that is not held on results, only misspelled keywords and what nothing can satisfy have warnings.
    """
    _check_size(name, document)
    pointer, root = opened(document)
    parts = [*_parts(_Part(pointer, root))]
    too_deep = [Note(part.pointer, _TOO_DEEP) for part in parts if part.depth > MAX_DEPTH]
    schema = read_schema(document)
    _raise(name, [*too_deep, *schema.faults])
    _raise(name, [*_limit_errors(parts), *_work_errors(schema)])
    errors, warnings = unsatisfiable(schema)
    _raise(name, errors)
    warnings += schema.remarks
    found = [warning for part in parts for warning in _warnings(part, schema.is_declared)]
    warnings += [warning for warning in found if of_results or warning.message == _UNKNOWN]
    return [ErrorDetail(f"{name}#{warning.pointer}", warning.message) for warning in dict.fromkeys(warnings)]


def _raise(name: str, errors: list[Note]) -> None:
    if errors:
        details = [ErrorDetail(f"{name}#{error.pointer}", error.message) for error in errors[:_MAX_ERRORS]]
        raise InvalidOutputSchema(details=details)


def _check_size(name: str, schema: JsonSchema) -> None:
    """Check the size before anything else, because the work and the memory of the other checks grow with it."""
    if (size := len(to_json(schema))) > MAX_BYTES:
        detail = ErrorDetail(name, f"Takes {size:,} bytes as JSON; at most {MAX_BYTES:,} are taken.")
        raise InvalidOutputSchema(details=[detail])


def _parts(part: _Part) -> Iterator[_Part]:
    """Yield a schema and every schema inside it."""
    yield part
    for keyword, pointer, inner in inside(part.pointer, part.schema):
        if isinstance(inner, dict):
            depth = part.depth + (keyword in _NESTING)
            yield from _parts(_Part(pointer, inner, depth, part.is_seen and keyword not in _UNSENT))


def _limit_errors(parts: list[_Part]) -> list[Note]:
    properties, members = 0, 0
    characters = 0
    for part in parts:
        names, values = part.schema.get("properties"), part.schema.get("enum")
        if isinstance(names, dict):
            properties += len(names)
            characters += sum(map(len, names))
        if isinstance(values, list):
            members += len(values)
            characters += sum(len(str(value)) for value in values)
    return [
        Note("", f"Has {count:,} {what} in all; at most {most:,} are taken, because Gemini refuses large schemas.")
        for count, most, what in (
            (properties, MAX_PROPERTIES, "properties"),
            (members, MAX_ENUM_VALUES, "enumerated values"),
            (characters, MAX_NAME_CHARACTERS, "characters of names and enumerated values"),
        )
        if count > most
    ]


def _work_errors(schema: NormalSchema) -> list[Note]:
    """Evaluate each part of a schema once, with the budget that results have."""
    evaluation = Evaluation(schema, depth=_MAX_DEPTH_IN_PLACE)
    waiting: list[JsonValue] = [schema.root, *schema.definitions.values()]
    while waiting:
        value = waiting.pop()
        pointer = schema.pointers.get(id(value))
        try:
            for probe in _PROBES if pointer is not None else ():
                evaluation.outcome(value, probe)
        except EndlessReference:
            return [Note(pointer or "", "Refers to itself without end. Put the $ref into a property or into items.")]
        except SchemaTooComplex:
            message = "Takes too much work to validate. Use fewer and shorter patterns, alternatives and references."
            return [Note(pointer or "", message)]
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return []


def _warnings(part: _Part, is_declared: "dict[str, bool]") -> Iterator[Note]:
    """Yield the keywords of one schema that Gemini ignores or reads differently, or that are not held."""
    for keyword, value in part.schema.items():
        pointer = f"{part.pointer}/{escaped(keyword)}"
        if message := _warning(keyword, part, is_declared=is_declared.get(part.pointer, False)):
            yield Note(pointer, message)
        if keyword == "patternProperties" and isinstance(value, dict):
            yield from (Note(f"{pointer}/{escaped(name)}", _UNREADABLE) for name in value if not is_readable(name))


def _warning(keyword: str, part: _Part, *, is_declared: bool) -> str | None:
    message = None
    if keyword == "contentMediaType" and "contentSchema" in part.schema:
        pass
    elif keyword in _ANNOTATIONS:
        message = "Is left out: it is an annotation."
    elif keyword == "pattern" and not is_readable(str(part.schema["pattern"])):
        message = _UNREADABLE
    elif keyword == "format":
        message = _format_warning(part.schema)
    elif keyword in _GEMINI_IGNORES:
        message = _ignored_warning(keyword, part.schema) if part.is_seen else None
    elif keyword == "nullable":
        message = 'Means nothing in JSON Schema. Write "type": ["string", "null"].' if is_declared else None
    elif keyword not in _READ and not (keyword == "id" and is_declared):
        message = _UNKNOWN
    return message


def _ignored_warning(keyword: str, schema: JsonSchema) -> str:
    if keyword == "oneOf":
        return "Gemini reads this as anyOf. Results are validated against oneOf."
    return _DESCRIBED_KEYWORD if _is_described(keyword, schema) else _IGNORED_KEYWORD


def _is_described(keyword: str, schema: JsonSchema) -> bool:
    if keyword in ("if", "then", "else"):
        return is_told(conditional_of(schema))
    if keyword in CONTAINED:
        return is_told(schema.get("contains", False))
    return keyword in _IN_WORDS or (keyword in AS_JSON and is_told(schema[keyword]))


def _format_warning(schema: JsonSchema) -> str | None:
    value = str(schema["format"])
    if value in WITH_OFFSET and "pattern" in schema:
        return "Is left out, because the pattern beside it decides."
    if value not in CHECKS:
        return "Is described in words. Results are not validated against it."
    if value not in SENT_FORMATS:
        return f"Gemini supports only {', '.join(sorted(SENT_FORMATS))}; this is described in words."
    return None
