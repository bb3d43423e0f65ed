"""Evaluate an instance against a schema in normal form, within a number of steps.

The outcome of each pair of schema and value is computed once, so schemas that refer to the same definitions many times
take no longer than their size. Each outcome, each name and each character that a pattern reads costs steps. They are
counted and not timed, so the same schema and answer have the same outcome everywhere.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pydantic import JsonValue

from pi_voice.domain.base import JsonSchema
from pi_voice.domain.errors import SchemaTooComplex
from pi_voice.domain.schema_reader import NormalSchema
from pi_voice.domain.string_formats import CHECKS, WITH_OFFSET, lacks_offset

MAX_STEPS: Final = 250_000
"""Budget of one evaluation; about a second of processor time on a slow machine."""

MAX_DEPTH: Final = 180
"""Maximum number of schemas that are applied inside one another, below the recursion limit of Python."""

MAX_FAULTS: Final = 20
_BYTES_AND_INSTRUCTIONS_PER_STEP: Final = 400
"""Work of RE2 in one step: the bytes of a text times the instructions of a pattern."""

_INSTRUCTIONS_PER_STEP: Final = 4
_TOO_LARGE_INSTRUCTIONS: Final = 40_000
"""Work of RE2 until it refuses a pattern as too large."""

_CHARACTERS_PER_STEP: Final = 100
_MAX_PATTERN_BYTES: Final = 1_048_576
"""Memory of one compiled pattern; RE2 refuses a pattern that needs more."""

_MAX_PATTERNS: Final = 32
"""Maximum number of compiled patterns in memory."""


class EndlessReference(SchemaTooComplex):
    """The schema refers to itself for the same value."""


class Fault(NamedTuple):
    """A keyword that a value violates."""

    path: tuple[str | int, ...]
    keyword: str
    required: JsonValue
    """Value of the keyword, or what is missing."""


class Outcome(NamedTuple):
    """Outcome of a schema for a value: its faults, and the names or positions that the schema evaluated."""

    faults: tuple[Fault, ...]
    evaluated: frozenset[str | int] = frozenset()
    height: int = 0
    """Number of schemas that were applied inside one another."""


_VALID: Final = Outcome(())
_NOTHING: Final = Outcome((Fault((), "false", None),))


@dataclass(slots=True)
class _Found:
    """What is found so far about one schema and one value."""

    faults: list[Fault] = field(default_factory=list)
    evaluated: set[str | int] = field(default_factory=set)


class _Pattern(NamedTuple):
    regexp: Any
    """The compiled pattern; None if RE2 cannot read it."""
    instructions: int


def is_readable(pattern: str) -> bool:
    """Return whether RE2 can read a pattern; others are not held."""
    return _compiled(pattern).regexp is not None


@lru_cache(_MAX_PATTERNS)
def _compiled(pattern: str) -> _Pattern:
    """Compile a pattern of ECMA-262 with RE2, which matches in time linear in the text.

    Python's `re` can take exponential time on a short text.
    """
    import re2  # noqa: PLC0415 (10 ms, only for schemas with patterns)

    options = re2.Options()
    options.log_errors = False  # otherwise re2 writes to stderr
    options.never_capture = True
    options.max_mem = _MAX_PATTERN_BYTES
    try:
        regexp = re2._Regexp(_for_re2(pattern), options)  # noqa: SLF001 (re2.compile keeps 128 patterns in memory)
    except (re2.error, UnicodeEncodeError) as error:
        return _Pattern(None, _TOO_LARGE_INSTRUCTIONS if "too large" in str(error) else len(pattern))
    return _Pattern(regexp, int(regexp.programsize))


_ECMA_TOKEN: Final = re.compile(
    r"\\u\{(?P<wide>[0-9A-Fa-f]{1,6})\}|\\u(?P<unit>[0-9A-Fa-f]{4})|\\c(?P<control>[A-Za-z])|\\.|\[\^?\]|.", re.DOTALL
)
_SPACES: Final = r"\s\v\x{a0}\x{feff}\p{Z}"


def _for_re2(pattern: str) -> str:
    """Write the escapes that ECMA-262 has and RE2 has not, or reads for ASCII only."""
    written = []
    in_class = False
    for token in _ECMA_TOKEN.finditer(pattern):
        text = token[0]
        if code := token["wide"] or token["unit"]:
            text = f"\\x{{{code}}}"
        elif token["control"]:
            text = f"\\x{{{ord(token['control']) % 32:x}}}"
        elif text == r"\s":
            text = _SPACES if in_class else f"[{_SPACES}]"
        elif text == r"\S" and not in_class:
            text = f"[^{_SPACES}]"
        elif not in_class and text in ("[^]", "[]"):
            text = "(?s:.)" if text == "[^]" else r"[^\x00-\x{10ffff}]"
        elif text in ("[^]", "[]"):
            in_class = False
        elif text == "[":
            in_class = True
        elif text == "]":
            in_class = False
        written.append(text)
    return "".join(written)


class Evaluation:
    """Evaluates values against one schema; what was computed for a value is remembered."""

    def __init__(self, schema: NormalSchema, steps: int = MAX_STEPS, depth: int = MAX_DEPTH) -> None:
        self._schema = schema
        self._steps_left = steps
        self._max_depth = depth
        self._depth = 0
        self._height = 0
        """Height of what was evaluated so far for the current schema."""
        self._members: dict[int, frozenset[Any]] = {}
        self._known: dict[tuple[int, int], Outcome | None] = {}
        """Outcomes by the identities of schema and value; None while one is being computed."""
        self._patterns: dict[str, _Pattern] = {}
        self._parsed: list[JsonValue] = []
        """Values that were parsed on the way, kept because outcomes are remembered by identity."""
        self._tracks = _has_unevaluated([schema.root, *schema.definitions.values()])

    def faults(self, value: JsonValue) -> Sequence[Fault]:
        """Return up to 20 faults of a value; raises SchemaTooComplex."""
        return self.outcome(self._schema.root, value).faults

    def spend(self, steps: int) -> None:
        """Take steps from the budget; raises SchemaTooComplex if there are none left."""
        self._steps_left -= steps
        if self._steps_left < 0:
            raise SchemaTooComplex

    def outcome(self, schema: JsonValue, value: JsonValue) -> Outcome:
        """Return the outcome of a schema for a value; raises SchemaTooComplex."""
        if not isinstance(schema, dict):
            return _NOTHING
        key = id(schema), id(value)
        if key in self._known:
            if (known := self._known[key]) is None:
                raise EndlessReference
            self.spend(1)
            self._height = max(self._height, known.height)
            return known
        self.spend(2 + len(schema))
        if self._depth == self._max_depth:
            raise SchemaTooComplex
        self._known[key] = None
        height_beside, self._height, self._depth = self._height, 0, self._depth + 1
        found = self._found(schema, value)
        self.spend(len(found.faults))
        height = self._height + 1
        if height > self._max_depth:  # also if parts were evaluated before, so that their order does not matter
            raise SchemaTooComplex
        self._depth, self._height = self._depth - 1, max(height_beside, height)
        evaluated: frozenset[str | int] = frozenset() if found.faults else frozenset(found.evaluated)
        outcome = Outcome(tuple(found.faults[:MAX_FAULTS]), evaluated, height)
        self._known[key] = outcome
        return outcome

    def _found(self, schema: JsonSchema, value: JsonValue) -> _Found:
        found = _Found()
        for keyword, required in schema.items():
            if (rule := _RULES.get(keyword)) is not None:
                rule(self, schema, value, found)
            elif (assertion := _ASSERTIONS.get(keyword)) is not None:
                kinds, holds = assertion
                if isinstance(value, kinds) and not isinstance(value, bool) and not holds(value, required):
                    found.faults.append(Fault((), keyword, required))
        if self._tracks:
            _unevaluated(self, schema, value, found)
        return found

    def apply(self, schema: JsonValue, value: JsonValue, found: _Found) -> bool:
        """Apply a schema to the same value, and return whether it is valid."""
        outcome = self.outcome(schema, value)
        found.faults += outcome.faults
        self.take(outcome, found)
        return not outcome.faults

    def take(self, outcome: Outcome, found: _Found) -> None:
        """Take over what another schema evaluated of the same value."""
        if outcome.evaluated:
            self.spend(len(outcome.evaluated) // 8)
            found.evaluated |= outcome.evaluated

    def apply_inside(self, schema: JsonValue, value: JsonValue, step: str | int, found: _Found) -> None:
        """Apply a schema to a value inside."""
        if len(found.faults) < MAX_FAULTS:
            for fault in self.outcome(schema, value).faults:
                found.faults.append(fault._replace(path=(step, *fault.path)))
        if self._tracks:
            found.evaluated.add(step)

    def matches(self, pattern: str, text: str) -> bool | None:
        """Return whether a pattern is found in a text; None if RE2 cannot read it."""
        if pattern not in self._patterns:
            if len(self._patterns) == _MAX_PATTERNS:
                self._patterns.clear()
            self._patterns[pattern] = _compiled(pattern)
            self.spend(1 + self._patterns[pattern].instructions // _INSTRUCTIONS_PER_STEP)
        regexp, instructions = self._patterns[pattern]
        if regexp is None:
            return None
        encoded = text.encode(errors="surrogatepass")
        self.spend(2 + len(encoded) * instructions // _BYTES_AND_INSTRUCTIONS_PER_STEP)
        return regexp.search(text) is not None

    def resolved(self, reference: JsonValue) -> JsonValue:
        """Return the schema that a reference leads to."""
        return self._schema.target(reference)

    def comparable(self, value: JsonValue) -> Any:
        """Return a value that is equal for equal JSON only."""
        self.spend(_size(value))
        return comparable(value)

    def members(self, members: list[JsonValue]) -> frozenset[Any]:
        """Return the values of an enum, to compare with."""
        if id(members) not in self._members:
            self.spend(_size(members))
            self._members[id(members)] = frozenset(map(comparable, members))
        return self._members[id(members)]

    def parsed(self, text: str) -> JsonValue:
        """Parse JSON inside a text, and keep it; raises ValueError."""
        self.spend(len(text) // _CHARACTERS_PER_STEP)
        value: JsonValue = json.loads(text, parse_constant=_finite, parse_float=_finite)
        self._parsed.append(value)
        return value


def _finite(number: str) -> float:
    """Read a number as the answer's own are read; raises ValueError for NaN and what is too large for a float."""
    if not math.isfinite(value := float(number)):
        raise ValueError(number)
    return value


