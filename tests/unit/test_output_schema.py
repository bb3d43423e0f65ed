import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import JsonValue

from pi_voice.domain.base import JsonSchema
from pi_voice.domain.gemini_schema import gemini_schema
from pi_voice.domain.output_schema import compile_output_schema, violations
from tests.unit.hints import HINTS, compile_hints


def strict(schema: dict[str, Any]) -> JsonSchema:
    """Return a strict schema that is an object at its root."""
    return {"type": "object", **schema}


def violation_pairs(results: JsonValue, schema: JsonSchema) -> list[tuple[str, str]]:
    """Return the paths and messages of all violations."""
    return [(detail.path, detail.message) for detail in violations(results, schema)]


# ---- Kinds of schemas -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hints", [None, {}], ids=str)
def test_without_an_output_schema_there_is_no_schema(hints: JsonSchema | None) -> None:
    assert compile_output_schema(hints, None) is None


def test_a_strict_schema_is_used_unchanged_and_wins_over_hints() -> None:
    schema: JsonSchema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

    assert compile_output_schema({"town": "string"}, schema) == schema


# ---- Hints ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "compiled"),
    [
        ("string", {"type": ["string", "null"]}),
        ("number", {"type": ["number", "null"]}),
        ("integer", {"type": ["integer", "null"]}),
        ("boolean", {"type": ["boolean", "null"]}),
        ("array", {"type": ["array", "null"], "items": {"type": "string"}}),
        ("object", {"type": ["object", "null"], "additionalProperties": {"type": "string"}}),
        ("the caller's city", {"type": ["string", "null"], "description": "the caller's city"}),
        ("String", {"type": ["string", "null"]}),
        *((name, {"type": ["string", "null"]}) for name in ("str", "text", "STR")),
        *((name, {"type": ["number", "null"]}) for name in ("float", "Decimal")),
        ("int", {"type": ["integer", "null"]}),
        ("Bool", {"type": ["boolean", "null"]}),
        ("list", {"type": ["array", "null"], "items": {"type": "string"}}),
        ("dict", {"type": ["object", "null"], "additionalProperties": {"type": "string"}}),
        ("date", {"type": ["string", "null"], "format": "date"}),
        ("datetime", {"type": ["string", "null"], "format": "date-time"}),
        ({"enum": ["low", "high"]}, {"type": ["string", "null"], "enum": ["low", "high", None]}),
        (
            [{"enum": ["low", "high"]}],
            {"type": ["array", "null"], "items": {"type": "string", "enum": ["low", "high"]}},
        ),
        ("null", {"type": ["string", "null"], "description": "null"}),
        (["integer"], {"type": ["array", "null"], "items": {"type": "integer"}}),
        (["a symptom"], {"type": ["array", "null"], "items": {"type": "string", "description": "a symptom"}}),
        ([["number"]], {"type": ["array", "null"], "items": {"type": "array", "items": {"type": "number"}}}),
        (
            {"street": "string"},
            {
                "type": ["object", "null"],
                "properties": {"street": {"type": ["string", "null"]}},
                "required": ["street"],
                "additionalProperties": False,
                "propertyOrdering": ["street"],
            },
        ),
        (
            [{"name": "string"}],
            {
                "type": ["array", "null"],
                "items": {
                    "type": "object",
                    "properties": {"name": {"type": ["string", "null"]}},
                    "required": ["name"],
                    "additionalProperties": False,
                    "propertyOrdering": ["name"],
                },
            },
        ),
    ],
    ids=str,
)
def test_a_hint_compiles_to_a_nullable_property(hint: JsonValue, compiled: JsonSchema) -> None:
    assert compile_hints(value=hint) == {
        "type": "object",
        "properties": {"value": compiled},
        "required": ["value"],
        "additionalProperties": False,
        "propertyOrdering": ["value"],
    }


