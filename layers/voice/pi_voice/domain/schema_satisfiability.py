"""Find what no value can satisfy in a schema in normal form, before a call is made with it.

For each schema the kinds of values that it may allow are computed, as the least fixed point over its references. What
the analysis does not understand, such as `not` and `if`, is taken to allow everything.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from pydantic import JsonValue

from pi_voice.domain.base import JsonSchema
from pi_voice.domain.errors import SchemaTooComplex
from pi_voice.domain.gemini_schema import type_of
from pi_voice.domain.schema_evaluation import Evaluation
from pi_voice.domain.schema_reader import NormalSchema, Note, escaped

Kinds = frozenset[str]

_OF_TYPE: Final = {
    "null": frozenset({"null"}),
    "boolean": frozenset({"boolean"}),
    "integer": frozenset({"integer"}),
    "number": frozenset({"integer", "fraction"}),
    "string": frozenset({"string"}),
    "array": frozenset({"array"}),
    "object": frozenset({"object"}),
}
_ALL: Final = frozenset().union(*_OF_TYPE.values())
_NONE: Final[Kinds] = frozenset()
_BOUNDS: Final = (
    ("minLength", "maxLength", "string"),
    ("minItems", "maxItems", "array"),
    ("minProperties", "maxProperties", "object"),
    ("minimum", "maximum", "number"),
)
_OBJECT_KEYWORDS: Final = frozenset(
    {"properties", "patternProperties", "additionalProperties", "required", "minProperties", "propertyNames"}
)

_MAX_BLAMED: Final = 100
"""Number of schemas that are searched for the reason why a schema allows nothing."""

NO_OBJECT: Final = (
    "The root must describe an object, because results and arguments are objects. "
    'Wrap it in an object: {"type": "object", "properties": {"items": ...}, "required": ["items"]}.'
)
_ENDLESS: Final = (
    "Refers to itself without end. Put the $ref into a property that is not required, or allow an empty list or null."
)
_MEMBERS: Final = "Has no value that the keywords beside it allow. Correct the values, or remove the other keywords."
_NOTHING: Final = "Allows no value, because its parts exclude each other. Remove one of them."


class _OwnFault(NamedTuple):
    """A keyword of one schema that nothing can satisfy."""

    keyword: str
    message: str
    excluded: Kinds
    """Kinds of values that the keyword excludes."""


def unsatisfiable(schema: NormalSchema) -> tuple[list[Note], list[Note]]:
    """Return the errors and the warnings: what keeps all results from being valid, and what only parts of them."""
    return _Analysis(schema).notes()


class _Analysis:
    def __init__(self, schema: NormalSchema) -> None:
        self._schema = schema
        self._evaluation = Evaluation(schema)
        self._own: dict[int, tuple[list[_OwnFault], Kinds]] = {}
        """Faults and kinds of schemas without the schemas inside them, by identity."""
        self._ending = self._solved(_NONE)
        """Kinds of values that definitions allow."""
        self._endless = self._solved(_ALL)
        """The same if values could be infinite."""

    def notes(self) -> tuple[list[Note], list[Note]]:
        root = self._schema.root
        kinds = self._kinds(root, self._ending)
        errors: dict[str, Note] = {}
        if "object" not in kinds:
            self._blame(root, "", errors, set())
            if kinds or not errors:
                errors[""] = Note("", NO_OBJECT)
        elif kinds == _ALL and not self._describes_object(root):
            errors[""] = Note("", NO_OBJECT)
        return [*errors.values()], [note for note in self._all_faults() if note.pointer not in errors]

    def _describes_object(self, schema: JsonValue) -> bool:
        """Return whether a schema that allows all kinds of values says anything about objects."""
        waiting, visited = [schema], set[int]()
        while waiting:
            each = waiting.pop()
            if not isinstance(each, dict) or id(each) in visited:
                continue
            visited.add(id(each))
            if each.keys() & _OBJECT_KEYWORDS:
                return True
            waiting += [self._schema.target(each["$ref"])] if "$ref" in each else []
            for keyword in ("allOf", "anyOf", "oneOf"):
                waiting += _list(each.get(keyword))
        return False

    def _solved(self, start: Kinds) -> dict[str, Kinds]:
        """Compute the kinds of all definitions, beginning with none or with all."""
        definitions = self._schema.definitions
        users: dict[str, set[str]] = {name: set() for name in definitions}
        for name, definition in definitions.items():
            for other in references(definition):
                users[other].add(name)
        state = dict.fromkeys(definitions, start)
        waiting = dict.fromkeys(definitions)
        while waiting:
            name = next(iter(waiting))
            del waiting[name]
            kinds = self._kinds(definitions[name], state)
            if kinds != state[name]:
                state[name] = kinds
                waiting.update(dict.fromkeys(users[name]))
        return state

    def _kinds(self, schema: JsonValue, state: dict[str, Kinds]) -> Kinds:
        if not isinstance(schema, dict):
            return _NONE
        _, kinds = self._own_of(schema)
        if "$ref" in schema:
            kinds &= state[str(schema["$ref"]).rpartition("/")[2]]
        for branch in _list(schema.get("allOf")):
            kinds &= self._kinds(branch, state)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                kinds &= _union(self._kinds(branch, state) for branch in _list(schema[keyword]))
        for kind, _, inner in _needed(schema):
            if kind in kinds and not self._kinds(inner, state):
                kinds -= {kind}
        return kinds

    def _own_of(self, schema: JsonSchema) -> tuple[list[_OwnFault], Kinds]:
        """Return the faults and the kinds of values of a schema, without the schemas inside it."""
        if id(schema) not in self._own:
            faults = [*_own_faults(schema)]
            kinds = _ALL
            if (types := schema.get("type")) is not None:
                kinds &= _union(_OF_TYPE[str(kind)] for kind in (types if isinstance(types, list) else [types]))
            for keyword, members in (("enum", schema.get("enum")), ("const", [schema.get("const")])):
                if keyword in schema:
                    kinds &= _union(map(_kinds_of, _list(members)))
                    if members and not any(self._is_allowed(schema, each) for each in _list(members)):
                        faults.append(_OwnFault(keyword, _MEMBERS, _ALL))
            excluded = _union(fault.excluded for fault in faults)
            self._own[id(schema)] = faults, kinds - excluded
        return self._own[id(schema)]

    def _is_allowed(self, schema: JsonSchema, member: JsonValue) -> bool:
        """Return whether a schema allows one of its `enum` or `const`; also if finding out takes too much work."""
        try:
            return not self._evaluation.outcome(schema, member).faults
        except SchemaTooComplex:
            return True

    def _blame(self, schema: JsonValue, pointer: str, errors: dict[str, Note], visited: set[int]) -> None:
        """Collect the reasons why a schema allows nothing, along everything that a value of it must have."""
        if id(schema) in visited:
            return
        visited.add(id(schema))
        pointer = self._schema.pointers.get(id(schema), pointer)
        if not isinstance(schema, dict) or len(visited) > _MAX_BLAMED:
            errors.setdefault(pointer, Note(pointer, "Allows no value, although one is required here."))
            return
        before = len(errors)
        for keyword, message, _ in self._own_of(schema)[0]:
            errors.setdefault(f"{pointer}/{keyword}", Note(f"{pointer}/{keyword}", message))
        if "$ref" in schema and not self._allows(target := self._schema.target(schema["$ref"])):
            self._blame_definition(str(schema["$ref"]).rpartition("/")[2], target, errors, visited)
        for keyword in ("allOf", "anyOf", "oneOf"):
            branches = _list(schema.get(keyword))
            empty = [branch for branch in branches if not self._allows(branch)]
            for branch in empty if keyword == "allOf" or len(empty) == len(branches) else ():
                self._blame(branch, f"{pointer}/{keyword}", errors, visited)
        for _, step, inner in _needed(schema):
            if not self._allows(inner):
                self._blame(inner, f"{pointer}/{step}", errors, visited)
        if len(errors) == before and not self._kinds(schema, self._ending) and self._is_local(schema):
            errors.setdefault(pointer, Note(pointer, _NOTHING))

    def _blame_definition(self, name: str, target: JsonValue, errors: dict[str, Note], visited: set[int]) -> None:
        if self._endless[name] and not self._ending[name]:
            pointer = self._schema.pointers.get(id(target), "")
            errors.setdefault(pointer, Note(pointer, _ENDLESS))
        else:
            self._blame(target, "", errors, visited)

    def _is_local(self, schema: JsonSchema) -> bool:
        """Return whether a schema allows nothing although each of its parts allows something."""
        parts = [self._schema.target(schema["$ref"])] if "$ref" in schema else []
        parts += [*_list(schema.get("allOf")), *(inner for _, _, inner in _needed(schema))]
        return all(map(self._allows, parts))

    def _allows(self, schema: JsonValue) -> bool:
        return bool(self._kinds(schema, self._ending))

    def _all_faults(self) -> Iterator[Note]:
        """Yield what is wrong anywhere in the document."""
        for name, definition in self._schema.definitions.items():
            if self._endless[name] and not self._ending[name]:
                yield Note(self._schema.pointers.get(id(definition), ""), _ENDLESS)
        waiting = [self._schema.root, *self._schema.definitions.values()]
        while waiting:
            value = waiting.pop(0)
            if isinstance(value, dict):
                if (pointer := self._schema.pointers.get(id(value))) is not None:
                    for keyword, message, _ in self._own_of(value)[0]:
                        yield Note(f"{pointer}/{keyword}", message)
                    if unknown := _unknown_names(value):
                        message = f"Names {', '.join(unknown[:5])}, which is not in properties. Check the spelling."
                        yield Note(f"{pointer}/required", message)
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value


def references(schema: JsonValue) -> Iterator[str]:
    """Yield the names of the definitions that a schema in normal form refers to."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(reference := value.get("$ref"), str):
                yield reference.rpartition("/")[2]
            waiting += [inner for name, inner in value.items() if name not in ("enum", "const")]
        elif isinstance(value, list):
            waiting += value


