"""Which functions the Live stand-in's agent calls for what words, and with which arguments."""

import itertools
import json
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from local.errors import CannotStart
from local.stand_ins.answer_parsing import Call, parse_call
from local.stand_ins.example_scripts import EXAMPLES, example_scripts
from local.stand_ins.gemini_live_tools import Tools
from local.stand_ins.gemini_models import waits_for_function

AREA: Final = {"type": "STRING", "enum": ["inside", "outside", "on_the_roof"]}
SAID: Final = (
    '{"role": "agent", "text": "For how many people?"}\n{"role": "user", "text": "We are six."}\n'
    '{"role": "agent", "text": "What is your name?"}\n{"role": "user", "text": "My name is Ana Torres."}\n'
)
NOTHING: Final = parse_call("")


def calls(words: str, properties: dict[str, Any], required: tuple[str, ...] = (), said: Call = NOTHING) -> Any:
    """Return the arguments of all calls."""
    parameters = {"type": "OBJECT", "properties": properties, "required": [*required]}
    setup = {"tools": [{"functionDeclarations": [{"name": "f", "parameters": parameters}]}]}
    return [call.args for call in Tools.of(setup, {}, ()).calls_for(words, said)]


@pytest.mark.parametrize(
    ("words", "area"),
    [
        ("Outside!", "outside"),
        ("on the ROOF please", "on_the_roof"),
        ("inside, or outside?", "inside"),
        ("Inside. No, wait, outside.", "outside"),
        ("Outside. Actually, we are six.", "outside"),
    ],
)
def test_a_choice_is_recognized_by_whole_words_in_any_case(words: str, area: str) -> None:
    assert calls(words, {"area": AREA}) == [{"area": area}]


@pytest.mark.parametrize("words", ["", "outsider", "We are six.", "the roof"])
def test_without_a_choice_nothing_is_called(words: str) -> None:
    assert calls(words, {"area": AREA}) == []


@pytest.mark.parametrize("members", [[""], ["-"], [" "], ["..."], []])
def test_a_choice_without_a_word_is_never_named(members: list[str]) -> None:
    assert calls("- ... ", {"area": {"type": "STRING", "enum": members}}) == []


def test_of_two_choices_in_one_place_the_longer_one_is_named() -> None:
    assert calls("The pain is very high.", {"pain": {"enum": ["high", "very high"]}}) == [{"pain": "very high"}]


def test_choices_in_a_list_are_all_named() -> None:
    sides = {"type": "ARRAY", "items": {"type": "STRING", "enum": ["rice", "salad", "bread"]}}

    assert calls("Bread and rice.", {"sides": sides}) == [{"sides": ["bread", "rice"]}]


def test_a_number_word_names_a_choice_in_digits() -> None:
    assert calls("Number seven, please.", {"table": {"enum": ["6", "7"]}}) == [{"table": "7"}]


def test_other_required_arguments_are_filled_from_the_call_so_far() -> None:
    said = parse_call(SAID + '{"role": "agent", "text": "Inside?"}\n{"role": "user", "text": "Outside."}')
    properties = {"guests": {"type": "INTEGER"}, "name": {"type": "STRING"}, "area": AREA, "note": {"type": "STRING"}}

    assert calls("Outside.", properties, ("guests", "name", "area"), said) == [
        {"guests": 6, "name": "Ana Torres", "area": "outside"}
    ]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "STRING"}, "not said"),
        ({"type": "STRING", "maxLength": "3"}, "not"),
        ({"type": "STRING", "minLength": "10"}, "not said.."),
        ({"type": "STRING", "nullable": True}, None),
        ({"type": "INTEGER", "minimum": 4}, 4),
        ({"type": "NUMBER", "maximum": -1.5}, -1.5),
        ({"type": "BOOLEAN"}, True),
        ({"type": "STRING", "enum": ["a", "b"]}, "a"),
        ({"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "2"}, [0, 0]),
        ({"type": "OBJECT", "properties": {"a": {"type": "BOOLEAN"}}, "required": ["a"]}, {"a": True}),
        ({"anyOf": [{"type": "INTEGER"}, {"type": "STRING"}]}, 0),
    ],
)
def test_what_was_not_said_gets_a_value_that_its_schema_allows(schema: dict[str, Any], value: Any) -> None:
    assert calls("Outside.", {"other": schema, "area": AREA}, ("other",)) == [{"other": value, "area": "outside"}]