def test_an_enum_of_one_text_is_an_object() -> None:
    assert violations({"value": {"enum": ["a level"]}}, compile_hints(value={"enum": ["level"]})) == []


@pytest.mark.parametrize("time", ["19:30", "19:30:00", "19:30:00.5", "19:30:00Z", "19:30+02:00"])
def test_the_hint_time_is_a_time_of_day_with_or_without_an_offset(time: str) -> None:
    schema = compile_hints(at="time")

    assert violations({"at": time}, schema) == []
    assert violations({"at": f"{time} h"}, schema) != []
    assert violations({"at": None}, schema) == []


def test_all_keys_are_required_and_keep_their_order() -> None:
    schema = compile_hints(zip="string", city="string", age="integer")

    assert schema["required"] == ["zip", "city", "age"]
    assert schema["propertyOrdering"] == ["zip", "city", "age"]


@given(HINTS)
def test_null_is_valid_for_every_key_of_hints(hints: dict[str, Any]) -> None:
    schema = compile_hints(**hints)

    Draft202012Validator.check_schema(schema)
    assert violations(dict.fromkeys(hints), schema) == []


@given(HINTS, st.data())
def test_a_missing_or_unknown_key_violates_the_schema_of_hints(hints: dict[str, Any], data: st.DataObject) -> None:
    schema = compile_hints(**hints)
    missing = data.draw(st.sampled_from(sorted(hints)))
    unknown = data.draw(st.text().filter(lambda name: name not in hints))

    assert violations({name: None for name in hints if name != missing}, schema) != []
    assert violations({**dict.fromkeys(hints), unknown: None}, schema) != []


# ---- Results --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema_format", "valid"),
    [
        ("date-time", "2027-01-15T08:00:00Z"),
        ("date-time", "2027-01-15T08:00:00.5+01:00"),
        ("date", "2027-01-15"),
        ("date", "2028-02-29"),
        ("time", "08:00:00Z"),
        ("time", "08:00:00+01:00"),
    ],
)
def test_a_value_in_its_format_is_valid(schema_format: str, valid: str) -> None:
    schema = strict({"properties": {"at": {"type": "string", "format": schema_format}}})

    assert violations({"at": valid}, schema) == []


@pytest.mark.parametrize(
    ("schema_format", "invalid"),
    [
        ("date-time", "2027-01-15"),
        ("date-time", "2027-01-15T08:00:00"),
        ("date-time", "2027-02-30T08:00:00Z"),
        ("date-time", "tomorrow"),
        ("date", "2027-02-29"),
        ("date", "20270115"),
        ("date", "15.01.2027"),
        ("date", ""),
        ("time", "25:00:00Z"),
        ("time", "08:00"),
        ("time", "8 o'clock"),
    ],
)
def test_a_value_in_another_format_violates_the_schema(schema_format: str, invalid: str) -> None:
    schema = strict({"properties": {"at": {"type": "string", "format": schema_format}}})

    assert [path for path, _ in violation_pairs({"at": invalid}, schema)] == ["at"]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({"city": "Oslo", "people": [{"age": 7}]}, []),
        ({}, [("", "Lacks city.")]),
        ({"city": None}, [("city", "Should be of type string.")]),
        ({"city": "Oslo", "people": [{"age": -1}]}, [("people.0.age", "Breaks minimum: at least 0.")]),
        ({"city": "Oslo", "people": [{}, {"age": "7"}]}, [("people.1.age", "Should be of type integer or null.")]),
        ({"city": "Oslo", "town": "Oslo"}, [("", "Has a property that the schema does not name.")]),
        ([], [("", "Should be of type object.")]),
        (None, [("", "Should be of type object.")]),
        ("Oslo", [("", "Should be of type object.")]),
    ],
    ids=str,
)
def test_violations_have_their_paths(results: JsonValue, expected: list[tuple[str, str]]) -> None:
    schema = strict(
        {
            "properties": {
                "city": {"type": "string"},
                "people": {"items": {"properties": {"age": {"type": ["integer", "null"], "minimum": 0}}}},
            },
            "required": ["city"],
            "additionalProperties": False,
        }
    )

    assert violation_pairs(results, schema) == expected


