"""Tools of an agent: what is taken when they are saved, and what Gemini gets of them."""

from typing import Any

import pytest
from hypothesis import given, settings

from pi_voice.domain.agents import CreateAgentRequest
from pi_voice.domain.errors import InvalidRequest
from pi_voice.domain.function_declarations import parameters_of
from pi_voice.domain.schema_reader import read_schema
from pi_voice.domain.schema_satisfiability import unsatisfiable
from pi_voice.domain.tool_validation import validate_tools
from pi_voice.domain.tools import Tool
from tests.unit.examples import create_agent_request
from tests.unit.json_schemas import SCHEMAS

OBJECT: dict[str, Any] = {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]}


def tool(name: str = "book", parameters: Any = None, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": "Book a table.",
        "parameters": parameters,
        "run": {"where": "client"},
        **fields,
    }


def request(*tools: dict[str, Any]) -> CreateAgentRequest:
    return create_agent_request(tools=[*tools])


def refused(*tools: dict[str, Any]) -> list[str]:
    """Return the paths of the faults of tools."""
    with pytest.raises(InvalidRequest) as raised:
        validate_tools(request(*tools).tools)
    return [detail.path for detail in raised.value.details]


@pytest.mark.parametrize("name", ["book", "_a", "a.b:c-d_9", "a" * 64])
def test_names_are_those_that_gemini_takes(name: str) -> None:
    assert validate_tools(request(tool(name)).tools) == []


@pytest.mark.parametrize("name", ["", "9a", "a b", "a" * 65, "böok", "a/b", "-a"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        request(tool(name))


def test_two_tools_of_one_name_are_refused() -> None:
    assert refused(tool(), tool("other"), tool()) == ["tools.2.name"]


def test_the_name_of_the_built_in_tool_is_refused() -> None:
    assert refused(tool("hang_up")) == ["tools.0.name"]


@pytest.mark.parametrize(
    ("parameters", "paths"),
    [
        ({"type": "array"}, ["tools.0.parameters#"]),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, ["tools.0.parameters#/properties/a/type"]),
        (
            {"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]},
            ["tools.0.parameters#/properties/a/enum"],
        ),
    ],
    ids=["no object", "no JSON Schema", "never satisfied"],
)
def test_parameters_are_checked_as_output_schemas_are(parameters: Any, paths: list[str]) -> None:
    assert refused(tool(parameters=parameters)) == paths


def test_a_misspelled_keyword_has_a_warning_and_what_gemini_ignores_has_none() -> None:
    parameters = {**OBJECT, "properties": {"day": {"type": "string", "minLength": 1, "requierd": True}}}

    [warning] = validate_tools(request(tool(parameters=parameters)).tools)
    assert warning.path == "tools.0.parameters#/properties/day/requierd"


def test_tools_have_a_size_in_all() -> None:
    long = {**OBJECT, "description": "x" * 9_000}

    assert refused(*(tool(f"t{number}", long) for number in range(8))) == ["tools"]


def test_more_than_twenty_tools_are_refused() -> None:
    with pytest.raises(ValueError, match="tools"):
        request(*(tool(f"t{number}") for number in range(21)))


@pytest.mark.parametrize(
    "run", [{"where": "server"}, {"where": "browser"}, {}, None, {"where": "client", "endpoint_id": "x"}], ids=str
)
def test_a_tool_runs_on_the_page(run: Any) -> None:
    with pytest.raises(ValueError, match="run"):
        request(tool(run=run))


# ---- What Gemini gets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"type": "string"}, {"type": "STRING"}),
        ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "STRING", "nullable": True}),
        ({"type": ["string", "integer"]}, {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]}),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]}),
        ({"enum": ["a", "b"]}, {"type": "STRING", "enum": ["a", "b"]}),
        ({"type": "string", "enum": ["a", ""]}, {"type": "STRING", "description": "one of a, , or empty"}),
        ({"enum": [1, 2]}, {"type": "INTEGER", "description": "one of 1, 2"}),
        ({"enum": ["a", None]}, {"type": "STRING", "nullable": True, "enum": ["a"]}),
        ({"const": True}, {"type": "BOOLEAN", "description": "exactly true"}),
        ({"type": "null"}, {"type": "NULL"}),
        ({}, {"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}, {"type": "BOOLEAN"}]}),
        ({"type": "array", "items": {"type": "number"}}, {"type": "ARRAY", "items": {"type": "NUMBER"}}),
        (
            {"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}], "items": False},
            {
                "type": "ARRAY",
                "items": {"anyOf": [{"type": "NUMBER"}, {"type": "STRING"}]},
                "description": "at most 2 items",
            },
        ),
        (
            {"type": "string", "format": "date", "description": "The day"},
            {"type": "STRING", "description": "The day (a date, as in 2026-05-01)"},
        ),
        (
            {"type": "object", "additionalProperties": {"type": "number"}},
            {"type": "OBJECT"},
        ),
        (
            {"type": "object", "properties": {"b": {}, "a": {"type": "string"}}, "required": ["a", "c"]},
            {
                "type": "OBJECT",
                "properties": {
                    "b": {"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}, {"type": "BOOLEAN"}]},
                    "a": {"type": "STRING"},
                    "c": {"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}, {"type": "BOOLEAN"}]},
                },
                "required": ["a", "c"],
            },
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_parameter_is_declared_as(schema: Any, sent: Any) -> None:
    compiled: Any = parameters_of({"type": "object", "properties": {"it": schema}})

    assert compiled["properties"]["it"] == sent


def test_references_are_written_out_and_a_recursion_is_cut() -> None:
    node: dict[str, Any] = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
    }

    compiled: Any = parameters_of(
        {"type": "object", "properties": {"it": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}}
    )
    assert "$ref" not in str(compiled)
    assert compiled["properties"]["it"]["properties"]["next"]["properties"]["name"] == {"type": "STRING"}


def test_a_tool_without_arguments_declares_none() -> None:
    assert parameters_of({"type": "object"}) is None
    assert parameters_of({"type": "object", "properties": {}, "additionalProperties": False}) is None


def test_arguments_of_several_kinds_are_declared_as_one_object() -> None:
    by_id: Any = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
    by_name: Any = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}

    assert parameters_of({"anyOf": [by_id, by_name]}) == {
        "type": "OBJECT",
        "properties": {"id": {"type": "INTEGER"}, "name": {"type": "STRING"}},
    }


@settings(max_examples=300)
@given(SCHEMAS)
def test_every_declared_part_has_one_type_or_alternatives(schema: dict[str, Any]) -> None:
    errors, _ = unsatisfiable(read_schema({"type": "object", **schema}))
    if errors:
        return

    def check(part: Any) -> None:
        assert part.keys() <= {
            "type", "nullable", "description", "enum", "items", "properties", "required", "propertyOrdering", "anyOf",
        }  # fmt: skip
        assert ("type" in part) != ("anyOf" in part)
        assert ("items" in part) == (part.get("type") == "ARRAY")
        assert all(isinstance(each, str) and each for each in part.get("enum", []))
        for inner in [*part.get("properties", {}).values(), *part.get("anyOf", []), *filter(None, [part.get("items")])]:
            check(inner)

    if (compiled := parameters_of({"type": "object", **schema})) is not None:
        check(compiled)


def test_a_stored_tool_is_read_as_a_tool() -> None:
    saved = Tool.model_validate_json(Tool.model_validate(tool(parameters=OBJECT)).model_dump_json())

    assert saved.parameters == OBJECT
