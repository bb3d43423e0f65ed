"""Output schemas: from what an agent asks for to the JSON Schema that Gemini fills and that results are held to."""

from collections.abc import Iterator
from typing import Final, cast
from urllib.parse import unquote

from pydantic import JsonValue
from pydantic_core import to_json

from pi_voice.agents import AgentSpec
from pi_voice.errors import Fault, InvalidOutputSchema

MAX_BYTES: Final = 32_768
MAX_KEYS: Final = 100
MAX_STEPS: Final = 40
"""How long a JSON pointer into a strict schema may be; Gemini takes less."""

_MAX_FAULTS: Final = 20

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

GEMINI_TYPES: Final = TYPE_NAMES | {"null"}
GEMINI_FORMATS: Final = frozenset({"date-time", "date", "time"})
_SCHEMAS_BY_NAME: Final = ("properties", "$defs")
_LISTS_OF_SCHEMAS: Final = ("anyOf", "oneOf", "prefixItems")
_BOUNDS: Final = frozenset({"minItems", "maxItems", "minimum", "maximum"})
_SCHEMAS: Final = ("items", "additionalProperties")


def schema_of(agent: AgentSpec) -> JsonSchema | None:
    """Return the JSON Schema of an agent's results, None for an agent that wants none.

    `output_schema_strict` wins over `output_schema`. Raises InvalidOutputSchema, with each fault of a strict
    schema named by its JSON pointer (RFC 6901).
    """
    hinted = _compile(agent.output_schema) if agent.output_schema else None
    if agent.output_schema_strict is None:
        return hinted
    _check_strict(agent.output_schema_strict)
    return agent.output_schema_strict


def _compile(hints: dict[str, JsonValue]) -> JsonSchema:
    faults = [*_size_faults("output_schema", hints), *_hint_faults("output_schema", hints)]
    if (keys := _count_keys(hints)) > MAX_KEYS:
        faults.append(Fault("output_schema", f"Has {keys} keys; at most {MAX_KEYS} are taken."))
    if faults:
        raise InvalidOutputSchema(faults=faults[:_MAX_FAULTS])
    return _object(hints)