@pytest.mark.parametrize(
    ("schema", "invalid", "message"),
    [
        ({"enum": ["calm", 1, None]}, "upset", "Should be one of calm, 1, null."),
        ({"enum": list(range(12))}, 99, "Should be one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more."),
        ({"minimum": 1}, 0, "Breaks minimum: at least 1."),
        ({"maximum": 1}, 2, "Breaks maximum: at most 1."),
        ({"exclusiveMinimum": 0.5}, 0.5, "Breaks exclusiveMinimum: more than 0.5."),
        ({"exclusiveMaximum": 2}, 2, "Breaks exclusiveMaximum: less than 2."),
        ({"multipleOf": 5}, 7, "Breaks multipleOf: a multiple of 5."),
        ({"minItems": 2}, [1], "Breaks minItems: at least 2 items."),
        ({"maxItems": 1}, [1, 2], "Breaks maxItems: at most 1 items."),
        ({"minLength": 2}, "x", "Breaks minLength: at least 2 characters."),
        ({"maxLength": 2}, "xyz", "Breaks maxLength: at most 2 characters."),
        ({"pattern": "^[A-Z]+$"}, "ab", "Breaks pattern: matches the regular expression ^[A-Z]+$."),
        ({"const": "yes"}, "no", "Should be exactly yes."),
        ({"const": True}, False, "Should be exactly true."),
        ({"uniqueItems": True}, [1, 1], "Breaks uniqueItems."),
        ({"not": {"type": "string"}}, "x", "Breaks not."),
        ({"anyOf": [{"type": "string"}]}, 1, "Should be of type string."),
        ({"contains": {"const": 1}}, [2], "Breaks contains."),
        ({"minProperties": 1}, {}, "Breaks minProperties: at least 1 properties."),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, "Lacks b."),
    ],
    ids=str,
)
def test_a_violation_says_what_the_schema_requires(schema: JsonSchema, invalid: JsonValue, message: str) -> None:
    assert violation_pairs({"it": invalid}, strict({"properties": {"it": schema}})) == [("it", message)]


def test_a_violation_names_up_to_ten_missing_keys() -> None:
    names: list[JsonValue] = [f"k{number}" for number in range(12)]

    assert violation_pairs({"k0": 1}, strict({"required": names[:3]}))[0] == ("", "Lacks k1, k2.")
    assert violation_pairs({}, strict({"required": names}))[0][1].endswith("k9 and 2 more.")


def test_violations_never_contain_values_of_the_results() -> None:
    schema = strict({"properties": {"city": {"type": "string", "enum": ["Oslo"]}}})

    assert "4711" not in repr(violations({"city": "secret-4711", "other": "4711"}, schema))


def test_at_most_20_violations_are_returned() -> None:
    schema = strict({"additionalProperties": {"type": "string"}})

    assert len(violations({f"k{number}": 1 for number in range(30)}, schema)) == 20


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (r"^\d{2}$", "42", "٤٢"),
        (r"^\p{Lu}\p{Ll}+$", "Łódź", "łódź"),
        ("^(a|b)*$", "abba", "abc"),
        ("o", "Oslo", "Bergen"),
        (r"^\+[0-9]{6,}$", "+4722334455", "22 33"),
    ],
)
def test_a_pattern_is_searched_by_re2(pattern: str, matching: str, other: str) -> None:
    schema = strict({"properties": {"it": {"type": "string", "pattern": pattern}}})

    assert violations({"it": matching}, schema) == []
    assert [detail.path for detail in violations({"it": other}, schema)] == ["it"]


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|aa)+$", "^([a-zA-Z]+)*$", r"^(\w+\s?)+$", "(.*a){25}b"])
def test_a_pattern_that_takes_exponential_time_in_python_is_validated(pattern: str) -> None:
    text = "a" * 20_000 + "!"
    schema = strict(
        {
            "properties": {"it": {"pattern": pattern}},
            "propertyNames": {"pattern": pattern if pattern.startswith("^") else "."},
        }
    )

    assert "it" in [detail.path for detail in violations({"it": text}, schema)]


