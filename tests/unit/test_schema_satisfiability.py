"""What no value can satisfy is refused where a value is needed, and has a warning elsewhere."""

from typing import Any

import pytest
from hypothesis import given, settings

from pi_voice.domain.errors import SchemaTooComplex
from pi_voice.domain.schema_evaluation import Evaluation
from pi_voice.domain.schema_reader import read_schema
from pi_voice.domain.schema_satisfiability import unsatisfiable
from tests.unit.json_schemas import SCHEMAS, VALUES


def pointers(schema: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the pointers of the errors and of the warnings."""
    errors, warnings = unsatisfiable(read_schema({"type": "object", **schema}))
    return [error.pointer for error in errors], [warning.pointer for warning in warnings]


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"enum": []}, "/enum"),
    ({"not": {}}, "/not"),
    ({"not": True}, "/not"),
    ({"type": "integer", "minimum": 10, "maximum": 1}, "/minimum"),
    ({"type": "number", "exclusiveMinimum": 1, "maximum": 1}, "/exclusiveMinimum"),
    ({"type": "number", "minimum": 1, "exclusiveMaximum": 1}, "/minimum"),
    ({"type": "string", "minLength": 2, "maxLength": 1}, "/minLength"),
    ({"type": "array", "minItems": 2, "maxItems": 1}, "/minItems"),
    ({"type": "array", "prefixItems": [{}], "items": False, "minItems": 2}, "/minItems"),
    ({"type": "object", "minProperties": 2, "maxProperties": 1}, "/minProperties"),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "/required"),
    ({"type": "object", "required": ["a"], "properties": {"a": {"enum": []}}}, "/properties/a/enum"),
    ({"type": "object", "required": ["a/b"], "properties": {"a/b": False}}, "/properties/a~1b"),
    ({"type": "array", "items": {"enum": []}, "minItems": 1}, "/items/enum"),
    ({"type": "array", "contains": {"enum": []}}, "/contains/enum"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, ""),
    ({"allOf": [{}, {"enum": []}]}, "/allOf/1/enum"),
    ({"anyOf": [{"enum": []}]}, "/anyOf/0/enum"),
    ({"type": "string", "enum": [1, 2]}, "/enum"),
    ({"type": "string", "enum": ["a", "b"], "minLength": 2}, "/enum"),
    ({"type": "string", "const": "a", "pattern": "^b"}, "/const"),
    ({"type": "integer", "minimum": 0.2, "maximum": 0.8}, "/minimum"),
    ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "/exclusiveMinimum"),
    ({"type": "integer", "minimum": 0, "exclusiveMinimum": 1, "maximum": 1.5}, "/minimum"),
    ({"type": "object", "properties": {"a": {}}, "additionalProperties": False, "minProperties": 2}, "/minProperties"),
    ({"type": "object", "required": ["a", "b"], "maxProperties": 1}, "/maxProperties"),
    ({"type": "array", "contains": {}, "minContains": 2, "maxContains": 1}, "/minContains"),
    ({"type": "array", "contains": {}, "maxItems": 0}, "/contains"),
]


@pytest.mark.parametrize(("it", "pointer"), IMPOSSIBLE, ids=str)
def test_what_nothing_can_satisfy_is_refused_where_a_value_is_required(it: dict[str, Any], pointer: str) -> None:
    assert pointers({"properties": {"it": it}, "required": ["it"]}) == ([f"/properties/it{pointer}"], [])
    referred = {"properties": {"it": {"$ref": "#/$defs/x"}}, "required": ["it"], "$defs": {"x": it}}
    assert pointers(referred) == ([f"/$defs/x{pointer}"], [])


@pytest.mark.parametrize(("it", "pointer"), [each for each in IMPOSSIBLE if each[1] and "~1" not in each[1]], ids=str)
def test_it_is_a_warning_under_an_optional_property_or_in_one_branch(it: dict[str, Any], pointer: str) -> None:
    assert pointers({"properties": {"it": it}}) == ([], [f"/properties/it{pointer}"])
    branches = {"properties": {"it": {"anyOf": [it, {"type": "null"}]}}, "required": ["it"]}
    assert pointers(branches) == ([], [f"/properties/it/anyOf/0{pointer}"])


def test_the_reason_is_searched_for_no_further_than_a_hundred_schemas() -> None:
    chain: dict[str, Any] = {f"l{n}": {"type": "array", "items": {"$ref": f"#/$defs/l{n + 1}"}} for n in range(380)}
    definitions = {name: {**level, "minItems": 1} for name, level in chain.items()}
    it = {"properties": {"it": {"$ref": "#/$defs/l0"}}, "required": ["it"]}
    schema = {**it, "$defs": {**definitions, "l380": {"enum": []}}}

    [pointer] = pointers(schema)[0]
    assert pointer.startswith("/$defs/l")


def test_a_required_name_that_no_property_has_is_a_warning() -> None:
    assert pointers({"properties": {"a": {}}, "required": ["a", "typo"]}) == ([], ["/required"])
    assert pointers({"required": ["anything"]}) == ([], [])
    assert pointers({"properties": {"a": {}}, "required": ["b"], "additionalProperties": {}}) == ([], [])


def test_a_closed_object_may_require_what_a_pattern_describes() -> None:
    schema = {"patternProperties": {"^a": {}}, "required": ["ab"], "additionalProperties": False}

    assert pointers(schema) == ([], [])


@settings(max_examples=300)
@given(SCHEMAS, VALUES)
def test_a_schema_that_some_object_satisfies_is_not_refused(schema: dict[str, Any], value: Any) -> None:
    read = read_schema(schema)
    try:
        is_valid = Evaluation(read).faults(value) == ()
    except SchemaTooComplex:
        return
    errors, _ = unsatisfiable(read)

    assert not (is_valid and isinstance(value, dict) and errors and errors[0].pointer)