def _has_unevaluated(schemas: Iterable[JsonValue]) -> bool:
    waiting = [*schemas]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "unevaluatedProperties" in value or "unevaluatedItems" in value:
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


# ---- Assertions ----


def _is_multiple(value: float, of: float) -> bool:
    """Compare as decimals: 19.99 is a multiple of 0.01, although the nearest floats are not."""
    return (Fraction(str(value)) / Fraction(str(of))).denominator == 1


_NUMBER: Final = (int, float)
_ASSERTIONS: Final[dict[str, tuple[Any, Callable[[Any, Any], bool]]]] = {
    "minimum": (_NUMBER, lambda value, bound: value >= bound),
    "maximum": (_NUMBER, lambda value, bound: value <= bound),
    "exclusiveMinimum": (_NUMBER, lambda value, bound: value > bound),
    "exclusiveMaximum": (_NUMBER, lambda value, bound: value < bound),
    "multipleOf": (_NUMBER, _is_multiple),
    "minLength": (str, lambda value, bound: len(value) >= bound),
    "maxLength": (str, lambda value, bound: len(value) <= bound),
    "minItems": (list, lambda value, bound: len(value) >= bound),
    "maxItems": (list, lambda value, bound: len(value) <= bound),
    "minProperties": (dict, lambda value, bound: len(value) >= bound),
    "maxProperties": (dict, lambda value, bound: len(value) <= bound),
}