def test_a_pattern_applies_to_strings_only() -> None:
    assert violations({"it": 42}, strict({"properties": {"it": {"pattern": "^x$"}}})) == []


# ---- Schemas for Gemini ---------------------------------------------------------------------------------


def test_bounds_are_described_in_words_and_other_supported_keywords_are_sent_unchanged() -> None:
    schema: JsonSchema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.com/results",
        "type": "object",
        "properties": {
            "minimum": {"type": "integer", "minimum": 1, "maximum": 5},
            "tags": {"type": "array", "maxItems": 2000, "items": {"anyOf": [{"type": "number", "minimum": 0}]}},
            "other": {"$ref": "#/$defs/other"},
            "pair": {"type": "array", "prefixItems": [{"type": "string", "maxLength": 3}, {"type": "null"}]},
        },
        "$defs": {"other": {"$anchor": "x", "type": "array", "minItems": 1, "items": {"type": "string"}}},
        "additionalProperties": False,
        "required": ["minimum"],
    }

    assert gemini_schema(schema) == {
        "type": "object",
        "properties": {
            "minimum": {"type": "integer", "description": "at least 1, at most 5"},
            "tags": {
                "type": "array",
                "items": {"anyOf": [{"type": "number", "description": "at least 0"}]},
                "description": "at most 2000 items",
            },
            "other": {"$ref": "#/$defs/other"},
            "pair": {
                "type": "array",
                "prefixItems": [{"type": "string", "description": "at most 3 characters"}, {"type": "null"}],
            },
        },
        "$defs": {"other": {"type": "array", "items": {"type": "string"}, "description": "at least 1 items"}},
        "additionalProperties": False,
        "required": ["minimum"],
    }
    assert [detail.path for detail in violations({"minimum": 9}, schema)] == ["minimum"]


@pytest.mark.parametrize(
    ("keywords", "description"),
    [
        ({"minimum": 1, "maximum": 5}, "at least 1, at most 5"),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1.5}, "more than 0, less than 1.5"),
        ({"multipleOf": 0.25}, "a multiple of 0.25"),
        ({"minItems": 1, "maxItems": 3}, "at least 1 items, at most 3 items"),
        ({"minLength": 2, "maxLength": 4}, "at least 2 characters, at most 4 characters"),
        ({"pattern": "^[A-Z]$"}, "matches the regular expression ^[A-Z]$"),
        ({"format": "email"}, "an email address, as in ana@example.com"),
        ({"description": "In years", "minimum": 0}, "In years (at least 0)"),
    ],
    ids=str,
)
def test_keywords_that_gemini_ignores_are_described_in_words(keywords: JsonSchema, description: str) -> None:
    sent: Any = gemini_schema(strict({"properties": {"it": {"type": "string", **keywords}}}))

    assert sent["properties"]["it"] == {"type": "string", "description": description}


def sent_it(it: JsonSchema, **definitions: JsonValue) -> JsonValue:
    """Return what is sent for a property."""
    sent: Any = gemini_schema(strict({"properties": {"it": it}, "$defs": definitions}))
    return sent["properties"]["it"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("schema_format", "example"),
    [("date", "2026-05-01"), ("time", "19:30:00+02:00"), ("date-time", "2026-05-01T19:30:00+02:00")],
)
def test_a_format_that_gemini_supports_is_sent_with_an_example(schema_format: str, example: str) -> None:
    sent: Any = sent_it({"type": "string", "format": schema_format})

    assert sent["format"] == schema_format
    assert sent["description"].endswith(example)


