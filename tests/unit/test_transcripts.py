import json

import pytest

from pi_voice.domain import transcripts
from pi_voice.domain.errors import TranscriptTooLarge
from pi_voice.domain.transcripts import TranscriptTurn

MEGABYTE = 1_048_576


def user_turns(*texts: str) -> list[TranscriptTurn]:
    return [{"role": "user", "text": text} for text in texts]


def json_size(turns: list[TranscriptTurn]) -> int:
    """Return the size of a transcript as compact JSON in UTF-8, in bytes."""
    return len(json.dumps(turns, ensure_ascii=False, separators=(",", ":")).encode())


def size_errors(turns: list[TranscriptTurn]) -> list[tuple[str, str]]:
    """Return paths and messages of the exceeded limits; empty if the transcript is accepted."""
    try:
        transcripts.check_size(turns)
    except TranscriptTooLarge as error:
        return [(detail.path, detail.message) for detail in error.details]
    return []


def test_a_transcript_may_have_5000_turns() -> None:
    assert size_errors(user_turns(*["a"] * 5_000)) == []
    assert size_errors(user_turns(*["a"] * 5_001)) == [("transcript", "Has 5,001 turns; at most 5,000 are taken.")]


@pytest.mark.parametrize("letter", ["a", "é", "名", "🙂"])
def test_a_turn_may_have_20000_characters(letter: str) -> None:
    assert size_errors(user_turns("short", letter * 20_000)) == []
    assert size_errors(user_turns("short", letter * 20_001)) == [
        ("transcript.1.text", "Has 20,001 characters; at most 20,000 are taken.")
    ]


@pytest.mark.parametrize("letter", ["a", "é", "名", "🙂"])
def test_a_transcript_may_have_a_megabyte_of_utf_8(letter: str) -> None:
    turns = user_turns(*[letter * 12_000] * (MEGABYTE // len(letter.encode()) // 12_100), "", "", "", "")
    for turn in turns[-4:]:
        turn["text"] = "x" * min(20_000, MEGABYTE - json_size(turns))

    assert json_size(turns) == MEGABYTE
    assert size_errors(turns) == []

    turns[0]["text"] += "x"
    assert size_errors(turns) == [("transcript", "Takes 1,048,577 bytes as JSON; at most 1,048,576 are taken.")]


def test_escaped_characters_count_as_json_writes_them() -> None:
    turns = user_turns(*['"' * 20_000] * 26)  # two bytes each: \"

    assert json_size(turns) < MEGABYTE
    assert size_errors(turns) == []
    assert size_errors([*turns, *user_turns('"' * 5_000)]) == [
        ("transcript", "Takes 1,050,703 bytes as JSON; at most 1,048,576 are taken.")
    ]


def test_at_most_20_turns_are_reported_as_too_long() -> None:
    errors = size_errors(user_turns(*["a" * 20_001] * 50))

    assert [path for path, _ in errors] == [f"transcript.{number}.text" for number in range(20)]


def test_an_empty_transcript_is_accepted() -> None:
    assert size_errors([]) == []
