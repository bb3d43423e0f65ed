import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_voice.domain import transcripts
from pi_voice.domain.errors import TranscriptTooLarge
from pi_voice.domain.transcripts import TranscriptTurn

MEGABYTE = 1_048_576
TIMES = st.none() | st.integers(0, 2**53)
TURNS: st.SearchStrategy[list[Any]] = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["agent", "user"]), "text": st.text()},
        optional={"start_ms": TIMES, "end_ms": TIMES},
    )
)


def said(*texts: str) -> list[TranscriptTurn]:
    return [{"role": "user", "text": text} for text in texts]


def noise(seed: int, length: int) -> list[TranscriptTurn]:
    """Say so many Chinese characters, in an order that nothing can compress much."""
    letters = random.Random(seed).choices([chr(code) for code in range(0x4E00, 0x9FFF)], k=length)  # noqa: S311
    return said(*("".join(letters[start : start + 20_000]) for start in range(0, length, 20_000)))


def size(turns: list[TranscriptTurn]) -> int:
    """Tell what a transcript takes as JSON in UTF-8, without a space."""
    return len(json.dumps(turns, ensure_ascii=False, separators=(",", ":")).encode())


def refusal(turns: list[TranscriptTurn]) -> list[tuple[str, str]]:
    """Return what is named as too large, nothing when the transcript is taken."""
    try:
        transcripts.check_size(turns)
    except TranscriptTooLarge as error:
        return [(fault.path, fault.message) for fault in error.faults]
    return []


def test_five_thousand_turns_are_taken_and_one_more_is_not() -> None:
    assert refusal(said(*["a"] * 5_000)) == []
    assert refusal(said(*["a"] * 5_001)) == [("transcript", "Has 5,001 turns; at most 5,000 are taken.")]


@pytest.mark.parametrize("letter", ["a", "é", "名", "🙂"])
def test_twenty_thousand_characters_a_turn_are_taken_and_one_more_is_not(letter: str) -> None:
    assert refusal(said("short", letter * 20_000)) == []
    assert refusal(said("short", letter * 20_001)) == [
        ("transcript.1.text", "Has 20,001 characters; at most 20,000 are taken.")
    ]


@pytest.mark.parametrize("letter", ["a", "é", "名", "🙂"])
def test_a_megabyte_of_utf_8_is_taken_and_one_byte_more_is_not(letter: str) -> None:
    turns = said(*[letter * 12_000] * (MEGABYTE // len(letter.encode()) // 12_100), "", "", "", "")
    for turn in turns[-4:]:
        turn["text"] = "x" * min(20_000, MEGABYTE - size(turns))

    assert size(turns) == MEGABYTE
    assert refusal(turns) == []

    turns[0]["text"] += "x"
    assert refusal(turns) == [("transcript", "Takes 1,048,577 bytes as JSON; at most 1,048,576 are taken.")]


def test_letters_that_json_escapes_count_as_they_are_written() -> None:
    turns = said(*['"' * 20_000] * 26)  # two bytes each: \"

    assert size(turns) < MEGABYTE
    assert refusal(turns) == []
    assert refusal([*turns, *said('"' * 5_000)]) == [
        ("transcript", "Takes 1,050,703 bytes as JSON; at most 1,048,576 are taken.")
    ]


def test_what_is_too_large_is_named_place_by_place_but_not_without_end() -> None:
    faults = refusal(said(*["a" * 20_001] * 50))

    assert [path for path, _ in faults] == [f"transcript.{number}.text" for number in range(20)]


def test_an_empty_transcript_is_taken() -> None:
    assert refusal([]) == []


@given(TURNS)
def test_a_transcript_is_read_back_as_it_was_packed(turns: list[TranscriptTurn]) -> None:
    assert transcripts.unpack(transcripts.pack(turns)) == turns


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.integers(1, 300_000))
def test_what_does_not_compress_is_packed_into_pieces_that_fit_an_item_each(seed: int, length: int) -> None:
    turns = noise(seed, length)

    pieces = transcripts.pack(turns)

    assert all(0 < len(piece) <= 350_000 for piece in pieces)
    assert transcripts.unpack(pieces) == turns


def test_a_megabyte_of_noise_takes_more_than_one_piece() -> None:
    turns = noise(seed=4711, length=340_000)
    assert refusal(turns) == []

    pieces = transcripts.pack(turns)

    assert len(pieces) > 1
    assert [len(piece) for piece in pieces[:-1]] == [350_000] * (len(pieces) - 1)
    assert transcripts.unpack(pieces) == turns


def test_an_hour_of_talk_fits_one_piece() -> None:
    turns = said(*["I would like to move my appointment to Thursday at ten, if that is possible."] * 700)

    assert len(transcripts.pack(turns)) == 1
