"""Schemas as generators write them: pydantic, zod, TypeScript generators, TypeBox, ArkType, mashumaro, OpenAI."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from pi_voice.domain.errors import InvalidOutputSchema
from pi_voice.domain.evidence import with_evidence
from pi_voice.domain.gemini_schema import gemini_schema
from pi_voice.domain.output_schema import violations
from pi_voice.domain.output_schema_validation import validate_output_schema

GENERATED: Final[dict[str, Any]] = json.loads(Path(__file__).with_name("generated_schemas.json").read_text())


def faults(results: Any, schema: dict[str, Any]) -> list[str]:
    """Return the paths of the violations of results."""
    return [detail.path for detail in violations(results, schema)]


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_a_generated_schema_is_accepted_and_sent(name: str) -> None:
    warnings = validate_output_schema(None, GENERATED[name])

    assert not any("no effect" in warning.message for warning in warnings)
    sent = gemini_schema(GENERATED[name])
    Draft202012Validator.check_schema(with_evidence(sent))
    assert sent.keys() & {"properties", "anyOf"}


def test_a_definition_that_the_generator_left_out_takes_any_value_with_a_warning() -> None:
    schema = GENERATED["tjs_norefs_Intake"]

    [warning] = [each for each in validate_output_schema(None, schema) if each.path.endswith("$ref")]
    assert warning.path == "output_schema_strict#/properties/visits/items/$ref"
    assert not [path for path in faults({"visits": [{"on": 1}, None]}, schema) if path.startswith("visits")]
    sent: Any = gemini_schema(schema)
    assert sent["properties"]["visits"] == {"type": "array", "items": {}}


def test_a_tuple_of_draft_7_is_held() -> None:
    schema = GENERATED["zod4_tuple_d7"]

    assert faults({"t": ["a", 1]}, schema) == []
    assert faults({"t": ["a", "b"]}, schema) == ["t.1"]
    assert faults({"t": ["a", 1, 2]}, schema) == ["t", "t"]


def test_nullable_of_openapi_allows_null() -> None:
    assert faults({"a": None, "n": None}, GENERATED["zod4_openapi3"]) == []
    assert faults({"a": None, "n": 0}, GENERATED["zod4_openapi3"]) == ["n"]


def test_a_root_that_is_a_reference_is_held() -> None:
    tree = {"name": "a", "children": [{"name": "b", "children": [{}]}]}

    assert faults(tree, GENERATED["py_recursive_root"]) == ["children.0.children.0"]
    assert faults(tree, GENERATED["zod4_recursive_root"]) == ["children.0.children.0"]


def test_a_reference_to_a_property_is_held() -> None:
    address = {"street": "Main", "city": 1}

    assert faults({"home": {"street": "Main", "city": "Oslo"}, "work": address}, GENERATED["zod3_relative"]) == [
        "work.city"
    ]
    assert faults({"a": "x", "b": 1}, GENERATED["zod3_nullable_reused"]) == ["b"]


def test_a_map_is_held() -> None:
    assert faults({"by_code": {"AB": 1, "abc": "x"}}, GENERATED["py_dict_pattern_key"]) == []
    assert faults({"by_code": {"AB": "x"}}, GENERATED["py_dict_pattern_key"]) == ["by_code.AB"]
    assert faults({"by_topic": {"sports": 1}}, GENERATED["py_dict_enum_key"]) == ["by_topic.sports"]


def test_a_discriminated_union_is_held_by_the_alternative_that_the_answer_chose() -> None:
    schema = GENERATED["py_discriminated"]

    assert faults({"result": {"outcome": "declined", "reason": 7}}, schema) == ["result.reason"]
    [detail] = violations({"result": {"outcome": "lost"}}, schema)
    assert (detail.path, detail.message) == ("result.outcome", "Should be one of booked, declined, call_back.")


def test_a_pattern_with_look_ahead_is_not_held_and_the_format_beside_it_is() -> None:
    schema = GENERATED["zod4_lookahead_email"]

    assert faults({"name": "A", "email": "a..b@example.com"}, schema) == ["email"]
    assert faults({"name": "A", "email": "a.b@example.com"}, schema) == []


def test_the_envelope_of_a_request_is_opened_and_pointers_lead_into_it() -> None:
    schema = GENERATED["py_openai_response_format"]
    broken = json.loads(json.dumps(schema).replace('"string"', '"text"', 1))

    with pytest.raises(InvalidOutputSchema) as raised:
        validate_output_schema(None, broken)

    assert raised.value.details[0].path.startswith("output_schema_strict#/json_schema/schema/$defs/")
    assert faults({}, schema) == [""]
