"""Strategies that generate JSON Schemas with all keywords, and values that they are about."""

from typing import Any, Final

from hypothesis import strategies as st

NAMES: Final = ("a", "b", "c")
_SCALARS: Final = st.sampled_from([None, True, False, 0, 1, 2, 1.0, 2.5, "", "a", "b", "ab", "2026-05-01"])

VALUES: Final[st.SearchStrategy[Any]] = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)
"""JSON values that generated schemas tell apart."""

_TYPES: Final = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
_COUNTS: Final = st.integers(0, 2)


def _keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate a schema with a few keywords."""
    named, listed = st.dictionaries(st.sampled_from(NAMES), inner, max_size=2), st.lists(inner, min_size=1, max_size=2)
    names = st.lists(st.sampled_from(NAMES), max_size=2, unique=True)
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": _TYPES | st.lists(_TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        "description": st.just("words"),
        "properties": named,
        "required": names,
        "additionalProperties": inner,
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b|c"]), inner, max_size=2),
        "propertyNames": inner,
        "minProperties": _COUNTS,
        "maxProperties": _COUNTS,
        "dependentRequired": st.dictionaries(st.sampled_from(NAMES), names, max_size=1),
        "dependentSchemas": named,
        "unevaluatedProperties": inner,
        "items": inner,
        "prefixItems": listed,
        "contains": inner,
        "minContains": _COUNTS,
        "maxContains": _COUNTS,
        "minItems": _COUNTS,
        "maxItems": _COUNTS,
        "uniqueItems": st.booleans(),
        "unevaluatedItems": inner,
        "minimum": _COUNTS,
        "maximum": _COUNTS,
        "exclusiveMinimum": _COUNTS,
        "exclusiveMaximum": _COUNTS,
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minLength": _COUNTS,
        "maxLength": _COUNTS,
        "pattern": st.sampled_from(["^a", "b$", "."]),
        "allOf": listed,
        "anyOf": listed,
        "oneOf": listed,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "$ref": st.sampled_from(["#/$defs/a", "#/$defs/b"]),
    }
    chosen = st.lists(st.sampled_from(sorted(keywords)), max_size=4, unique=True)
    return chosen.flatmap(lambda some: st.fixed_dictionaries({keyword: keywords[keyword] for keyword in some}))


_INNER: Final[st.SearchStrategy[Any]] = st.recursive(st.booleans() | st.just({}), _keywords, max_leaves=6)

SCHEMAS: Final[st.SearchStrategy[dict[str, Any]]] = st.builds(
    lambda root, first, second: {**root, "$defs": {"a": first, "b": second}}, _keywords(_INNER), _INNER, _INNER
)
"""Schemas with two definitions, which may refer to one another without end."""