def _hint_faults(path: str, hint: JsonValue) -> Iterator[Fault]:
    match hint:
        case str() if hint.strip():
            return
        case {}:
            if not hint:
                yield Fault(path, "Is an empty object. Name the keys that it should have.")
            for name, inner in hint.items():
                if not name.strip():
                    yield Fault(path, "Has a key without a name.")
                yield from _hint_faults(f"{path}.{name}", inner)
        case [inner]:
            yield from _hint_faults(f"{path}.0", inner)
        case _:
            yield Fault(
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


def _check_strict(schema: JsonSchema) -> None:
    name = "output_schema_strict"
    faults = [*_size_faults(name, schema)]
    if schema.get("type") != "object":
        faults.append(Fault(f"{name}#", 'The root must say "type": "object", because results are an object.'))
    faults += [Fault(f"{name}#{pointer}", message) for pointer, message in _keyword_faults("", schema, schema)]
    faults = faults or [Fault(f"{name}#{pointer}", message) for pointer, message in _form_faults(schema)]
    faults = faults or [Fault(f"{name}#{pointer}", message) for pointer, message in _loop_faults(schema)]
    if faults:
        raise InvalidOutputSchema(faults=faults[:_MAX_FAULTS])


def _size_faults(name: str, schema: JsonSchema) -> Iterator[Fault]:
    if (size := len(to_json(schema))) > MAX_BYTES:
        yield Fault(name, f"Takes {size:,} bytes as JSON; at most {MAX_BYTES:,} are taken.")


def _keyword_faults(pointer: str, schema: JsonValue, root: JsonSchema) -> Iterator[tuple[str, str]]:
    """Walk a schema and name what Gemini does not support, by JSON pointer."""
    if pointer.count("/") > MAX_STEPS:
        yield pointer, "Is nested too deeply. Make the schema flatter."
        return
    if not isinstance(schema, dict):
        yield pointer, "Should be a schema, which is an object."
        return
    yield from _own_faults(pointer, schema, root)
    for step, inner in _inner_schemas(schema):
        yield from _keyword_faults(f"{pointer}/{step}", inner, root)


def _own_faults(pointer: str, schema: JsonSchema, root: JsonSchema) -> Iterator[tuple[str, str]]:
    """Name what is wrong with one schema, apart from the schemas inside it."""
    for keyword in schema.keys() - GEMINI_KEYWORDS:
        yield f"{pointer}/{_escaped(keyword)}", "Gemini does not support this keyword. Remove it."
    types = schema.get("type", [])
    kinds = types if isinstance(types, list) else [types]
    if any(not isinstance(kind, str) or kind not in GEMINI_TYPES for kind in kinds):
        yield f"{pointer}/type", f"Should be one of {', '.join(sorted(GEMINI_TYPES))}, or a list of them."
    if "format" in schema and schema["format"] not in sorted(GEMINI_FORMATS):  # a set would have to hash it
        yield f"{pointer}/format", f"Should be one of {', '.join(sorted(GEMINI_FORMATS))}."
    if "$id" in schema and schema is not root:
        yield f"{pointer}/$id", "Belongs to the root alone, because every $ref starts there. Remove it."
    if not _all_texts(schema.get("propertyOrdering", [])):
        yield f"{pointer}/propertyOrdering", "Should be a list of names of properties."
    if "$ref" in schema and not _resolves(schema["$ref"], root):
        yield f"{pointer}/$ref", 'Should point to a schema under this root\'s $defs, such as "#/$defs/name".'


def _inner_schemas(schema: JsonSchema) -> Iterator[tuple[str, JsonValue]]:
    """Yield the schemas inside a schema with the steps that lead to them."""
    for keyword, value in schema.items():
        if keyword == "additionalProperties" and isinstance(value, bool):
            continue
        if keyword in _SCHEMAS:
            yield keyword, value
        elif keyword in _SCHEMAS_BY_NAME and isinstance(value, dict):
            yield from ((f"{keyword}/{_escaped(name)}", inner) for name, inner in value.items())
        elif keyword in _LISTS_OF_SCHEMAS and isinstance(value, list):
            yield from ((f"{keyword}/{number}", inner) for number, inner in enumerate(value))


def _form_faults(schema: JsonSchema) -> Iterator[tuple[str, str]]:
    """Hold a schema to JSON Schema's own (draft 2020-12), which knows the form of every keyword's value."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 (150 ms that only a strict schema pays)

    for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema):
        pointer = "".join(f"/{_escaped(str(step))}" for step in error.absolute_path)
        yield pointer, f"Is not valid JSON Schema: the form of {error.validator!s} is broken here."


def _loop_faults(root: JsonSchema) -> Iterator[tuple[str, str]]:
    """Name the definitions that lead back to themselves without a step into the value, so never to an end."""
    definitions = _definitions(root)
    for reference, definition in definitions.items():
        seen: set[str] = set()
        ahead = [*_followed(definition)]
        while ahead:
            if (step := ahead.pop()) not in seen:
                seen.add(step)
                ahead += _followed(definitions[step])
        if reference in seen:
            yield reference.removeprefix("#"), "Refers to itself without end. Put the $ref into a property or an item."


def _followed(schema: JsonValue) -> Iterator[str]:
    """Yield the references that a schema follows for the very value that it is about."""
    if isinstance(schema, dict):
        if isinstance(reference := schema.get("$ref"), str):
            yield unquote(reference)
        for step, inner in _inner_schemas(schema):
            if step.startswith(("anyOf/", "oneOf/")):
                yield from _followed(inner)


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


def without_bounds(schema: JsonSchema) -> JsonSchema:
    """Leave out the bounds that Gemini may find too much to hold; `violations` holds them afterwards."""
    kept: JsonSchema = {}
    for keyword, value in schema.items():
        match value:
            case _ if keyword in _BOUNDS:
                continue
            case {} if keyword in _SCHEMAS:
                kept[keyword] = without_bounds(value)
            case {} if keyword in _SCHEMAS_BY_NAME:
                kept[keyword] = {
                    name: without_bounds(inner) for name, inner in value.items() if isinstance(inner, dict)
                }
            case [*_] if keyword in _LISTS_OF_SCHEMAS:
                kept[keyword] = [without_bounds(inner) for inner in value if isinstance(inner, dict)]
            case _:
                kept[keyword] = value
    return kept


def violations(results: JsonValue, schema: JsonSchema) -> list[Fault]:
    """Name where results do not obey their schema (draft 2020-12, formats checked); empty when they do."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 (150 ms; only extraction pays)

    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [
        Fault(error.json_path.removeprefix("$").removeprefix("."), f"Breaks {cast('str', error.validator)}.")
        for error in validator.iter_errors(results)
    ][:_MAX_FAULTS]