@pytest.mark.parametrize(
    "declaration",
    [{"name": "f"}, {"name": "f", "parametersJsonSchema": {"properties": {"area": AREA}}}, {}],
)
def test_a_function_without_choices_is_never_called(declaration: dict[str, Any]) -> None:
    tools = Tools.of({"tools": [{"functionDeclarations": [declaration]}, {"googleSearch": {}}]}, {}, ())

    assert tools.calls_for("outside", NOTHING) == []


@pytest.mark.parametrize(
    ("model", "behavior", "waits"),
    [
        ("gemini-3.1-flash-live-preview", None, True),
        ("gemini-3.1-flash-live-preview", "NON_BLOCKING", True),
        ("gemini-3.8-live", None, False),
        ("gemini-3.8-live", "BLOCKING", True),
        ("gemini-3.8-live-extended-thinking", "NON_BLOCKING", False),
        ("gemini-3.8-live-extended-thinking", "BLOCKING", True),
    ],
)
def test_models_wait_for_functions_by_their_behavior(model: str, behavior: str | None, waits: bool) -> None:  # noqa: FBT001
    declaration = {"name": "f", "behavior": behavior} if behavior else {"name": "f"}

    assert waits_for_function({"model": f"models/{model}"}, declaration) == waits


# ---- Scripts of examples ----


def files(folder: Path, caller: str, agent: str = '{"name": "Mia"}') -> Path:
    (folder / "mia.caller.json").write_text(caller, encoding="utf-8")
    (folder / "mia.json").write_text(agent, encoding="utf-8")
    return folder


def test_a_script_has_the_calls_of_each_line_by_its_plain_words(tmp_path: Path) -> None:
    says = '["Hi!", {"text": "Six, please.", "interrupts": true, "calls": [{"name": "f"}]}]'

    [script] = example_scripts(files(tmp_path, f'{{"says": {says}}}')).values()

    assert script.calls == {"hi": (), "six please": (("f", {}),)}


def test_an_example_without_calls_lets_the_words_decide_about_each_line(tmp_path: Path) -> None:
    [script] = example_scripts(files(tmp_path, '{"says": ["Hi!", {"text": "Six."}]}')).values()

    assert script.calls == {}


def test_a_script_has_the_line_that_answers_each_question_by_its_plain_words(tmp_path: Path) -> None:
    says = '["Hi!", {"text": "Six, please."}, "Bye."]'
    agent = '{"name": "Mia", "questions": ["Who is it?", "How many?"]}'

    scripts = example_scripts(files(tmp_path, f'{{"says": {says}}}', agent))

    assert {name: script.answers for name, script in scripts.items()} == {
        "Mia": {"who is it": "Hi!", "how many": "Six, please."}
    }


def test_a_folder_that_does_not_exist_has_no_scripts(tmp_path: Path) -> None:
    assert example_scripts(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("caller", "agent"),
    [
        ("{", "{}"),
        ("[]", "{}"),
        ('{"says": [7]}', "{}"),
        ('{"says": [{"text": "a", "calls": "f"}]}', "{}"),
        ('{"says": [{"text": "a", "calls": [{"arguments": {}}]}]}', "{}"),
        ('{"says": [{"text": "a", "calls": [{"name": "f", "arguments": []}]}]}', "{}"),
        ('{"says": [{"text": "a", "calls": [{"name": "f"}]}]}', "["),
        ('{"says": ["a"]}', '{"questions": {"a": 1}}'),
        ('{"says": ["a"]}', '{"questions": [1]}'),
    ],
)
def test_a_script_that_cannot_be_read_is_refused_with_its_file(tmp_path: Path, caller: str, agent: str) -> None:
    with pytest.raises(CannotStart, match=r"mia\.(caller\.)?json"):
        example_scripts(files(tmp_path, caller, agent))


def test_the_examples_call_their_own_tools_with_valid_arguments() -> None:
    paths = [path for path in EXAMPLES.glob("*.json") if not path.name.endswith(".caller.json")]
    agents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    tools = {(agent["name"], tool["name"]): tool for agent in agents for tool in agent.get("tools", [])}
    for agent, script in example_scripts().items():
        for name, arguments in itertools.chain(*script.calls.values()):
            jsonschema.validate(arguments, tools[agent, name].get("parameters", {}))
