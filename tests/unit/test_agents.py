import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from pi_voice.domain.agents import CreateAgentRequest
from pi_voice.domain.merge_patch import MergePatch, merge
from tests.unit.examples import create_agent_request

FIFTY_QUESTIONS: JsonValue = ["q" * 500] * 50
SIXTEEN_PAIRS: JsonValue = {f"{number:040}": "v" * 500 for number in range(16)}


def error_paths(**fields: JsonValue) -> list[str]:
    """Return the paths of the validation errors of an agent."""
    try:
        create_agent_request(**fields)
    except ValidationError as error:
        return [".".join(str(step) for step in detail["loc"]) for detail in error.errors()]
    return []


def test_all_fields_but_name_and_instructions_have_defaults() -> None:
    agent = CreateAgentRequest.model_validate_json('{"name": "Ana", "instructions": "Take the call."}')

    assert agent.model_dump(mode="json") == {
        "name": "Ana",
        "instructions": "Take the call.",
        "language": "en-US",
        "purpose": None,
        "questions": [],
        "behaviors": {
            "max_duration_seconds": None,
            "speaking_pace": "normal",
            "response_length": "moderate",
            "greeting": None,
            "closing_message": None,
            "may_hang_up": False,
        },
        "output_schema": None,
        "output_schema_strict": None,
        "evidence": False,
        "voice": {"name": "Puck", "language_code": None},
        "tools": [],
        "variables": None,
        "metadata": {},
    }


@pytest.mark.parametrize("field", ["name", "instructions"])
def test_name_and_instructions_are_required(field: str) -> None:
    fields = {"name": "Ana", "instructions": "Take the call."}
    del fields[field]

    with pytest.raises(ValidationError) as raised:
        CreateAgentRequest.model_validate_json(json.dumps(fields))

    assert [(detail["loc"], detail["type"]) for detail in raised.value.errors()] == [((field,), "missing")]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "n"},
        {"name": "n" * 120},
        {"name": "名" * 120},
        {"instructions": "i"},
        {"instructions": "i" * 20_000},
        {"purpose": None},
        {"purpose": ""},
        {"purpose": "p" * 200},
        {"questions": []},
        {"questions": FIFTY_QUESTIONS},
        {"behaviors": {}},
        {"behaviors": {"max_duration_seconds": None}},
        {"behaviors": {"max_duration_seconds": 60}},
        {"behaviors": {"max_duration_seconds": 1800}},
        {"behaviors": {"speaking_pace": "slow"}},
        {"behaviors": {"speaking_pace": "normal"}},
        {"behaviors": {"speaking_pace": "fast"}},
        {"behaviors": {"response_length": "brief"}},
        {"behaviors": {"response_length": "moderate"}},
        {"behaviors": {"response_length": "detailed"}},
        {"behaviors": {"greeting": "g" * 1000, "closing_message": "c" * 1000}},
        {"behaviors": {"greeting": None, "closing_message": None}},
        {"output_schema": None},
        {"output_schema": {"city": "string"}},
        {"output_schema_strict": None},
        {"output_schema_strict": {"type": "object"}},
        {"voice": {}},
        {"voice": {"name": "Sulafat", "language_code": "de-DE"}},
        {"voice": {"language_code": None}},
        {"metadata": {}},
        {"metadata": SIXTEEN_PAIRS},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_a_value_within_its_bounds_is_valid(fields: dict[str, JsonValue]) -> None:
    assert error_paths(**fields) == []


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"name": ""}, "name"),
        ({"name": " \t\n"}, "name"),
        ({"name": "n" * 121}, "name"),
        ({"name": None}, "name"),
        ({"name": 1}, "name"),
        ({"instructions": ""}, "instructions"),
        ({"instructions": " "}, "instructions"),
        ({"instructions": "i" * 20_001}, "instructions"),
        ({"instructions": ["i"]}, "instructions"),
        ({"language": None}, "language"),
        ({"purpose": "p" * 201}, "purpose"),
        ({"purpose": 1}, "purpose"),
        ({"questions": ["q"] * 51}, "questions"),
        ({"questions": [""]}, "questions.0"),
        ({"questions": ["q", " "]}, "questions.1"),
        ({"questions": ["q" * 501]}, "questions.0"),
        ({"questions": [1]}, "questions.0"),
        ({"questions": "q"}, "questions"),
        ({"questions": None}, "questions"),
        ({"questions": {"0": "q"}}, "questions"),
        ({"behaviors": None}, "behaviors"),
        ({"behaviors": []}, "behaviors"),
        ({"behaviors": {"max_duration_seconds": 59}}, "behaviors.max_duration_seconds"),
        ({"behaviors": {"max_duration_seconds": 1801}}, "behaviors.max_duration_seconds"),
        ({"behaviors": {"max_duration_seconds": 0}}, "behaviors.max_duration_seconds"),
        ({"behaviors": {"max_duration_seconds": -600}}, "behaviors.max_duration_seconds"),
        ({"behaviors": {"max_duration_seconds": "600"}}, "behaviors.max_duration_seconds"),
        ({"behaviors": {"max_duration_seconds": 600.0}}, "behaviors.max_duration_seconds"),
        ({"behaviors": {"max_duration_seconds": 600.5}}, "behaviors.max_duration_seconds"),
        ({"behaviors": {"max_duration_seconds": True}}, "behaviors.max_duration_seconds"),
        ({"behaviors": {"max_duration_seconds": 10**30}}, "behaviors.max_duration_seconds"),
        ({"behaviors": {"speaking_pace": "Slow"}}, "behaviors.speaking_pace"),
        ({"behaviors": {"speaking_pace": None}}, "behaviors.speaking_pace"),
        ({"behaviors": {"response_length": "long"}}, "behaviors.response_length"),
        ({"behaviors": {"greeting": "g" * 1001}}, "behaviors.greeting"),
        ({"behaviors": {"greeting": False}}, "behaviors.greeting"),
        ({"behaviors": {"closing_message": "c" * 1001}}, "behaviors.closing_message"),
        ({"behaviors": {"speed": "fast"}}, "behaviors.speed"),
        ({"output_schema": []}, "output_schema"),
        ({"output_schema": "string"}, "output_schema"),
        ({"output_schema_strict": True}, "output_schema_strict"),
        ({"output_schema_strict": "{}"}, "output_schema_strict"),
        ({"voice": None}, "voice"),
        ({"voice": "Puck"}, "voice"),
        ({"voice": {"name": "puck"}}, "voice.name"),
        ({"voice": {"name": None}}, "voice.name"),
        ({"voice": {"language_code": ""}}, "voice.language_code"),
        ({"voice": {"pitch": 1}}, "voice.pitch"),
        ({"metadata": None}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {"k": "v" * 501}}, "metadata.k"),
        ({"metadata": {f"k{number}": "v" for number in range(17)}}, "metadata"),
        ({"agent_id": "019a0000-0000-7000-8000-000000000001"}, "agent_id"),
        ({"version": 2}, "version"),
        ({"instuctions": "typo"}, "instuctions"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_invalid_value_has_an_error_with_its_path(fields: dict[str, JsonValue], path: str) -> None:
    assert error_paths(**fields) == [path]


def test_all_errors_are_reported_at_once() -> None:
    paths = error_paths(name="", language="?", behaviors={"max_duration_seconds": 1}, nonsense=1)

    assert sorted(paths) == ["behaviors.max_duration_seconds", "language", "name", "nonsense"]


@pytest.mark.parametrize("number", ["1e999", "NaN", "Infinity"])
def test_numbers_in_a_schema_must_be_finite(number: str) -> None:
    text = f'{{"name": "Ana", "instructions": "i", "output_schema_strict": {{"minimum": {number}}}}}'

    with pytest.raises(ValidationError):
        CreateAgentRequest.model_validate_json(text)


@pytest.mark.parametrize(
    "tag",
    ["de", "EN", "fil", "en-US", "zh-Hant-TW", "sl-rozaj-biske", "es-419", "de-DE-u-co-phonebk", "en-x-pirate"],
)
def test_a_bcp_47_tag_is_a_valid_language(tag: str) -> None:
    assert error_paths(language=tag, voice={"language_code": tag}) == []


@pytest.mark.parametrize(
    "tag",
    [
        *("", "e", "english-", "-en", "en--US", "en_US", "en US", "e1", "en-ninechars", "en-é", "en\n", "ABCDEFGHI"),
        "en-abcdefgh-abcdefgh-abcdefgh-abcdef",  # 36 characters
    ],
)
def test_any_other_text_is_an_invalid_language(tag: str) -> None:
    assert error_paths(language=tag) == ["language"]


def test_the_voice_s_language_wins_over_the_agent_s() -> None:
    assert create_agent_request(language="fr-FR").spoken_language == "fr-FR"
    assert create_agent_request(language="fr-FR", voice={"language_code": "fr-CA"}).spoken_language == "fr-CA"


# The examples of RFC 7396, appendix A, whose document and patch are objects
@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        # not in the RFC: a text is replaced by an object
        ({"a": "b"}, {"a": {"b": "c"}}, {"a": {"b": "c"}}),
    ],
)
def test_merge_follows_the_rfc_s_examples(
    document: dict[str, JsonValue], patch: MergePatch, result: dict[str, JsonValue]
) -> None:
    assert merge(document, patch) == result


