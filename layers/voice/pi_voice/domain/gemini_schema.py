"""Compile a schema in normal form to what Gemini honors in `responseJsonSchema`.

Everything that is valid by the schema is valid by what is sent, so the model can always answer correctly. What cannot
be sent is described in words, and held on the answer.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pydantic import JsonValue

from pi_voice.domain.base import JsonSchema
from pi_voice.domain.schema_evaluation import comparable
from pi_voice.domain.schema_reader import NormalSchema, read_schema
from pi_voice.domain.string_formats import WITH_OFFSET, words_for

SENT_KEYWORDS: Final = frozenset(
    {
        "$defs", "$ref", "type", "format", "description", "enum", "items", "prefixItems", "anyOf", "properties",
        "additionalProperties", "required", "propertyOrdering",
    }
)  # fmt: skip
"""Keywords that are sent. Google's reference of GenerationConfig also has bounds; they make a schema too complex."""

SENT_FORMATS: Final = frozenset({"date-time", "date", "time"})

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
    "minProperties": "at least {} properties",
    "maxProperties": "at most {} properties",
    "pattern": "matches the regular expression {}",
}
"""Descriptions of keywords with a number or a text."""

_FLAGS: Final = {
    "uniqueItems": (True, "no item twice"),
    "unevaluatedItems": (False, "no other items"),
    "unevaluatedProperties": (False, "no other properties"),
}
"""Values of keywords that have a description of their own."""

AS_JSON: Final = {
    "if": "valid by the JSON Schema {}",
    "not": "not valid by the JSON Schema {}",
    "contains": "with items that are valid by the JSON Schema {}",
    "contentSchema": "JSON in a text, which is valid by the JSON Schema {}",
    "dependentSchemas": "where a property is present, valid by its JSON Schema in {}",
    "unevaluatedItems": "other items are valid by the JSON Schema {}",
    "unevaluatedProperties": "other properties are valid by the JSON Schema {}",
}
"""Descriptions of keywords that hold schemas, which the model gets as JSON if they are short."""

CONTAINED: Final = {"minContains": "at least {} of these items", "maxContains": "at most {} of these items"}
"""Descriptions of keywords that count the items of `contains`."""

MAX_JSON_CHARACTERS: Final = 400
"""Maximum length of a schema in words."""

_MAX_COMPILED: Final = 1_000
"""Number of compiled schemas after which references are no longer replaced by their targets."""

_MAX_DEPTH: Final = 20
"""The same for the depth of a schema inside others: Gemini refuses deep schemas."""

_BROAD: Final = {"integer": "number"}


def gemini_schema(schema: JsonSchema) -> JsonSchema:
    """Return what is sent to Gemini for a schema; `violations` validates results against the whole schema."""
    return sent_schema(read_schema(schema))


def sent_schema(schema: NormalSchema) -> JsonSchema:
    """Return what is sent to Gemini for a schema in normal form."""
    return _Compiler(schema).document()


