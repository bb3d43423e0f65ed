import json

import pytest
from pydantic import Field, JsonValue, ValidationError

from pi_voice.domain.base import AnyJson, Document, JsonObject, Metadata, dotted_path, parse_request
from pi_voice.domain.errors import InvalidRequest
from pi_voice.domain.pagination import Page, PageQuery


class Note(Document):
    """A document with one field of each type."""

    text: str = "t"
    number: int = 1
    share: float = 0.5
    metadata: Metadata = Field(default={})
    anything: AnyJson = None
    object: JsonObject = Field(default={})


def note(**fields: JsonValue) -> Note:
    return Note.model_validate_json(json.dumps(fields))


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        note(txet="typo")


def test_a_document_is_immutable() -> None:
    document = note()

    with pytest.raises(ValidationError, match="frozen"):
        document.text = "another"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 1),
        ("text", True),
        ("text", None),
        ("number", "1"),
        ("number", True),
        ("number", 1.5),
        ("number", 1.0),
        ("share", "0.5"),
        ("share", False),
    ],
)
def test_a_value_of_another_type_is_not_converted(field: str, value: JsonValue) -> None:
    with pytest.raises(ValidationError):
        note(**{field: value})


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_must_be_finite(number: str) -> None:
    with pytest.raises(ValidationError):
        Note.model_validate_json(f'{{"share": {number}}}')


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "[1, [NaN]]", '{"a": [{"b": 1e999}]}'])
def test_a_number_in_free_json_must_be_finite(number: str) -> None:
    for text in (f'{{"anything": {number}}}', f'{{"object": {{"k": {number}}}}}'):
        with pytest.raises(ValidationError, match="finite"):
            Note.model_validate_json(text)


def test_free_json_is_not_changed() -> None:
    anything: dict[str, JsonValue] = {"k": [None, True, 1, 1.5, 1e308, "text", {"deeper": []}]}

    assert note(anything=anything, object=anything) == Note(anything=anything, object=anything)


def test_metadata_has_up_to_16_pairs() -> None:
    sixteen: dict[str, JsonValue] = {f"k{number}": "v" for number in range(16)}

    assert len(note(metadata=sixteen).metadata) == 16
    with pytest.raises(ValidationError):
        note(metadata={**sixteen, "one-more": "v"})


@pytest.mark.parametrize(
    "metadata",
    [{"k" * 41: "v"}, {"": "v"}, {"k": "v" * 501}, {"k": 1}, {"k": None}, {"k": True}, {"k": {}}, ["k"], None],
)
def test_metadata_has_keys_of_1_to_40_and_texts_of_up_to_500_characters(metadata: JsonValue) -> None:
    assert note(metadata={"k" * 40: "v" * 500, "empty": ""}).metadata == {"k" * 40: "v" * 500, "empty": ""}
    with pytest.raises(ValidationError):
        note(metadata=metadata)


def test_the_default_metadata_is_not_shared_between_documents() -> None:
    Note().metadata["k"] = "v"

    assert Note().metadata == {}


@pytest.mark.parametrize(("text", "limit"), [("1", 1), ("20", 20), ("100", 100)])
def test_a_query_s_limit_is_parsed_from_text(text: str, limit: int) -> None:
    assert PageQuery.model_validate({"limit": text}).limit == limit


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "ten", ""])
def test_any_other_limit_than_1_to_100_is_rejected(limit: str) -> None:
    with pytest.raises(ValidationError):
        PageQuery.model_validate({"limit": limit})


def test_an_empty_query_asks_for_twenty_from_the_start() -> None:
    assert (PageQuery().limit, PageQuery().cursor) == (20, None)


def test_a_page_has_data_and_next_cursor() -> None:
    assert Page[Note](data=[]).model_dump_json() == '{"data":[],"next_cursor":null}'


def test_an_invalid_request_has_a_detail_for_each_error() -> None:
    sent = b'{"txet": "typo", "number": "1", "metadata": {"k": 1}, "object": {"n": 1e999}}'

    with pytest.raises(InvalidRequest) as raised:
        parse_request(lambda: Note.model_validate_json(sent))

    assert [(detail.path, detail.message) for detail in raised.value.details] == [
        ("number", "Input should be a valid integer."),
        ("metadata.k", "Input should be a valid string."),
        ("object", "must hold finite numbers only."),
        ("txet", "Is not a field of this request. Remove it, or check its spelling."),
    ]


@pytest.mark.parametrize(
    ("steps", "path"),
    [
        ((), ""),
        (("a",), "a"),
        (("a", "b", 0, "c d"), "a.b.0.c d"),
        (("a.b",), "a\\.b"),
        (("a\\", "b"), "a\\\\.b"),
        (("a\\.b",), "a\\\\\\.b"),
        (("", "a", ""), ".a."),
    ],
)
def test_a_path_has_a_backslash_before_a_dot_or_backslash_of_a_key(steps: tuple[str | int, ...], path: str) -> None:
    assert dotted_path(steps) == path


def test_the_path_of_a_detail_shows_that_a_dot_belongs_to_a_key() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_request(lambda: Note.model_validate({"metadata": {"a.b": 1}, "c.d": 2}))

    assert [detail.path for detail in raised.value.details] == ["metadata.a\\.b", "c\\.d"]


def test_a_missing_field_has_a_detail() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_request(lambda: Page[Note].model_validate_json(b'{"data": [{}], "next_cursor": 7}'))
    assert [detail.path for detail in raised.value.details] == ["next_cursor"]

    with pytest.raises(InvalidRequest) as raised:
        parse_request(lambda: Page[Note].model_validate_json(b"{}"))
    assert [(detail.path, detail.message) for detail in raised.value.details] == [("data", "Is required.")]


def test_a_rejected_metadata_key_is_the_end_of_its_path() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_request(lambda: note(metadata={"k" * 41: "v"}))

    assert [detail.path for detail in raised.value.details] == ["metadata." + "k" * 41]


def test_an_invalid_request_has_at_most_fifty_details() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_request(lambda: note(**{f"typo-{number}": 1 for number in range(60)}))

    assert len(raised.value.details) == 50


def test_more_than_a_thousand_faults_are_counted_and_not_listed() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_request(lambda: note(**{f"typo-{number}": 1 for number in range(1_001)}))

    assert [(detail.path, detail.message) for detail in raised.value.details] == [
        ("", "Has 1,001 faults, too many to list.")
    ]


def test_details_do_not_quote_the_request() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_request(lambda: note(number="hush-4711", text=["hush-4711"], metadata={"k": ["hush-4711"]}))

    assert "hush-4711" not in repr(raised.value.details)
