import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pi_voice.domain import pagination
from pi_voice.domain.errors import InvalidCursor


@given(st.uuids())
def test_decoding_a_cursor_returns_the_encoded_id(last: object) -> None:
    last_id = str(last)

    cursor = pagination.encode_cursor(last_id)

    assert pagination.decode_cursor(cursor) == last_id


def test_a_cursor_needs_no_escaping_in_a_url() -> None:
    cursor = pagination.encode_cursor("fbffbfff-ffff-7fff-bfff-ffffffffffff")

    assert cursor == "-_-_____f_-__________w"


def test_a_page_has_20_items_unless_the_query_says_otherwise_and_at_most_100() -> None:
    assert pagination.PageQuery().limit == 20
    assert pagination.PageQuery.model_validate({"limit": "100"}).limit == 100
    for limit in ("0", "101"):
        with pytest.raises(ValidationError):
            pagination.PageQuery.model_validate({"limit": limit})


@given(st.text())
def test_any_text_is_a_cursor_or_raises_invalid_cursor(text: str) -> None:
    with contextlib.suppress(InvalidCursor):
        last_id = pagination.decode_cursor(text)
        assert pagination.encode_cursor(last_id) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AZoAAAAAcACAAAAAAAAAAQ==",  # with padding
        "AZoAAAAAcACAAAAAAAAAAR",  # bits beyond the last byte
        "AZoAAAAAcACAAAAAAAAAAQ ",
        "AZoAAAAAcACAAAAA\nAAAAAQ",
        "AZoAAAAAcACAAAAAAAAAA",
        "AZoAAAAAcACAAAAAAAAAAQAA",
        "é" * 22,
        "019a0000-0000-7000-8000-000000000001",
    ],
)
def test_a_cursor_that_was_not_returned_by_a_list_is_rejected(text: str) -> None:
    with pytest.raises(InvalidCursor):
        pagination.decode_cursor(text)


def test_the_cursor_that_the_rejected_ones_vary_is_valid() -> None:
    assert pagination.decode_cursor("AZoAAAAAcACAAAAAAAAAAQ") == "019a0000-0000-7000-8000-000000000001"
