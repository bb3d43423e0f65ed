"""What is sent to Gemini for a schema: nothing that the schema allows is forbidden, and nothing is lost in silence."""

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from jsonschema import Draft202012Validator

from pi_voice.domain.errors import InvalidOutputSchema, SchemaTooComplex
from pi_voice.domain.evidence import with_evidence
from pi_voice.domain.gemini_schema import SENT_KEYWORDS, gemini_schema
from pi_voice.domain.output_schema import violations
from pi_voice.domain.output_schema_validation import validate_output_schema
from pi_voice.domain.schema_evaluation import Evaluation
from pi_voice.domain.schema_reader import read_schema
from tests.unit.json_schemas import SCHEMAS, VALUES


def sent_for(it: Any, **definitions: Any) -> Any:
    """Return what is sent for a property of the results."""
    return gemini_schema({"properties": {"it": it}, "$defs": definitions})["properties"]["it"]  # type: ignore[call-overload,index]


@settings(max_examples=500)
@given(SCHEMAS, VALUES)
def test_what_is_valid_by_a_schema_is_valid_by_what_is_sent(schema: dict[str, Any], value: Any) -> None:
    document: dict[str, Any] = {
        "type": "object",
        "properties": {"it": {"$id": "urn:it", **schema}},
        "required": ["it"],
        "additionalProperties": False,
    }
    try:
        validate_output_schema(None, document)
        details = violations({"it": value}, document)
    except (InvalidOutputSchema, SchemaTooComplex):
        assume(False)
    assume(not details)
    sent = gemini_schema(document)

    pairs: list[tuple[Any, Any]] = [({"it": value}, sent)]
    pairs.append(({"results": {"it": value}, "evidence": []}, with_evidence(sent)))
    for answer, asked in pairs:
        Draft202012Validator.check_schema(asked)
        assert Draft202012Validator(asked).is_valid(answer)
        assert Evaluation(read_schema(asked)).faults(answer) == ()


@pytest.mark.parametrize(
    ("it", "sent"),
    [
        ({"const": "booked"}, {"type": "string", "enum": ["booked"]}),
        ({"const": 7, "type": "number"}, {"type": "number", "enum": [7]}),
        ({"const": None}, {"type": "null"}),
        ({"const": True}, {"type": "boolean", "description": "exactly true"}),
        ({"enum": [True, False]}, {"type": "boolean"}),
        ({"enum": ["a", None]}, {"type": ["string", "null"], "enum": ["a", None]}),
        (
            {"enum": [True, "unknown"]},
            {"anyOf": [{"enum": ["unknown"]}, {"type": "boolean"}], "description": 'one of true, "unknown"'},
        ),
        ({"allOf": [{"type": "string"}, {"enum": ["a"]}]}, {"type": "string", "enum": ["a"]}),
        ({"type": "number", "allOf": [{"type": "integer"}]}, {"type": "integer"}),
        ({"title": "It", "type": "string"}, {"type": "string"}),
        ({"type": "array", "items": True}, {"type": "array", "items": {}}),
        ({"type": "array", "uniqueItems": True}, {"type": "array", "description": "no item twice"}),
        (
            {"type": "array", "contains": {"const": 1}, "minContains": 2, "maxContains": 3},
            {
                "type": "array",
                "description": 'with items that are valid by the JSON Schema {"const": 1}, '
                "at least 2 of these items, at most 3 of these items",
            },
        ),
        (
            {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
            {"type": "array", "prefixItems": [{"type": "string"}], "description": "at most 1 items"},
        ),
        (
            {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "number"}},
            {"type": "object", "additionalProperties": {"type": "number"}, "description": "property names are a, b"},
        ),
        (
            {"type": "object", "propertyNames": {"pattern": "^a"}},
            {"type": "object", "description": "property names: matches the regular expression ^a"},
        ),
        (
            {"type": "object", "patternProperties": {"^a": {"type": "number"}}, "additionalProperties": False},
            {
                "type": "object",
                "additionalProperties": {"type": "number"},
                "description": 'properties whose names match ^a are valid by the JSON Schema {"type": "number"}',
            },
        ),
        (
            {"type": "object", "required": ["a"]},
            {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        ),
        (
            {"type": "string", "format": "time", "pattern": "^..:..$"},
            {"type": "string", "description": "matches the regular expression ^..:..$"},
        ),
    ],
    ids=str,
)
def test_a_construct_is_sent_as(it: Any, sent: Any) -> None:
    assert sent_for(it) == sent


def test_objects_of_all_of_are_merged() -> None:
    named: Any = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    aged: Any = {"properties": {"age": {"type": "integer"}, "name": {"minLength": 1}}}

    assert sent_for({"allOf": [named, aged], "description": "A person", "unevaluatedProperties": False}) == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "at least 1 characters"},
            "age": {"type": "integer"},
        },
        "required": ["name"],
        "additionalProperties": False,
        "description": "A person (no other properties)",
    }


