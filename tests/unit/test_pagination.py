import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_voice.domain import pagination
from pi_voice.domain.errors import InvalidCursor


@given(st.uuids())
def test_a_cursor_leads_back_to_the_id_that_it_was_made_of(last: object) -> None:
    last_id = str(last)

    cursor = pagination.encode_cursor(last_id)

    assert pagination.decode_cursor(cursor) == last_id


def test_a_cursor_can_stand_in_a_url_as_it_is() -> None:
    cursor = pagination.encode_cursor("fbffbfff-ffff-7fff-bfff-ffffffffffff")

    assert cursor == "-_-_____f_-__________w"


@given(st.text())
def test_any_other_text_is_an_invalid_cursor_and_nothing_else(text: str) -> None:
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
def test_what_no_list_handed_out_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        pagination.decode_cursor(text)


def test_the_cursor_that_the_refused_ones_were_made_of_is_good() -> None:
    assert pagination.decode_cursor("AZoAAAAAcACAAAAAAAAAAQ") == "019a0000-0000-7000-8000-000000000001"