def _own_faults(schema: JsonSchema) -> Iterator[_OwnFault]:
    """Yield the keywords of one schema that nothing can satisfy."""
    if schema.get("enum") == []:
        yield _OwnFault("enum", "Has no values. List the values that are allowed, or remove it.", _ALL)
    if schema.get("not") == {}:
        yield _OwnFault("not", "Excludes every value. Describe what is excluded.", _ALL)
    for low, high, kind in _BOUNDS:
        if _is_crossed(schema.get(low), schema.get(high), lambda left, right: left > right):
            yield _OwnFault(low, f"Is more than {high}. Exchange them.", _OF_TYPE[kind])
    yield from _number_faults(schema)
    yield from _object_faults(schema)
    yield from _array_faults(schema)


def _number_faults(schema: JsonSchema) -> Iterator[_OwnFault]:
    number = _OF_TYPE["number"]
    for low, high in (
        ("exclusiveMinimum", "maximum"), ("minimum", "exclusiveMaximum"), ("exclusiveMinimum", "exclusiveMaximum")
    ):  # fmt: skip
        if _is_crossed(schema.get(low), schema.get(high), lambda left, right: left >= right):
            yield _OwnFault(low, f"Leaves no number below {high}. Exchange them, or include the bound.", number)
            return
    least = [math.ceil(each) for each in _numbers(schema, "minimum")]
    least += [math.floor(each) + 1 for each in _numbers(schema, "exclusiveMinimum")]
    most = [math.floor(each) for each in _numbers(schema, "maximum")]
    most += [math.ceil(each) - 1 for each in _numbers(schema, "exclusiveMaximum")]
    if schema.get("type") == "integer" and least and most and max(least) == min(most) + 1:
        low = "minimum" if "minimum" in schema else "exclusiveMinimum"
        yield _OwnFault(low, "Leaves no whole number. Move the bounds apart.", _OF_TYPE["integer"])


