import pytest
from pydantic import JsonValue

from pi_voice.domain.vocabulary import MAX_PHRASE_CHARACTERS, MAX_PHRASES, vocabulary_of
from tests.unit.examples import agent

STRICT: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "enum": {"type": "string", "enum": ["a property of this name"]},
        "size": {"$ref": "#/$defs/size"},
        "order": {"anyOf": [{"type": "object", "properties": {"kind": {"const": "take_away"}}}, {"type": "null"}]},
        "count": {"enum": [1, 2, None, "3"]},
    },
    "$defs": {"size": {"enum": ["small", "extra_large", "small"]}},
}


def phrases(**fields: JsonValue) -> list[str]:
    found = vocabulary_of(agent(name="Nora", **fields))
    assert found[0] == "Nora"
    return list(found[1:])


def test_an_agent_without_a_schema_has_its_name_alone() -> None:
    assert phrases() == []


def test_phrases_of_the_call_come_before_those_of_the_schema() -> None:
    schema: JsonValue = {"crust": {"enum": ["thin", "Ada Lovelace"]}}

    found = vocabulary_of(agent(name="Nora", output_schema=schema), ["Ada Lovelace", "Nora", "42"])

    assert found == ("Nora", "Ada Lovelace", "thin")


def test_the_choices_of_hints_are_phrases() -> None:
    schema: JsonValue = {"crust": {"enum": ["thin", "Sicilian"]}, "items": [{"dish": {"enum": ["margherita"]}}]}

    assert phrases(output_schema=schema) == ["thin", "Sicilian", "margherita"]


def test_the_enums_and_constants_of_a_strict_schema_are_phrases_as_they_are_spoken() -> None:
    assert phrases(output_schema_strict=STRICT) == ["a property of this name", "take away", "small", "extra large"]


def test_the_strict_schema_takes_precedence() -> None:
    assert phrases(output_schema={"crust": {"enum": ["thin", "thick"]}}, output_schema_strict={"type": "object"}) == []


@pytest.mark.parametrize("text", ["x" * (MAX_PHRASE_CHARACTERS + 1), "42", "+1 (555)", " ", ""])
def test_long_texts_and_texts_without_letters_are_left_out(text: str) -> None:
    assert phrases(output_schema_strict={"enum": [text, "b", "c" * MAX_PHRASE_CHARACTERS]}) == [
        "b",
        "c" * MAX_PHRASE_CHARACTERS,
    ]


def test_the_number_of_phrases_is_bounded() -> None:
    choices: list[JsonValue] = [f"choice {number}" for number in range(500)]

    assert len(phrases(output_schema={"of": {"enum": choices}})) == MAX_PHRASES - 1


def test_line_breaks_in_a_phrase_become_spaces() -> None:
    assert phrases(output_schema={"of": {"enum": ["one\n two", "b"]}}) == ["one two", "b"]