_TYPE_CHECKS: Final[dict[str, Callable[[JsonValue], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: (
        not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    ),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _type(_: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    types: Any = schema["type"]
    if not any(_TYPE_CHECKS[kind](value) for kind in (types if isinstance(types, list) else (types,))):
        found.faults.append(Fault((), "type", types))


def comparable(value: JsonValue) -> Any:
    """Return a value that is equal for equal JSON only: true is not 1, and 1.0 is."""
    match value:
        case bool():
            return bool, value  # a type is equal to no JSON value
        case list():
            return tuple(map(comparable, value))
        case dict():
            return frozenset((name, comparable(inner)) for name, inner in value.items())
        case _:
            return value


def _size(value: JsonValue) -> int:
    match value:
        case list():
            return 1 + sum(map(_size, value))
        case dict():
            return 1 + sum(map(_size, value.values()))
        case str():
            return 1 + len(value) // _CHARACTERS_PER_STEP
        case _:
            return 1


def _enum(run: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    members: Any = schema["enum"]
    if run.comparable(value) not in run.members(members):
        found.faults.append(Fault((), "enum", members))


def _const(run: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    if run.comparable(schema["const"]) != run.comparable(value):
        found.faults.append(Fault((), "const", schema["const"]))


def _pattern(run: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    pattern = str(schema["pattern"])
    if isinstance(value, str) and run.matches(pattern, value) is False:
        found.faults.append(Fault((), "pattern", pattern))


def _format(run: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    name = str(schema["format"])
    if not isinstance(value, str) or (name in WITH_OFFSET and "pattern" in schema):
        return
    run.spend(1 + len(value) // _CHARACTERS_PER_STEP)
    if name in CHECKS and not CHECKS[name](value):
        found.faults.append(Fault((), "offset" if lacks_offset(name, value) else "format", name))


def _required(_: Evaluation, schema: JsonSchema, value: Any, found: _Found) -> None:
    names: Any = schema["required"]
    if isinstance(value, dict) and (missing := [name for name in names if name not in value]):
        found.faults.append(Fault((), "required", missing))


def _dependent_required(_: Evaluation, schema: JsonSchema, value: Any, found: _Found) -> None:
    dependents: Any = schema["dependentRequired"]
    for name, others in dependents.items() if isinstance(value, dict) else ():
        if name in value and (missing := [other for other in others if other not in value]):
            found.faults.append(Fault((), "required", missing))


def _unique_items(run: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    if schema["uniqueItems"] is True and isinstance(value, list):
        own = run.comparable(value)
        if len(set(own)) < len(own):
            found.faults.append(Fault((), "uniqueItems", schema["uniqueItems"]))


# ---- Schemas for the same value ----


def _ref(run: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    run.apply(run.resolved(schema["$ref"]), value, found)


def _all_of(run: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    branches: Any = schema["allOf"]
    for branch in branches:
        run.apply(branch, value, found)


def _any_of(run: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    outcomes: list[Outcome] = []
    branches: Any = schema["anyOf"]
    for branch in branches:
        outcome = run.outcome(branch, value)
        outcomes.append(outcome)
        if not outcome.faults:
            run.take(outcome, found)
            if not run._tracks:  # noqa: SLF001 (the rules are part of the evaluation)
                return
    if all(outcome.faults for outcome in outcomes):
        found.faults += _nearest(outcomes, "anyOf")


def _one_of(run: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    branches: Any = schema["oneOf"]
    outcomes = [run.outcome(branch, value) for branch in branches]
    valid = [outcome for outcome in outcomes if not outcome.faults]
    if not valid:
        found.faults += _nearest(outcomes, "oneOf")
    elif len(valid) > 1:
        found.faults.append(Fault((), "oneOf", None))
    else:
        run.take(valid[0], found)


def _nearest(outcomes: Sequence[Outcome], keyword: str) -> Sequence[Fault]:
    """Return the faults of the alternative that the value is nearest to, or what the alternatives are told apart by."""
    ranks = [_rank(outcome.faults) for outcome in outcomes]
    best = min(ranks)
    tied = [outcome.faults for outcome, rank in zip(outcomes, ranks, strict=True) if rank[:2] == best[:2]]
    first = outcomes[ranks.index(best)].faults
    if len(tied) == 1 or best[:2] == (0, 0):
        return first
    distinctive = [next(fault for fault in faults if _is_distinctive(fault) or fault.keyword == "false")
                   for faults in tied]  # fmt: skip
    paths = {fault.path for fault in distinctive}
    keywords = {"enum" if fault.keyword == "const" else fault.keyword for fault in distinctive}
    if len(paths) > 1 or len(keywords) > 1 or keywords == {"false"}:
        return (Fault((), keyword, None),)
    required: list[JsonValue] = []
    for fault in distinctive:
        values = fault.required if fault.keyword != "const" and isinstance(fault.required, list) else [fault.required]
        required += [each for each in values if each not in required]
    return (Fault(distinctive[0].path, keywords.pop(), required),)


def _rank(faults: Sequence[Fault]) -> tuple[int, int, int]:
    """Rank an alternative by how far the value is from it: another type, another kind of object, or a wrong part."""
    is_other_type = any(fault.path == () and fault.keyword in ("type", "false") for fault in faults)
    return int(is_other_type), int(any(map(_is_distinctive, faults))), len(faults)


def _is_distinctive(fault: Fault) -> bool:
    if fault.path == ():
        return fault.keyword in ("type", "enum", "const")
    return len(fault.path) == 1 and fault.keyword in ("enum", "const")


def _not(run: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    if not run.outcome(schema["not"], value).faults:
        found.faults.append(Fault((), "not", None))


def _if(run: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    outcome = run.outcome(schema["if"], value)
    if not outcome.faults:
        run.take(outcome, found)
    branch = "else" if outcome.faults else "then"
    if branch in schema:
        run.apply(schema[branch], value, found)


def _dependent_schemas(run: Evaluation, schema: JsonSchema, value: Any, found: _Found) -> None:
    dependents: Any = schema["dependentSchemas"]
    for name, inner in dependents.items() if isinstance(value, dict) else ():
        if name in value:
            run.apply(inner, value, found)


def _content_schema(run: Evaluation, schema: JsonSchema, value: JsonValue, found: _Found) -> None:
    is_json = schema.get("contentMediaType") == "application/json" and "contentEncoding" not in schema
    if not isinstance(value, str) or not is_json:
        return
    try:
        parsed = run.parsed(value)
    except (ValueError, RecursionError):
        found.faults.append(Fault((), "contentSchema", None))
        return
    found.faults += run.outcome(schema["contentSchema"], parsed).faults


# ---- Schemas for values inside ----


def _properties(run: Evaluation, schema: JsonSchema, value: Any, found: _Found) -> None:
    properties: Any = schema["properties"]
    run.spend(len(properties) // 8)
    for name, inner in properties.items() if isinstance(value, dict) else ():
        if name in value:
            run.apply_inside(inner, value[name], name, found)


def _pattern_properties(run: Evaluation, schema: JsonSchema, value: Any, found: _Found) -> None:
    patterns: Any = schema["patternProperties"]
    for pattern, inner in patterns.items() if isinstance(value, dict) else ():
        for name, each in value.items():
            if run.matches(pattern, name):
                run.apply_inside(inner, each, name, found)


def _additional_properties(run: Evaluation, schema: JsonSchema, value: Any, found: _Found) -> None:
    if not isinstance(value, dict):
        return
    named: Any = schema.get("properties", {})
    patterns: Any = schema.get("patternProperties", {})
    inner = schema["additionalProperties"]
    run.spend(len(value) // 8)
    for name, each in value.items():
        if name in named or any(run.matches(pattern, name) is not False for pattern in patterns):
            continue
        if inner is False:
            found.faults.append(Fault((), "additionalProperties", inner))
            return
        run.apply_inside(inner, each, name, found)


def _property_names(run: Evaluation, schema: JsonSchema, value: Any, found: _Found) -> None:
    for name in value if isinstance(value, dict) else ():
        if len(found.faults) < MAX_FAULTS and (faults := run.outcome(schema["propertyNames"], name).faults):
            found.faults.append(faults[0]._replace(path=(name,), keyword="propertyNames", required=None))


def _prefix_items(run: Evaluation, schema: JsonSchema, value: Any, found: _Found) -> None:
    prefix: Any = schema["prefixItems"]
    for number, (inner, each) in enumerate(zip(prefix, value, strict=False)) if isinstance(value, list) else ():
        run.apply_inside(inner, each, number, found)


def _items(run: Evaluation, schema: JsonSchema, value: Any, found: _Found) -> None:
    prefix: Any = schema.get("prefixItems", [])
    inner = schema["items"]
    if isinstance(value, list) and inner is False and len(value) > len(prefix):
        found.faults.append(Fault((), "maxItems", len(prefix)))
    elif isinstance(value, list):
        for number in range(len(prefix), len(value)):
            run.apply_inside(inner, value[number], number, found)


def _contains(run: Evaluation, schema: JsonSchema, value: Any, found: _Found) -> None:
    if not isinstance(value, list):
        return
    matching = [number for number, each in enumerate(value) if not run.outcome(schema["contains"], each).faults]
    least: Any = schema.get("minContains", 1)
    most: Any = schema.get("maxContains", len(value))
    if len(matching) < least:
        found.faults.append(Fault((), "contains", None))
    elif len(matching) > most:
        found.faults.append(Fault((), "maxContains", most))
    found.evaluated |= {*matching}


def _unevaluated(run: Evaluation, schema: JsonSchema, value: Any, found: _Found) -> None:
    keyword, steps = (
        ("unevaluatedProperties", list(value))
        if isinstance(value, dict)
        else ("unevaluatedItems", list(range(len(value) if isinstance(value, list) else 0)))
    )
    if keyword in schema:
        run.spend(len(steps))
        for step in steps:
            if step not in found.evaluated:
                each = value[step]
                run.apply_inside(schema[keyword], each, step, found)


_RULES: Final[dict[str, Callable[[Evaluation, JsonSchema, JsonValue, _Found], None]]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "pattern": _pattern,
    "format": _format,
    "required": _required,
    "dependentRequired": _dependent_required,
    "uniqueItems": _unique_items,
    "$ref": _ref,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "dependentSchemas": _dependent_schemas,
    "contentSchema": _content_schema,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "propertyNames": _property_names,
    "prefixItems": _prefix_items,
    "items": _items,
    "contains": _contains,
}
