"""Limits of JSON text, compared with Python's own parser."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import JsonValue

from pi_voice.domain.errors import InvalidRequest, RequestTooLarge
from pi_voice.domain.json_text import check_names, check_values, without_lone_surrogates

ANY_TEXT = st.text(st.characters(exclude_categories=[]))
JSON_VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('"\\,[]{}:\n\u00e9'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('"\\,[{:a'), inner),
)


def number_of_values(value: JsonValue) -> int:
    match value:
        case dict():
            return 1 + sum(map(number_of_values, value.values()))
        case list():
            return 1 + sum(map(number_of_values, value))
        case _:
            return 1


@given(JSON_VALUES, st.sampled_from([None, 2]))
def test_text_with_more_values_than_allowed_is_refused(value: JsonValue, indent: int | None) -> None:
    text = json.dumps(value, indent=indent).encode()

    with pytest.raises(RequestTooLarge):
        check_values(text, number_of_values(value) - 1)


@given(JSON_VALUES)
def test_text_with_half_of_the_allowed_values_is_accepted(value: JsonValue) -> None:
    check_values(json.dumps(value).encode(), 2 * number_of_values(value))


def test_the_error_names_the_limit() -> None:
    with pytest.raises(RequestTooLarge, match="Send at most 1,000 values"):
        check_values(b"[" + b"0," * 1_000 + b"0]", 1_000)


@given(ANY_TEXT)
@example("\ud83d\ud83d\ude00\ude00 \\ud800 \\\ud800 \\\\\udc00")
def test_each_half_of_a_surrogate_pair_becomes_the_replacement_character(text: str) -> None:
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    assert json.loads(without_lone_surrogates(json.dumps(text).encode())) == expected


def test_upper_case_escapes_are_read_too() -> None:
    assert without_lone_surrogates(rb'"\uD800 \uDC00 \uD83D\uDE00"') == rb'"\ufffd \ufffd \uD83D\uDE00"'


@given(JSON_VALUES)
def test_a_name_may_be_in_several_objects(value: JsonValue) -> None:
    check_names(json.dumps([value, {"a": value, "b": value}]).encode())


@given(JSON_VALUES, st.text(max_size=3))
def test_a_name_that_is_twice_in_one_object_is_refused(value: JsonValue, name: str) -> None:
    quoted, inner = json.dumps(name), json.dumps(value)

    with pytest.raises(InvalidRequest):
        check_names(f'[{{{quoted}: {inner}, "x{name.encode().hex()}": 0, {quoted}: 1}}]'.encode())


def test_a_long_number_is_no_fault_of_names() -> None:
    check_names(b'{"a": %s, "b": 0.%s}' % (b"9" * 5_000, b"9" * 5_000))