def _json_objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    nested = st.recursive(values, lambda inner: st.lists(inner, max_size=3) | _objects(inner), max_leaves=10)
    return _objects(nested)


def _objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


SCALARS: st.SearchStrategy[Any] = st.booleans() | st.integers() | st.text(max_size=3)
DOCUMENTS = _json_objects(SCALARS)
PATCHES = _json_objects(st.none() | SCALARS)


@given(DOCUMENTS, PATCHES)
def test_merge_changes_neither_the_document_nor_the_patch(document: dict[str, JsonValue], patch: MergePatch) -> None:
    before = json.dumps([document, patch])

    merge(document, patch)

    assert json.dumps([document, patch]) == before


@given(DOCUMENTS, PATCHES)
def test_applying_a_merge_patch_twice_is_the_same_as_once(document: dict[str, JsonValue], patch: MergePatch) -> None:
    once = merge(document, patch)

    assert merge(once, patch) == once


@given(DOCUMENTS, PATCHES)
def test_a_merge_patch_changes_only_the_fields_it_names(document: dict[str, JsonValue], patch: MergePatch) -> None:
    merged = merge(document, patch)

    for name in document.keys() | patch.keys():
        if name not in patch:
            assert merged[name] == document[name]
        elif patch[name] is None:
            assert name not in merged
        elif not isinstance(patch[name], dict):
            assert merged[name] == patch[name]


@given(DOCUMENTS)
def test_an_empty_merge_patch_changes_nothing(document: dict[str, JsonValue]) -> None:
    assert merge(document, {}) == document