def _object_faults(schema: JsonSchema) -> Iterator[_OwnFault]:
    required, properties = _list(schema.get("required")), schema.get("properties", {})
    is_closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    if is_closed and (missing := _closed_out(schema)):
        message = f"Names {', '.join(missing[:5])}, which additionalProperties excludes. Describe it in properties."
        yield _OwnFault("required", message, _OF_TYPE["object"])
    if is_closed and _is_crossed(schema.get("minProperties"), properties, lambda least, named: least > len(named)):
        message = "Is more than the properties that are allowed. Describe the others."
        yield _OwnFault("minProperties", message, _OF_TYPE["object"])
    if _is_crossed(len(required), schema.get("maxProperties"), lambda least, most: least > most):
        yield _OwnFault("maxProperties", "Is less than the number of required properties.", _OF_TYPE["object"])


def _array_faults(schema: JsonSchema) -> Iterator[_OwnFault]:
    prefix = _list(schema.get("prefixItems"))
    if schema.get("items") is False and _is_crossed(schema.get("minItems"), len(prefix), lambda a, b: a > b):
        yield _OwnFault("minItems", "Is more than the items that are allowed. Describe the others.", _OF_TYPE["array"])
    if "contains" not in schema:
        return
    keyword = "minContains" if "minContains" in schema else "contains"
    for high in ("maxContains", "maxItems"):
        if _is_crossed(schema.get("minContains", 1), schema.get(high), lambda least, most: least > most):
            yield _OwnFault(keyword, f"Needs more items than {high} allows.", _OF_TYPE["array"])


