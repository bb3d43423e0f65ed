import json

import pytest
from pi_voice.documents import Document, Metadata, Page, Paging
from pydantic import JsonValue, ValidationError


class Note(Document):
    """A document to try things with."""

    text: str = "t"
    number: int = 1
    share: float = 0.5
    metadata: Metadata = {}


def read(**fields: JsonValue) -> Note:
    return Note.model_validate_json(json.dumps(fields))


def test_a_field_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        read(txet="typo")


def test_a_document_does_not_change() -> None:
    note = read()

    with pytest.raises(ValidationError, match="frozen"):
        note.text = "another"  # type: ignore[misc]


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
        read(**{field: value})


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_is_finite(number: str) -> None:
    with pytest.raises(ValidationError):
        Note.model_validate_json(f'{{"share": {number}}}')


def test_metadata_are_up_to_16_pairs() -> None:
    sixteen: dict[str, JsonValue] = {f"k{number}": "v" for number in range(16)}

    assert len(read(metadata=sixteen).metadata) == 16
    with pytest.raises(ValidationError):
        read(metadata={**sixteen, "one-more": "v"})


@pytest.mark.parametrize(
    "metadata",
    [{"k" * 41: "v"}, {"": "v"}, {"k": "v" * 501}, {"k": 1}, {"k": None}, {"k": True}, {"k": {}}, ["k"], None],
)
def test_a_pair_of_metadata_is_a_short_key_and_a_text(metadata: JsonValue) -> None:
    assert read(metadata={"k" * 40: "v" * 500, "empty": ""}).metadata == {"k" * 40: "v" * 500, "empty": ""}
    with pytest.raises(ValidationError):
        read(metadata=metadata)


def test_the_default_of_metadata_is_nobody_s_to_change() -> None:
    Note().metadata["k"] = "v"

    assert Note().metadata == {}


@pytest.mark.parametrize(("limit", "read_as"), [("1", 1), ("20", 20), ("100", 100)])
def test_a_query_s_limit_is_read_from_text(limit: str, read_as: int) -> None:
    assert Paging.model_validate({"limit": limit}).limit == read_as


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "ten", ""])
def test_a_query_s_limit_is_a_number_from_1_to_100(limit: str) -> None:
    with pytest.raises(ValidationError):
        Paging.model_validate({"limit": limit})


def test_a_query_that_says_nothing_gets_twenty_from_the_start() -> None:
    assert (Paging().limit, Paging().cursor) == (20, None)


def test_a_page_is_written_as_data_and_next_cursor() -> None:
    assert Page[Note](data=[]).model_dump_json() == '{"data":[],"next_cursor":null}'
