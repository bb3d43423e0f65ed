import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_voice import cursors
from pi_voice.errors import InvalidCursor


@given(st.uuids())
def test_a_cursor_leads_back_to_the_id_that_it_was_made_of(last: object) -> None:
    last_id = str(last)

    cursor = cursors.encode(last_id)

    assert cursors.decode(cursor) == last_id


def test_a_cursor_can_stand_in_a_url_as_it_is() -> None:
    cursor = cursors.encode("fbffbfff-ffff-7fff-bfff-ffffffffffff")

    assert cursor == "-_-_____f_-__________w"


@given(st.text())
def test_any_other_text_is_an_invalid_cursor_and_nothing_else(text: str) -> None:
    with contextlib.suppress(InvalidCursor):
        last_id = cursors.decode(text)
        assert cursors.encode(last_id) == text


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
        cursors.decode(text)


def test_the_cursor_that_the_refused_ones_were_made_of_is_good() -> None:
    assert cursors.decode("AZoAAAAAcACAAAAAAAAAAQ") == "019a0000-0000-7000-8000-000000000001"
