"""The examples are valid agents, each with a caller who answers every question."""

import json
from pathlib import Path
from typing import Final

import pytest
from jsonschema import Draft202012Validator

from demo.example import load
from local.errors import CannotStart
from pi_voice.domain.agents import CreateAgentRequest
from pi_voice.domain.connection_api import CreateSessionRequest
from pi_voice.domain.output_schema import compile_output_schema
from pi_voice.domain.output_schema_validation import validate_output_schema
from pi_voice.domain.tool_validation import validate_tools
from pi_voice.domain.variables import resolved
from tests.support.template import ROOT

EXAMPLES: Final = sorted(path for path in ROOT.glob("examples/*.json") if not path.name.endswith(".caller.json"))
NAMES: Final = [path.stem for path in EXAMPLES]


def test_there_are_four_examples() -> None:
    assert NAMES == ["booking", "intake", "support", "survey"]


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_an_example_is_a_valid_agent_with_a_valid_caller(path: Path) -> None:
    example = load(path).with_endpoint("01a1f31c-9e40-7b16-8c53-d0a47e62f9b8")
    spec = CreateAgentRequest.model_validate_json(json.dumps(example.agent))
    caller = example.caller
    request = CreateSessionRequest.model_validate(
        {
            "agent_id": "any",
            "participant": caller.participant.model_dump(),
            "ttl_seconds": caller.ttl_seconds,
            "variables": caller.variables,
        }
    )
    parameters = {tool.name: tool.parameters or {} for tool in spec.tools}

    assert compile_output_schema(spec.output_schema, spec.output_schema_strict)
    assert validate_output_schema(spec.output_schema, spec.output_schema_strict) == []
    assert request.call_limit(spec.behaviors)
    assert example.language == spec.spoken_language
    assert len(caller.lines) == len(spec.questions)
    variables = spec.variables or {}
    assert resolved(variables, request.variables) == {**resolved(variables, {}), **caller.variables}
    assert validate_tools(spec.tools) == []
    for call in (call for line in caller.lines for call in line.calls):
        Draft202012Validator(parameters[call.name]).validate(call.arguments)


def test_the_examples_cover_a_strict_schema_another_language_an_interruption_and_tools() -> None:
    examples = [load(path) for path in EXAMPLES]

    assert [example.path.stem for example in examples if "output_schema_strict" in example.agent] == ["intake"]
    assert [example.path.stem for example in examples if not example.language.startswith("en")] == ["survey"]
    assert [ex.path.stem for ex in examples if any(line.interrupts for line in ex.caller.lines)] == ["support"]
    assert [ex.path.stem for ex in examples if any(line.calls for line in ex.caller.lines)] == ["booking"]
    assert [ex.path.stem for ex in examples if ex.caller.variables] == ["booking"]
    assert [ex.path.stem for ex in examples if ex.server] == ["booking"]


def test_an_example_without_its_server_has_the_tools_of_its_page_only() -> None:
    booking = load(ROOT / "examples/booking.json")

    assert booking.tools == ["find_slots", "show_table", "book_table"]
    assert booking.server_tools == ["find_slots", "book_table"]
    assert booking.server == ROOT / "examples/booking_server.py"
    assert booking.without_server_tools().tools == ["show_table"]
    assert booking.without_server_tools().server is None


# ---- Invalid examples ----


def test_a_tool_that_names_no_program_beside_the_example_is_refused(tmp_path: Path) -> None:
    run = {"where": "server", "endpoint_id": "mine.py"}
    an_agent = json.dumps({"name": "Mia", "tools": [{"name": "book", "run": run}]})
    caller = json.dumps({**json.loads(A_CALLER), "tools": {}})

    assert refusal(tmp_path, an_agent, caller) == (
        "There is no mine.py: endpoint_id of a tool names the program that serves it."
    )


def test_an_answer_of_the_page_for_a_tool_on_a_server_is_refused(tmp_path: Path) -> None:
    run = {"where": "server", "endpoint_id": "mine.py"}
    an_agent = json.dumps({"name": "Mia", "tools": [{"name": "show", "run": run}]})

    assert refusal(tmp_path, an_agent, A_CALLER) == "mia.caller.json: tools.show: The server answers, and not the page."


AN_AGENT: Final = json.dumps({"name": "Mia", "instructions": "Be kind.", "tools": [{"name": "show"}]})
A_CALLER: Final = json.dumps(
    {
        "participant": {"identity": "a", "name": "Ana"},
        "ttl_seconds": 60,
        "tools": {"show": {"shown": True}},
        "says": ["Hi."],
    }
)


def refusal(folder: Path, agent_text: str | None, caller_text: str | None) -> str:
    """Load an invalid example, and return the error message without the folder."""
    for name, text in (("mia.json", agent_text), ("mia.caller.json", caller_text)):
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(CannotStart) as refused:
        load(folder / "mia.json")
    return str(refused.value).replace(f"{folder}/", "")


def test_a_missing_agent_is_refused(tmp_path: Path) -> None:
    missing = "There is no mia.json: an example is an agent, and a caller in a .caller.json beside it."

    assert refusal(tmp_path, None, A_CALLER) == missing


def test_a_missing_caller_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, AN_AGENT, None).startswith("There is no mia.caller.json: ")


def test_a_file_without_json_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "{", A_CALLER).startswith("mia.json cannot be read: Expecting property name")


def test_an_agent_that_is_no_object_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[]", A_CALLER) == "mia.json is no agent: it has to be a JSON object."


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"says": []}, "says: Tuple should have at least 1 item after validation, not 0."),
        ({"ttl": 60}, "ttl: Extra inputs are not permitted."),
        ({"participant": {"identity": "a"}}, "participant.name: Field required."),
        (
            {"says": [{"text": "Hi.", "calls": [{"name": "f", "args": {}}]}]},
            "says.0.Line.calls.0.args: Extra inputs are not permitted.",
        ),
        ({"variables": {"name": ["Ana"]}}, "variables.name.str: Input should be a valid string."),
        ({"tools": {"show": "T12"}}, "tools.show: Input should be a valid dictionary."),
        ({"tools": {}}, "tools.show: Field required: the answer of the page."),
        ({"tools": {"show": {}, "hide": {}}}, "tools.hide: The agent has no such tool."),
        ({"says": [{"text": "Hi.", "calls": [{"name": "hide"}]}]}, "says.0.calls: The agent has no tool hide."),
    ],
)
def test_an_invalid_caller_is_refused(tmp_path: Path, change: dict[str, object], fault: str) -> None:
    assert refusal(tmp_path, AN_AGENT, json.dumps({**json.loads(A_CALLER), **change})) == f"mia.caller.json: {fault}"