class _Compiler:
    def __init__(self, schema: NormalSchema) -> None:
        self._schema = schema
        self._compiled_schemas = 0
        self._depth = 0
        self._definitions: JsonSchema = {}
        self._waiting: list[str] = []

    def document(self) -> JsonSchema:
        root = self._merged(self._parts(self._schema.root)) or {}
        if "type" in root or "anyOf" not in root:
            root = {**root, "type": "object"}  # results are an object
        while self._waiting:
            name = self._waiting.pop(0)
            self._definitions[name] = self._compiled(self._schema.definitions[name]) or {}
        document = {**root, "$defs": self._definitions} if self._definitions else root
        _end_cycles(self._definitions)
        return document

    def _compiled(self, schema: JsonValue) -> JsonSchema | None:
        """Compile a schema; None for one that allows nothing."""
        if not isinstance(schema, dict):
            return None
        if schema.keys() == {"$ref"}:
            return self._reference(schema["$ref"])
        parts = self._parts(schema)
        self._depth += 1
        merged = self._merged(parts)
        self._depth -= 1
        return merged

    def _reference(self, reference: JsonValue) -> JsonSchema:
        name = str(reference).rpartition("/")[2]
        if name not in self._definitions:
            self._definitions[name] = {}
            self._waiting.append(name)
        return {"$ref": reference}

    def _parts(self, schema: JsonValue) -> list[JsonSchema]:
        """Return the schemas that all hold for the same value: the schema, its `$ref` and its `allOf`."""
        parts: list[JsonSchema] = []
        waiting: list[JsonValue] = [schema]
        visited: set[int] = set()
        while waiting:
            part = waiting.pop(0)
            if part is False:
                return []
            if not isinstance(part, dict) or id(part) in visited:
                continue
            visited.add(id(part))
            parts.append({name: value for name, value in part.items() if name not in ("$ref", "allOf")})
            if "$ref" in part:
                is_small = self._compiled_schemas < _MAX_COMPILED and self._depth < _MAX_DEPTH
                alone: JsonSchema = {"$ref": part["$ref"]}
                waiting.append(self._schema.target(part["$ref"]) if is_small else {"anyOf": [alone]})
            branches = part.get("allOf")
            waiting += branches if isinstance(branches, list) else []
        return parts

    def _merged(self, parts: Sequence[JsonSchema]) -> JsonSchema | None:
        """Compile schemas that all hold for the same value to one; None if they allow nothing."""
        if not parts:
            return None
        self._compiled_schemas += 1
        sent: JsonSchema = {}
        words: list[str] = []
        types = _common_types(parts)
        self._values(parts, types, sent, words)
        for part in parts:
            sent_format = part.get("format")
            if sent_format in SENT_FORMATS and not (sent_format in WITH_OFFSET and "pattern" in part):
                sent.setdefault("format", sent_format)
        if any(part.keys() & {"properties", "additionalProperties", "required"} for part in parts):
            self._object(parts, sent)
        self._array(parts, sent)
        self._alternatives(parts, sent)
        for part in parts:
            if isinstance(ordering := part.get("propertyOrdering"), list):
                sent.setdefault("propertyOrdering", ordering)
            words += _in_words(part)
            words += self._names_in_words(part)
        _describe(sent, [text for part in parts if isinstance(text := part.get("description"), str)], words)
        return sent

    def _values(self, parts: Sequence[JsonSchema], types: list[str], sent: JsonSchema, words: list[str]) -> None:
        """Send the type and the allowed values; Gemini takes only texts, numbers and null in an enum."""
        members = _common_members(parts)
        if members is None:
            if types:
                sent["type"] = types[0] if len(types) == 1 else [*types]
            return
        plain = [each for each in members if isinstance(each, str | int | float | None) and not isinstance(each, bool)]
        kinds = list(dict.fromkeys(map(type_of, members)))
        if len(plain) == len(members):
            allowed = types or kinds
            sent["type"] = allowed[0] if len(allowed) == 1 else [*allowed]
            if members != [None]:
                sent["enum"] = members
        elif kinds == ["boolean"]:
            sent["type"] = "boolean"
            if len(members) == 1:
                words.append(f"exactly {_json(members[0])}")
        else:
            others: list[JsonValue] = [{"type": kind} for kind in kinds if kind in ("boolean", "array", "object")]
            named: list[JsonValue] = [{"enum": [*plain]}] if plain else []
            sent["anyOf"] = [*named, *others]
            words.append(f"one of {', '.join(map(_json, members))}")

    def _object(self, parts: Sequence[JsonSchema], sent: JsonSchema) -> None:
        by_name: dict[str, list[JsonValue]] = {}
        for part in parts:
            for name, inner in _dict(part.get("properties")).items():
                by_name.setdefault(name, []).append(inner)
        compiled = {
            name: self._compiled(inners[0] if len(inners) == 1 else {"allOf": inners})
            for name, inners in by_name.items()
        }
        properties: JsonSchema = {name: inner for name, inner in compiled.items() if inner is not None}
        others = self._others(parts)
        required = [*dict.fromkeys(str(name) for part in parts for name in _list(part.get("required")))]
        if others is not False:
            unnamed = {name: others if isinstance(others, dict) else {} for name in required if name not in by_name}
            properties.update(unnamed)
        if properties or by_name:
            sent["properties"] = properties
        if present := [name for name in required if name in properties]:
            sent["required"] = [*present]
        if others is not None:
            sent["additionalProperties"] = others

    def _others(self, parts: Sequence[JsonSchema]) -> JsonValue:
        """Return what is sent for the properties that no part names; None for nothing."""
        others = [self._additional(part) for part in parts]
        is_open = any(part.keys() & _EVALUATING for part in parts)
        if not is_open and any(part.get("unevaluatedProperties") is False for part in parts):
            return False
        return False if False in others else next((each for each in others if each is not None), None)

    def _additional(self, part: JsonSchema) -> JsonValue:
        """Return what is sent for the properties that a schema does not name; None for nothing."""
        if "additionalProperties" not in part:
            return None
        patterns = [self._compiled(each) for each in _dict(part.get("patternProperties")).values()]
        own = self._compiled(part["additionalProperties"])
        allowed = [each for each in (*patterns, own) if each is not None]
        if not allowed:
            return False
        if allowed == [{}]:
            return True
        return allowed[0] if len(allowed) == 1 else {"anyOf": [*allowed]}

    def _array(self, parts: Sequence[JsonSchema], sent: JsonSchema) -> None:
        part = next((each for each in parts if each.keys() & {"prefixItems", "items"}), {})
        prefix = [self._compiled(each) for each in _list(part.get("prefixItems"))]
        if prefix and None not in prefix:
            sent["prefixItems"] = [*prefix]
        if ("prefixItems" not in part or "prefixItems" in sent) and "items" in part:
            inner = self._compiled(part["items"])
            sent.update({"items": inner} if inner is not None else {})

    def _names_in_words(self, part: JsonSchema) -> Iterator[str]:
        """Describe the names of the properties of a map."""
        if "propertyNames" in part:
            names = self._merged(self._parts(part["propertyNames"])) or {}
            if isinstance(members := names.get("enum"), list):
                yield f"property names are {', '.join(map(_text, members))}"
            elif "description" in names:
                yield f"property names: {names['description']}"
        for pattern, inner in _dict(part.get("patternProperties")).items():
            told = self._compiled(inner)
            kind = f" are valid by the JSON Schema {_json(told)}" if told and is_told(told) else ""
            yield (
                f"properties whose names match {pattern}{kind}"
                if told is not None
                else f"no property names that match {pattern}"
            )

    def _alternatives(self, parts: Sequence[JsonSchema], sent: JsonSchema) -> None:
        for part in parts:
            for keyword in ("anyOf", "oneOf"):
                compiled = [self._compiled(each) for each in _list(part.get(keyword))]
                if (branches := [each for each in compiled if each is not None]) and "anyOf" not in sent:
                    sent["anyOf"] = [*branches]


