import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_voice.domain.ids import is_uuid, lowest_uuid7, uuid7


def test_an_id_is_a_uuid_of_version_7() -> None:
    ids = [uuid.UUID(uuid7()) for _ in range(1_000)]

    assert {(generated.version, generated.variant) for generated in ids} == {(7, uuid.RFC_4122)}


def test_an_id_begins_with_its_timestamp_in_milliseconds() -> None:
    generated = uuid7(lambda: 1_800_000_000.123)

    assert generated.startswith("01a3185c-507b-7")


@given(st.lists(st.integers(0, 2**48 - 1), min_size=2, max_size=2, unique=True))
def test_ids_sort_by_their_time(milliseconds: list[int]) -> None:
    earlier, later = sorted(milliseconds)

    first = uuid7(lambda: (earlier + 0.5) / 1000)
    second = uuid7(lambda: (later + 0.5) / 1000)

    assert first < second


@given(st.integers(0, 253_370_764_800), st.integers(0, 999))
def test_the_lowest_id_of_a_time_is_between_the_ids_before_and_after(seconds: int, milliseconds: int) -> None:
    before = uuid7(lambda: seconds - 0.001) if seconds else str(uuid.UUID(int=0))
    at = uuid7(lambda: seconds + milliseconds / 1000)

    assert uuid.UUID(before).int <= lowest_uuid7(seconds) < uuid.UUID(at).int


def test_ids_of_the_same_millisecond_differ() -> None:
    ids = {uuid7(lambda: 1_800_000_000.0) for _ in range(1_000)}

    assert len(ids) == 1_000


@pytest.mark.parametrize(
    "text",
    [
        "019A0000-0000-7000-8000-00000000000A",
        "{019a0000-0000-7000-8000-000000000001}",
        "urn:uuid:019a0000-0000-7000-8000-000000000001",
        "019a00000000700080000000000000ff",
        "019a0000-0000-7000-8000-00000000000",
        "019a0000-0000-7000-8000-000000000001\n",
        "019a0000-0000-7000-8000-00000000000\u0661",  # the Arabic digit one
        "sessions",
        "",
    ],
)
def test_any_other_form_of_a_uuid_is_not_accepted(text: str) -> None:
    assert not is_uuid(text)


def test_a_generated_id_is_a_uuid() -> None:
    assert is_uuid(uuid7())