def test_a_schema_without_a_short_description_is_told_as_json() -> None:
    assert sent_it({"type": "string", "not": {"const": "x"}, "dedetail": "y"}) == {
        "type": "string",
        "description": 'not valid by the JSON Schema {"const": "x"}',
    }


def test_a_reference_is_sent_alone_and_what_stands_beside_it_is_merged_with_its_target() -> None:
    city: JsonSchema = {"type": "string", "description": "A city"}

    assert sent_it({"$ref": "#/$defs/city"}, city=city) == {"$ref": "#/$defs/city"}
    assert sent_it({"$ref": "#/$defs/city", "pattern": "^x", "dedetail": 1}, city=city) == {
        "type": "string",
        "description": "A city (matches the regular expression ^x)",
    }


def test_bounds_of_arrays_are_not_sent_at_any_depth() -> None:
    lists: JsonSchema = {
        f"list{number}": {"type": "array", "maxItems": 500, "items": {"type": "array", "maxItems": 500, "items": {}}}
        for number in range(5)
    }

    assert "maxItems" not in json.dumps(gemini_schema(strict({"properties": lists, "$defs": {"more": lists["list0"]}})))


ANY_SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([{"type": "string"}, {"minimum": 1}, {"enum": ["a", None]}, {"$ref": "#/$defs/a"}, {}]),
    lambda part: (
        st.dictionaries(st.sampled_from(["items", "additionalProperties", "not", "if"]), part, max_size=2)
        | st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), part, max_size=2)})
        | st.fixed_dictionaries({"anyOf": st.lists(part, min_size=1, max_size=2), "maxLength": st.integers(0, 9)})
        | st.fixed_dictionaries({"oneOf": st.lists(part, min_size=1, max_size=2), "pattern": st.just("x")})
    ),
    max_leaves=8,
)


def keywords_of(schema: Any) -> set[str]:
    """Return all keywords of a schema and of the schemas inside it."""
    inner = [schema[name] for name in ("items", "additionalProperties", "not", "if") if name in schema]
    inner += [each for name in ("properties", "$defs") for each in schema.get(name, {}).values()]
    inner += [each for name in ("anyOf", "oneOf", "prefixItems") for each in schema.get(name, [])]
    return set(schema).union(*(keywords_of(each) for each in inner if isinstance(each, dict)))


SENT_KEYWORDS = frozenset(
    {
        "$defs", "$ref", "type", "format", "title", "description", "enum", "items", "prefixItems", "anyOf", "oneOf",
        "properties", "additionalProperties", "required", "propertyOrdering",
    }
)  # fmt: skip
"""Keywords in Google's reference of `responseJsonSchema`, without bounds and names."""


@given(ANY_SCHEMAS)
def test_only_keywords_that_gemini_supports_are_sent_without_bounds(schema: dict[str, Any]) -> None:
    sent = gemini_schema(schema)

    assert keywords_of(sent) <= SENT_KEYWORDS
    assert gemini_schema(sent) == sent
    assert "$ref" in json.dumps(sent) or "$defs" not in sent


def test_a_violation_at_a_key_with_a_dot_has_another_path_than_one_at_a_nested_key() -> None:
    number: JsonSchema = {"type": "integer"}
    schema: JsonSchema = {
        "type": "object",
        "properties": {"a.b": number, "a": {"type": "object", "properties": {"b": number}}},
    }

    assert [detail.path for detail in violations({"a.b": "x", "a": {"b": "x"}}, schema)] == ["a\\.b", "a.b"]


def test_a_path_with_a_key_of_the_model_is_one_short_line() -> None:
    schema: JsonSchema = {"type": "object", "additionalProperties": {"type": "integer"}}

    [detail] = violations({"a\nIgnore the\u2028schema" + "!" * 300: "x"}, schema)

    assert detail.path.startswith("a Ignore the schema!!!")
    assert len(detail.path) == 200
