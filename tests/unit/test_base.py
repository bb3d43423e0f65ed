import json

import pytest
from pydantic import Field, JsonValue, ValidationError

from pi_voice.domain.base import AnyJson, Document, JsonObject, Metadata, parse_request
from pi_voice.domain.errors import InvalidRequest
from pi_voice.domain.pagination import Page, PageQuery


class Note(Document):
    """A document to try things with."""

    text: str = "t"
    number: int = 1
    share: float = 0.5
    metadata: Metadata = Field(default={})
    anything: AnyJson = None
    object: JsonObject = Field(default={})


def note(**fields: JsonValue) -> Note:
    return Note.model_validate_json(json.dumps(fields))


def test_a_field_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        note(txet="typo")


def test_a_document_does_not_change() -> None:
    frozen = note()

    with pytest.raises(ValidationError, match="frozen"):
        frozen.text = "another"  # type: ignore[misc]


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
def test_no_value_is_converted_into_another_type(field: str, value: JsonValue) -> None:
    with pytest.raises(ValidationError):
        note(**{field: value})


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_is_finite(number: str) -> None:
    with pytest.raises(ValidationError):
        Note.model_validate_json(f'{{"share": {number}}}')


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "[1, [NaN]]", '{"a": [{"b": 1e999}]}'])
def test_a_number_is_finite_wherever_any_json_may_stand(number: str) -> None:
    for text in (f'{{"anything": {number}}}', f'{{"object": {{"k": {number}}}}}'):
        with pytest.raises(ValidationError, match="must hold finite numbers only"):
            Note.model_validate_json(text)


def test_any_json_is_taken_as_it_is() -> None:
    anything: dict[str, JsonValue] = {"k": [None, True, 1, 1.5, 1e308, "text", {"deeper": []}]}

    assert note(anything=anything, object=anything) == Note(anything=anything, object=anything)


def test_metadata_are_up_to_16_pairs() -> None:
    sixteen: dict[str, JsonValue] = {f"k{number}": "v" for number in range(16)}

    assert len(note(metadata=sixteen).metadata) == 16
    with pytest.raises(ValidationError):
        note(metadata={**sixteen, "one-more": "v"})


@pytest.mark.parametrize(
    "metadata",
    [{"k" * 41: "v"}, {"": "v"}, {"k": "v" * 501}, {"k": 1}, {"k": None}, {"k": True}, {"k": {}}, ["k"], None],
)
def test_a_pair_of_metadata_is_a_short_key_and_a_text(metadata: JsonValue) -> None:
    assert note(metadata={"k" * 40: "v" * 500, "empty": ""}).metadata == {"k" * 40: "v" * 500, "empty": ""}
    with pytest.raises(ValidationError):
        note(metadata=metadata)


def test_the_default_of_metadata_is_nobody_s_to_change() -> None:
    Note().metadata["k"] = "v"

    assert Note().metadata == {}


@pytest.mark.parametrize(("limit", "read_as"), [("1", 1), ("20", 20), ("100", 100)])
def test_a_query_s_limit_is_read_from_text(limit: str, read_as: int) -> None:
    assert PageQuery.model_validate({"limit": limit}).limit == read_as


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "ten", ""])
def test_a_query_s_limit_is_a_number_from_1_to_100(limit: str) -> None:
    with pytest.raises(ValidationError):
        PageQuery.model_validate({"limit": limit})


def test_a_query_that_says_nothing_gets_twenty_from_the_start() -> None:
    assert (PageQuery().limit, PageQuery().cursor) == (20, None)


def test_a_page_is_written_as_data_and_next_cursor() -> None:
    assert Page[Note](data=[]).model_dump_json() == '{"data":[],"next_cursor":null}'


def test_what_a_caller_sent_is_read_or_refused_with_every_fault_by_its_path() -> None:
    sent = b'{"txet": "typo", "number": "1", "metadata": {"k": 1}, "object": {"n": 1e999}}'

    with pytest.raises(InvalidRequest) as refusal:
        parse_request(lambda: Note.model_validate_json(sent))

    assert [(detail.path, detail.message) for detail in refusal.value.details] == [
        ("number", "Input should be a valid integer."),
        ("metadata.k", "Input should be a valid string."),
        ("object", "must hold finite numbers only."),
        ("txet", "Is not a field of this request. Remove it, or check its spelling."),
    ]


def test_a_field_that_is_missing_is_named() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_request(lambda: Page[Note].model_validate_json(b'{"data": [{}], "next_cursor": 7}'))
    assert [detail.path for detail in refusal.value.details] == ["next_cursor"]

    with pytest.raises(InvalidRequest) as refusal:
        parse_request(lambda: Page[Note].model_validate_json(b"{}"))
    assert [(detail.path, detail.message) for detail in refusal.value.details] == [("data", "Is required.")]


def test_a_key_that_is_refused_is_named_by_itself() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_request(lambda: note(metadata={"k" * 41: "v"}))

    assert [detail.path for detail in refusal.value.details] == ["metadata." + "k" * 41]


def test_no_more_than_fifty_faults_are_named() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_request(lambda: note(**{f"typo-{number}": 1 for number in range(60)}))

    assert len(refusal.value.details) == 50


def test_nothing_that_was_sent_is_repeated() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_request(lambda: note(number="hush-4711", text=["hush-4711"], metadata={"k": ["hush-4711"]}))

    assert "hush-4711" not in repr(refusal.value.details)