_EVALUATING: Final = frozenset(
    {"anyOf", "oneOf", "if", "dependentSchemas", "patternProperties", "additionalProperties"}
)
"""Keywords beside which a property that is not named may be evaluated."""


def _common_types(parts: Iterable[JsonSchema]) -> list[str]:
    """Return the types that all parts allow; empty if they name none, or have none in common."""
    common: list[str] | None = None
    for part in parts:
        if (types := part.get("type")) is None:
            continue
        own = [str(each) for each in (types if isinstance(types, list) else [types])]
        if common is None:
            common = own
        else:
            narrower = [each for each in own if each in common or _BROAD.get(each) in common]
            common = narrower + [each for each in common if _BROAD.get(each) in own and each not in narrower]
    return common or []


def _common_members(parts: Iterable[JsonSchema]) -> list[JsonValue] | None:
    """Return the values that `enum` and `const` of all parts allow; None if there is no such keyword."""
    common: list[JsonValue] | None = None
    for part in parts:
        for keyword in ("enum", "const"):
            if keyword in part:
                own = _list(part["enum"]) if keyword == "enum" else [part["const"]]
                equal = [comparable(each) for each in own]
                common = own if common is None else [each for each in common if comparable(each) in equal]
    return common or None


_TYPES: Final = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def type_of(value: JsonValue) -> str:
    """Return the name of the type of a JSON value."""
    return _TYPES[type(value)]