def test_a_description_beside_a_reference_is_sent_with_its_target() -> None:
    address: Any = {"type": "object", "properties": {"city": {"type": "string"}}}

    for it in ({"$ref": "#/$defs/a"}, {"allOf": [{"$ref": "#/$defs/a"}]}):
        assert sent_for({**it, "description": "Home"}, a=address) == {**address, "description": "Home"}


def test_references_are_no_longer_replaced_where_the_schema_would_become_large() -> None:
    twice = {"type": "object", "properties": {name: {"$ref": "#/$defs/{}", "description": name} for name in "ab"}}
    levels: Any = {f"l{level}": json.loads(json.dumps(twice).replace("{}", f"l{level + 1}")) for level in range(30)}

    assert (
        len(json.dumps(gemini_schema({"$ref": "#/$defs/l0", "$defs": {**levels, "l30": {"type": "null"}}}))) < 200_000
    )


def test_references_are_no_longer_replaced_where_the_schema_would_become_deep() -> None:
    chain: Any = {f"l{n}": {"items": {"$ref": f"#/$defs/l{n + 1}", "description": "inner"}} for n in range(380)}
    sent: Any = gemini_schema({"properties": {"it": {"$ref": "#/$defs/l0"}}, "$defs": {**chain, "l380": {}}})

    inner, depth = sent["$defs"]["l0"], 0
    while "items" in inner:
        inner, depth = inner["items"], depth + 1
    assert depth <= 21
    assert inner == {"anyOf": [{"$ref": f"#/$defs/l{depth}"}], "description": "inner"}


def test_a_root_that_is_a_reference_is_sent_in_place_and_recursion_is_kept() -> None:
    node: Any = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
        "required": ["name", "children"],
    }
    sent: Any = gemini_schema({"$ref": "#/$defs/Node", "$defs": {"Node": node}})

    assert sent["properties"] == node["properties"]
    assert sent["$defs"]["Node"] == {**node, "required": ["name"]}  # Gemini allows cycles in optional properties


def test_a_cycle_outside_of_properties_is_cut() -> None:
    tree: Any = {"type": "array", "items": {"$ref": "#/$defs/tree"}}

    sent: Any = gemini_schema(
        {"type": "object", "properties": {"it": {"$ref": "#/$defs/tree"}}, "$defs": {"tree": tree}}
    )
    assert sent["$defs"]["tree"] == {"type": "array", "items": {}}


def keywords_of(schema: Any) -> set[str]:
    """Return the keywords of a schema that is sent, and of the schemas inside it."""
    if not isinstance(schema, dict):
        return set()
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    inner += [*schema.get("anyOf", []), *schema.get("prefixItems", [])]
    inner += [schema.get("items"), schema.get("additionalProperties")]
    return set(schema).union(*map(keywords_of, inner))


@given(SCHEMAS)
def test_only_what_gemini_honors_is_sent(schema: dict[str, Any]) -> None:
    assert keywords_of(gemini_schema(schema)) <= SENT_KEYWORDS
