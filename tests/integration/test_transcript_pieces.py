"""Compression of transcripts into pieces, without a database."""

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pi_voice.adapters.dynamodb.transcripts import pack, unpack
from pi_voice.domain.transcripts import TranscriptTurn, check_size

TIMES = st.none() | st.integers(0, 2**53)
TURNS: st.SearchStrategy[list[Any]] = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["agent", "user"]), "text": st.text()},
        optional={"start_ms": TIMES, "end_ms": TIMES},
    )
)


def user_turns(*texts: str) -> list[TranscriptTurn]:
    return [{"role": "user", "text": text} for text in texts]


def random_turns(seed: int, length: int) -> list[TranscriptTurn]:
    """Return turns with random Chinese characters, which compress little."""
    letters = random.Random(seed).choices([chr(code) for code in range(0x4E00, 0x9FFF)], k=length)  # noqa: S311
    return user_turns(*("".join(letters[start : start + 20_000]) for start in range(0, length, 20_000)))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(TURNS)
def test_unpack_reverses_pack(turns: list[TranscriptTurn]) -> None:
    assert unpack(pack(turns)) == turns


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32), st.integers(1, 300_000))
def test_a_transcript_that_compresses_little_is_split_into_pieces_of_one_item_each(seed: int, length: int) -> None:
    turns = random_turns(seed, length)

    pieces = pack(turns)

    assert all(0 < len(piece) <= 350_000 for piece in pieces)
    assert unpack(pieces) == turns


def test_a_megabyte_of_random_characters_takes_more_than_one_piece() -> None:
    turns = random_turns(seed=4711, length=340_000)
    check_size(turns)

    pieces = pack(turns)

    assert len(pieces) > 1
    assert [len(piece) for piece in pieces[:-1]] == [350_000] * (len(pieces) - 1)
    assert unpack(pieces) == turns


def test_an_hour_of_speech_fits_one_piece() -> None:
    turns = user_turns(*["I would like to move my appointment to Thursday at ten, if that is possible."] * 700)

    assert len(pack(turns)) == 1
