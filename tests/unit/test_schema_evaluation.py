"""Evaluation of values against schemas, and its budget of steps."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from jsonschema import Draft202012Validator

from pi_voice.domain.errors import SchemaTooComplex
from pi_voice.domain.schema_evaluation import Evaluation
from pi_voice.domain.schema_reader import read_schema
from tests.unit.json_schemas import SCHEMAS, VALUES


def faults(schema: dict[str, Any], value: Any) -> list[tuple[Any, ...]]:
    """Return the paths and keywords of the faults of a value."""
    return [(*fault.path, fault.keyword) for fault in Evaluation(read_schema(schema)).faults(value)]


def is_too_complex(schema: dict[str, Any], value: Any) -> bool:
    """Return whether evaluating a value takes more than the budget."""
    try:
        faults(schema, value)
    except SchemaTooComplex:
        return True
    return False


def doubling(keyword: str, levels: int) -> dict[str, Any]:
    """Return a schema in which each definition refers twice to the next."""
    definitions: dict[str, Any] = {
        f"a{level}": {keyword: [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$ref": "#/$defs/a0", "$defs": {**definitions, f"a{levels}": {"type": "object"}}}


@settings(max_examples=400)
@given(SCHEMAS, VALUES)
def test_a_value_is_valid_exactly_if_jsonschema_says_so(schema: dict[str, Any], value: Any) -> None:
    assume(not is_too_complex(schema, value))

    assert (faults(schema, value) == []) is Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("keyword", ["allOf", "anyOf"])
def test_definitions_that_refer_twice_to_the_next_take_no_longer_than_their_size(keyword: str) -> None:
    assert faults(doubling(keyword, 40), {}) == []
    assert faults(doubling(keyword, 40), 1) != []


def test_alternatives_that_are_the_same_both_match() -> None:
    assert faults(doubling("oneOf", 1), {}) == [("oneOf",)]
    assert faults(doubling("oneOf", 40), {}) != []


def test_nested_schemas_that_look_at_unevaluated_properties_take_no_longer_than_their_size() -> None:
    schema: dict[str, Any] = {"properties": {"a": True}}
    for _ in range(20):
        schema = {"allOf": [schema], "unevaluatedProperties": False}

    assert faults(schema, {"a": 1}) == []
    assert ("b", "false") in faults(schema, {"a": 1, "b": 1})


@pytest.mark.parametrize(
    ("items", "values"),
    [
        ({"allOf": [{"pattern": rf"^\pL{{0,20}}N?{number}$"} for number in range(300)]}, ["\u0431" * 20] * 100),
        ({"pattern": "[ab]*a[ab]{600}c|."}, [f"{number:b}".replace("0", "a") * 100 for number in range(1_024, 1_424)]),
        ({"patternProperties": {f"^{number}x": {} for number in range(500)}}, [{f"k{n}": 1} for n in range(3_000)]),
        ({"oneOf": [*({"const": number} for number in range(500)), True]}, list(range(1_000, 9_000))),
    ],
    ids=["many patterns", "one slow pattern", "patterns of names", "alternatives"],
)  # fmt: skip
def test_more_work_than_the_budget_is_refused(items: dict[str, Any], values: list[Any]) -> None:
    assert is_too_complex({"items": items}, values)


def test_a_large_answer_is_within_the_budget() -> None:
    person = {"properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": ["integer", "null"]}}}
    people = [{"name": f"Person {number}", "age": number} for number in range(3_000)]

    assert faults({"items": person, "uniqueItems": True}, people) == []
    assert faults({"items": {"enum": [f"v{n}" for n in range(500)]}}, [f"v{n % 500}" for n in range(9_000)]) == []


def test_the_depth_is_limited_also_where_the_inner_schemas_are_known() -> None:
    chain: dict[str, Any] = {f"a{level}": {"anyOf": [{"$ref": f"#/$defs/a{level + 1}"}]} for level in range(200)}
    schema = read_schema({"$defs": {**chain, "a200": {}}, "$ref": "#/$defs/a0"})
    evaluation = Evaluation(schema)

    assert evaluation.outcome(schema.definitions["a150"], 1).faults == ()
    with pytest.raises(SchemaTooComplex):
        evaluation.faults(1)


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_a_schema_that_refers_to_itself_for_the_same_value_is_refused(keyword: str) -> None:
    assert is_too_complex({keyword: [{"$ref": "#"}]}, 1)


def test_a_dialect_inside_a_schema_changes_nothing_about_patterns() -> None:
    inner = {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^(a+)+$", "minLength": 2}

    assert faults({"properties": {"a": inner}}, {"a": "a" * 5_000 + "!"}) == [("a", "pattern")]
    assert faults({"properties": {"a": {**inner, "pattern": r"^\pL+$"}}}, {"a": "\u0431"}) == [("a", "minLength")]


def test_true_is_equal_to_no_other_value() -> None:
    assert Evaluation(read_schema({"enum": [True]})).faults(["boolean", 1])
    assert Evaluation(read_schema({"uniqueItems": True})).faults([True, 1, ["boolean", True]]) == ()


@pytest.mark.parametrize(("value", "of"), [(19.99, 0.01), (0.07, 0.01), (0.29, 0.01), (1.11, 0.01), (4.35, 0.01),
                                           (0.3, 0.1), (1e308, 0.5), (7, 7.0)])  # fmt: skip
def test_a_multiple_is_one_of_decimals(value: float, of: float) -> None:
    assert faults({"multipleOf": of}, value) == []
    assert faults({"multipleOf": of}, 0.0001) == [("multipleOf",)]


@pytest.mark.parametrize(
    ("schema", "value", "found"),
    [
        ({"anyOf": [{"type": "integer", "maximum": 5}, {"type": "null"}]}, 7, [("maximum",)]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "x", [("type",)]),
        ({"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]}, "x", [("enum",)]),
        ({"anyOf": [{"const": "a"}, {"const": "b"}]}, "x", [("enum",)]),
        ({"anyOf": [{"required": ["a"]}, {"required": ["b", "c"]}]}, {}, [("required",)]),
        ({"anyOf": [False, False]}, {}, [("anyOf",)]),
        ({"anyOf": [{"type": "object", "properties": {"k": {"const": kind}, "n": {"type": "integer"}},
                     "required": ["k", "n"]} for kind in ("x", "y")]}, {"k": "y", "n": "1"}, [("n", "type")]),
        ({"oneOf": [{"properties": {"k": {"const": kind}}} for kind in ("x", "y")]}, {"k": "z"}, [("k", "enum")]),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, 1, [("oneOf",)]),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"properties": {"b": {"minimum": 3}}}]}}}, {"b": 1},
         [("b", "minimum")]),
    ],
    ids=str,
)  # fmt: skip
def test_a_fault_names_the_inner_reason(schema: dict[str, Any], value: Any, found: list[tuple[Any, ...]]) -> None:
    assert faults(schema, value) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', []),
        ('{"a": "x"}', [("a", "type")]),
        ("{", [("contentSchema",)]),
        ("[" * 3_000, [("contentSchema",)]),
        ('{"a": NaN}', [("contentSchema",)]),
        ('{"a": 1e400}', [("contentSchema",)]),
    ],
    ids=["valid", "a wrong type", "not JSON", "nested too deeply", "not a number", "too large"],
)
def test_json_in_a_text_is_held(text: str, found: list[tuple[Any, ...]]) -> None:
    inner = {"type": "object", "properties": {"a": {"type": "integer"}}}
    schema = {"type": "string", "contentMediaType": "application/json", "contentSchema": inner}

    assert faults(schema, text) == found
    assert faults({**schema, "contentEncoding": "base64"}, text) == []


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (r"^\s$", "\u00a0", "x"),
        (r"^[\s,]$", "\u2003", "x"),
        (r"^\S$", "x", "\ufeff"),
        (r"^\u0062\u{63}$", "bc", "uc"),
        (r"^\cC$", "\x03", "\\cC"),
        ("^[^]$", "\n", ""),
        ("^a$", "a", "a\n"),
        (r"^\[\]$", "[]", "["),
    ],
)
def test_a_pattern_is_read_as_in_javascript(pattern: str, matching: str, other: str) -> None:
    assert faults({"pattern": pattern}, matching) == []
    assert faults({"pattern": pattern}, other) == [("pattern",)]


def test_names_are_not_refused_by_a_pattern_that_cannot_be_read() -> None:
    schema = {"patternProperties": {"(?=x)": {"type": "integer"}}, "additionalProperties": False}

    assert faults(schema, {"x": "text"}) == []


@pytest.mark.parametrize(
    ("schema_format", "text"),
    [
        ("email", "joe@"), ("date-time", "2026-05-01T10:00:00Z\n"), ("hostname", "-a"), ("uri", "a b"),
        ("duration", "1h"), ("uri-template", "{"), ("json-pointer", "a"), ("uuid", "x"), ("ipv4", "1.2.3"),
        ("ipv6", "1::2::3"), ("date", "2026-02-30"), ("idn-email", "@"), ("idn-hostname", "\u3002"),
        ("relative-json-pointer", "-1"), ("iri", "\u00e9"), ("date-time", "2016-12-31T22:59:60Z"),
    ],
)  # fmt: skip
def test_a_format_is_held(schema_format: str, text: str) -> None:
    assert faults({"format": schema_format}, text) == [("format",)]


def test_a_leap_second_is_a_time() -> None:
    assert faults({"format": "date-time"}, "2016-12-31T23:59:60Z") == []
    assert faults({"format": "time"}, "01:59:60+02:00") == []


def test_a_time_without_an_offset_is_told_apart_unless_a_pattern_decides() -> None:
    assert faults({"format": "time"}, "14:30:00") == [("offset",)]
    assert faults({"format": "date-time"}, "2026-05-01T14:30:00") == [("offset",)]
    assert faults({"format": "time", "pattern": "^..:..:..$"}, "14:30:00") == []
