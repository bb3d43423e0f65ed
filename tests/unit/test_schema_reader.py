"""Schemas of each dialect, read into one normal form."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pi_voice.domain.schema_reader import NormalSchema, opened, read_schema
from tests.unit.json_schemas import SCHEMAS

DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
NEWEST = "https://json-schema.org/draft/2020-12/schema"


def fault_pointers(schema: NormalSchema) -> list[str]:
    """Return the pointers of the faults of a schema."""
    return [fault.pointer for fault in schema.faults]


def normal(**schema: Any) -> Any:
    """Return the normal form of a schema without faults."""
    read = read_schema(schema)
    assert read.faults == []
    return read.document()


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"minimum": 0, "exclusiveMinimum": True}, {"exclusiveMinimum": 0}),
        ({"maximum": 9, "exclusiveMaximum": False}, {"maximum": 9}),
        ({"exclusiveMaximum": True}, {}),
        ({"items": [{"type": "null"}], "additionalItems": False}, {"prefixItems": [{"type": "null"}], "items": False}),
        ({"items": [], "additionalItems": {"type": "null"}}, {"items": {"type": "null"}}),
        ({"dependencies": {"a": ["b"], "c": {"type": "object"}}},
         {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {"type": "object"}}}),
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "enum": ["a"], "nullable": True}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"type": "string", "nullable": False}, {"type": "string"}),
        ({"allOf": [{"type": "object"}], "nullable": True, "description": "It"},
         {"description": "It", "anyOf": [{"allOf": [{"type": "object"}]}, {"type": "null"}]}),
        ({"not": True, "contains": False}, {"not": {}, "contains": False}),
        ({"properties": {"a": True}}, {"properties": {"a": {}}}),
        ({"$schema": DRAFT_7, "type": "string", "nullable": True}, {"type": "string"}),
        ({"title": "It", "$comment": "x", "default": 1, "examples": [1], "x-order": 2}, {}),
    ],
    ids=str,
)  # fmt: skip
def test_a_form_of_another_dialect_is_rewritten(schema: dict[str, Any], expected: Any) -> None:
    assert normal(**schema) == expected


@pytest.mark.parametrize(
    "reference",
    [
        "#/$defs/a", "#/definitions/b", "#/properties/c", "#/components/schemas/d", "#e", "e.json", "#/x-parts/0/f",
        "urn:g", "urn:g#h", "#/$defs/i%20j", "#/components/schemas/a", "#/definitions/a",
    ],
)  # fmt: skip
def test_a_reference_may_lead_anywhere_in_the_document(reference: str) -> None:
    target: dict[str, Any] = {"type": "integer"}
    schema: dict[str, Any] = {
        "$id": "https://example.com/root.json",
        "$defs": {
            "a": target,
            "e": {**target, "$anchor": "e"},
            "e2": {**target, "$id": "e.json"},
            "g": {**target, "$id": "urn:g", "$defs": {"h": {**target, "$anchor": "h"}}},
            "i j": target,
        },
        "definitions": {"b": target},
        "components": {"schemas": {"d": target}},
        "x-parts": [{"f": target}],
        "properties": {"c": target, "it": {"$ref": reference}},
    }
    read = read_schema(schema)

    assert read.faults == []
    root: Any = read.root
    assert read.target(root["properties"]["it"]["$ref"]) == target


def test_a_reference_may_be_relative_to_its_own_place() -> None:
    schema = normal(properties={"home": {"type": "object"}, "work": {"$ref": "1/home"}})

    assert schema["properties"]["work"] == {"$ref": "#/$defs/home"}
    assert schema["$defs"] == {"home": {"type": "object"}}


@pytest.mark.parametrize("reference", ["9/home", "1/absent", "https://example.com/other", "http://[/", "#absent", "0"])
def test_a_reference_out_of_the_document_is_a_fault(reference: str) -> None:
    read = read_schema({"properties": {"home": {"type": "object"}, "work": {"$ref": reference, "type": "object"}}})

    assert fault_pointers(read) in (["/properties/work/$ref"], [])
    assert (read.faults == []) is (reference == "0")


def test_a_name_that_other_definitions_do_not_have_is_a_fault() -> None:
    reference: dict[str, Any] = {"properties": {"it": {"$ref": "#/definitions/Vist"}}}

    assert fault_pointers(read_schema({**reference, "definitions": {"Visit": {}}})) == ["/properties/it/$ref"]
    assert fault_pointers(read_schema(reference)) == []  # a generator left all definitions out


def test_every_keyword_that_refers_or_lists_holds_beside_the_others() -> None:
    schema = {"$ref": "#/$defs/a", "$dynamicRef": "#/$defs/b", "allOf": [{"type": "object"}]}

    read = normal(**schema, **{"$defs": {"a": {"minProperties": 1}, "b": {"maxProperties": 2}}})
    assert {key: read[key] for key in ("$ref", "allOf")} == {
        "$ref": "#/$defs/a",
        "allOf": [{"$ref": "#/$defs/b"}, {"type": "object"}],
    }


def test_references_that_stand_alone_are_followed_to_their_end() -> None:
    chain: Any = {f"a{level}": {"$ref": f"#/$defs/a{level + 1}"} for level in range(1_100)}
    root: Any = read_schema({"$ref": "#/$defs/a0", "$defs": {**chain, "a1100": {"type": "object"}}})

    assert root.target(root.root["$ref"]) == {"type": "object"}


def test_names_of_definitions_are_plain_and_unique() -> None:
    definitions: dict[str, Any] = {
        "Record<string,string>": {"type": "object"},
        "Record_string_string_": {"type": "array"},
    }
    one, two = ({"$ref": f"#/$defs/{name}"} for name in definitions)
    schema = normal(properties={"a": one, "b": two}, **{"$defs": definitions})

    assert schema["$defs"] == {
        "Record_string_string_": {"type": "object"},
        "Record_string_string__2": {"type": "array"},
    }
    Draft202012Validator.check_schema(schema)


def test_what_stands_beside_a_reference_holds_since_2019() -> None:
    beside: dict[str, Any] = {"$ref": "#/$defs/a", "minLength": 2, "description": "It"}
    definitions: dict[str, Any] = {"$defs": {"a": {"type": "string"}}}

    assert normal(properties={"it": beside}, **definitions)["properties"]["it"]["minLength"] == 2
    earlier = read_schema({"$schema": DRAFT_7, "properties": {"it": beside}, **definitions})
    assert earlier.root == {"properties": {"it": {"$ref": "#/$defs/a", "description": "It"}}}
    assert [remark.pointer for remark in earlier.remarks] == ["/properties/it/minLength"]


def test_draft_4_names_schemas_by_id() -> None:
    schema: dict[str, Any] = {
        "properties": {"it": {"$ref": "a.json"}},
        "definitions": {"a": {"id": "a.json", "type": "integer"}},
    }

    assert read_schema({"$schema": DRAFT_4, **schema}).faults == []
    assert fault_pointers(read_schema(schema)) == ["/properties/it/$ref"]


def test_a_dialect_may_change_inside_a_document() -> None:
    inner: dict[str, Any] = {"$schema": DRAFT_7, "$ref": "#/$defs/a", "type": "null"}
    read: Any = read_schema({"$schema": NEWEST, "properties": {"it": inner}, "$defs": {"a": {"type": "integer"}}})

    assert read.root["properties"]["it"] == {"$ref": "#/$defs/a"}


def test_a_dynamic_reference_is_read_as_a_reference_unless_it_depends_on_its_way() -> None:
    tree: dict[str, Any] = {"$dynamicAnchor": "node", "properties": {"child": {"$dynamicRef": "#node"}}}

    assert read_schema(tree).faults == []
    twice: dict[str, Any] = {"$defs": {"a": tree, "b": {"$id": "urn:b", **tree}}}
    assert fault_pointers(read_schema(twice))[0] == "/$defs/a/properties/child/$dynamicRef"


SCHEMA: dict[str, Any] = {"type": "object", "properties": {"name": {"type": "string"}, "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"name": "results", "schema": SCHEMA, "strict": True}, "/schema"),
        ({"type": "json_schema", "json_schema": {"name": "results", "schema": SCHEMA}}, "/json_schema/schema"),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}}, "/json_schema/schema"),
        ({"type": "json_schema", "name": "results", "schema": SCHEMA}, "/schema"),
        ({"json_schema": {"name": "results", "schema": SCHEMA}}, "/json_schema/schema"),
        (SCHEMA, ""),
        ({"name": "results", "schema": SCHEMA, "properties": {}}, ""),
        ({"schema": SCHEMA}, ""),
    ],
    ids=str,
)
def test_an_envelope_of_openai_is_opened(document: dict[str, Any], pointer: str) -> None:
    assert opened(document) == (pointer, SCHEMA if pointer else document)


@given(SCHEMAS)
def test_the_normal_form_is_a_schema_of_draft_2020_12(schema: dict[str, Any]) -> None:
    document: Any = read_schema(schema).document()

    Draft202012Validator.check_schema(document)
    assert read_schema(document).document() == document


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
)
READ = ["items", "$ref", "$id", "type", "enum", "properties", "dependencies", "allOf", "components", "nullable"]


@given(st.dictionaries(st.sampled_from(READ), JUNK))
def test_reading_never_fails(schema: dict[str, Any]) -> None:
    document: Any = read_schema(schema).document()

    Draft202012Validator.check_schema(document)