def _numbers(schema: JsonSchema, keyword: str) -> list[Any]:
    return [schema[keyword]] if keyword in schema else []


def _is_crossed(low: Any, high: Any, crossed: Callable[[Any, Any], bool]) -> bool:
    return low is not None and high is not None and crossed(low, high)


def _closed_out(schema: JsonSchema) -> list[str]:
    """Return the required names that a schema does not describe itself."""
    if "patternProperties" in schema:
        return []
    properties: Any = schema.get("properties", {})
    return [str(name) for name in _list(schema.get("required")) if name not in properties]


def _unknown_names(schema: JsonSchema) -> list[str]:
    """Return the required names that are probably misspelled: the schema describes others, and not these."""
    is_open = schema.keys().isdisjoint({"additionalProperties", "$ref", "allOf", "anyOf", "oneOf", "propertyNames"})
    return _closed_out(schema) if is_open and schema.get("properties") else []


def _needed(schema: JsonSchema) -> Iterator[tuple[str, str, JsonValue]]:
    """Yield the schemas inside that a value must have something for: the kind of value, the step and the schema."""
    properties: Any = schema.get("properties", {})
    for name in _list(schema.get("required")):
        if name in properties:
            yield "object", f"properties/{escaped(name)}", properties[name]
    prefix = _list(schema.get("prefixItems"))
    contained: Any = schema.get("minContains", 1) if "contains" in schema else 0
    least: Any = max(schema.get("minItems", 0), contained)
    for number, inner in enumerate(prefix[: int(least)]):
        yield "array", f"prefixItems/{number}", inner
    if least > len(prefix) and isinstance(schema.get("items"), dict):
        yield "array", "items", schema["items"]
    if contained > 0:
        yield "array", "contains", schema["contains"]


def _kinds_of(value: JsonValue) -> Kinds:
    return _OF_TYPE[type_of(value)]


def _union(kinds: Any) -> Kinds:
    return frozenset().union(*kinds)


def _list(value: JsonValue) -> list[Any]:
    return value if isinstance(value, list) else []