# ---- Words ----


def _describe(sent: JsonSchema, descriptions: Sequence[str], words: Sequence[str]) -> None:
    description = ". ".join(dict.fromkeys(text.rstrip(".") if len(descriptions) > 1 else text for text in descriptions))
    if new := ", ".join(dict.fromkeys(each for each in words if each not in description)):
        description = f"{description} ({new})" if description else new
    if description:
        sent["description"] = description


def _in_words(part: JsonSchema) -> Iterator[str]:
    """Describe what is not sent of a schema."""
    for keyword, words in IN_WORDS.items():
        if keyword in part:
            yield words.format(part[keyword])
    if "format" in part and not (part["format"] in WITH_OFFSET and "pattern" in part):
        yield words_for(str(part["format"]))
    if part.get("items") is False:
        yield f"at most {len(_list(part.get('prefixItems')))} items"
    yield from (words for keyword, (value, words) in _FLAGS.items() if part.get(keyword) is value)
    for name, others in _dict(part.get("dependentRequired")).items():
        yield f"with {name} also {', '.join(map(str, _list(others)))}"
    for keyword, words in AS_JSON.items():
        told = conditional_of(part) if keyword == "if" else part.get(keyword)
        if keyword in part and told is not False and is_told(told):
            yield words.format(_json(told))
    if "contains" in part and is_told(part["contains"]):
        yield from (words.format(part[keyword]) for keyword, words in CONTAINED.items() if keyword in part)


def is_told(value: JsonValue) -> bool:
    """Return whether a schema is described to the model as JSON: if it is short and refers to no other."""
    text = _json(value)
    return len(text) <= MAX_JSON_CHARACTERS and '"$ref"' not in text


def conditional_of(schema: JsonSchema) -> JsonSchema:
    """Return the part of a schema that `if` decides about."""
    return {name: schema[name] for name in ("if", "then", "else") if name in schema}


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False)


# ---- Recursion ----


def _end_cycles(definitions: JsonSchema) -> None:
    """Remove what Gemini refuses of recursive definitions: cycles are allowed in properties that are not required."""
    edges = {name: {*_references(definition)} for name, definition in definitions.items()}
    reached = {name: _reached(name, edges) for name in definitions}
    for name, definition in definitions.items():
        cyclic = {other for other in reached[name] if name in reached[other]}
        if cyclic:
            _loosen(definition, cyclic)


def _reached(start: str, edges: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = [*edges[start]]
    while waiting:
        if (name := waiting.pop()) not in reached:
            reached.add(name)
            waiting += edges[name]
    return reached


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _references(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name == "$ref" and isinstance(each, str):
                yield each.rpartition("/")[2]
            else:
                yield from _references(each)


def _loosen(schema: Any, cyclic: set[str], *, is_optional: bool = False) -> None:
    """Make properties optional that lead back, and cut references that lead back outside of properties."""
    if not isinstance(schema, dict):
        return
    if not is_optional and str(schema.get("$ref", "")).rpartition("/")[2] in cyclic:
        del schema["$ref"]
        return
    for keyword in ("items", "additionalProperties"):
        _loosen(schema.get(keyword), cyclic, is_optional=is_optional)
    for keyword in ("anyOf", "prefixItems"):
        for each in schema.get(keyword, ()):
            _loosen(each, cyclic, is_optional=is_optional)
    for name, inner in schema.get("properties", {}).items():
        if cyclic & {*_references(inner)} and name in schema.get("required", ()):
            schema["required"] = [each for each in schema["required"] if each != name]
        _loosen(inner, cyclic, is_optional=True)
    if schema.get("required") == []:
        del schema["required"]


def _list(value: JsonValue) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: JsonValue) -> JsonSchema:
    return value if isinstance(value, dict) else {}
