from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_voice.domain.extractions import TranscriptQuality
from pi_voice.domain.transcript_quality import assess_quality
from pi_voice.domain.transcripts import TranscriptTurn


def turn(role: Any, text: str, start: int | None = None, end: int | None = None) -> TranscriptTurn:
    """Return a turn, with times in seconds if given."""
    timed: TranscriptTurn = {"role": role, "text": text}
    if start is not None:
        timed["start_ms"] = start * 1000
    if end is not None:
        timed["end_ms"] = end * 1000
    return timed


CALL = [
    turn("agent", "Which city?", 0, 2),
    turn("user", "Oslo.", 3, 4),
    turn("agent", "For how many?", 5, 6),
    turn("user", "Five.", 18, 19),
]


def test_quality_has_counts_gaps_and_coverage() -> None:
    assert assess_quality(CALL, 20) == TranscriptQuality(
        agent_turns=2,
        user_turns=2,
        user_is_silent=False,
        repeated_turns=0,
        gaps=1,
        longest_gap_seconds=12.0,
        coverage=0.95,
    )


@pytest.mark.parametrize(
    ("pause", "gaps"), [(0, 0), (10, 0), (11, 1), (-3, 0)], ids=["none", "ten seconds", "longer", "talked over"]
)
def test_a_gap_is_a_pause_of_more_than_ten_seconds(pause: int, gaps: int) -> None:
    quality = assess_quality([turn("agent", "a", 0, 5), turn("user", "b", 5 + pause, 60)], None)

    assert (quality.gaps, quality.longest_gap_seconds) == (gaps, max(0.0, float(pause)))


def test_the_longest_gap_is_rounded_to_tenths_of_a_second() -> None:
    turns: list[TranscriptTurn] = [
        {"role": "agent", "text": "a", "end_ms": 1_000},
        {"role": "user", "text": "b", "start_ms": 12_345},
    ]

    assert assess_quality(turns, None).longest_gap_seconds == 11.3


@pytest.mark.parametrize(
    "turns",
    [
        [turn("agent", "a"), turn("user", "b")],
        [turn("agent", "a", 0), turn("user", "b", 20)],
        [turn("agent", "a", None, 1), turn("user", "b", None, 20)],
        [turn("agent", "a", 0, 1)],
        [{"role": "agent", "text": "a", "start_ms": None, "end_ms": None}, turn("user", "b", 3)],
    ],
    ids=str,
)
def test_the_longest_gap_is_null_without_times_on_both_sides(turns: list[TranscriptTurn]) -> None:
    quality = assess_quality(turns, 100)

    assert (quality.gaps, quality.longest_gap_seconds) == (0, None)


def test_silence_before_the_first_turn_is_not_a_gap() -> None:
    assert assess_quality([turn("agent", "Hello?", 40, 41), turn("user", "Hi.", 42, 43)], None).gaps == 0


@pytest.mark.parametrize(
    ("turns", "duration", "coverage"),
    [
        (CALL, 19, 1.0),
        (CALL, 10, 1.0),
        (CALL, 38, 0.5),
        (CALL, 57, 0.33),
        (CALL, None, None),
        (CALL, 0, None),
        ([turn("user", "x")], 60, None),
        ([turn("user", "x", 0, 30), turn("agent", "y", 5, 6)], 60, 0.5),
    ],
    ids=str,
)
def test_coverage_is_the_share_of_the_call_before_the_end_of_the_last_turn(
    turns: list[TranscriptTurn], duration: float | None, coverage: float | None
) -> None:
    assert assess_quality(turns, duration).coverage == coverage


@pytest.mark.parametrize(
    ("end", "duration", "unit"),
    [
        (19, 20, None), (25, 20, None), (26, 20, "duration_seconds in seconds"), (0.02, 20, "not in seconds"),
        (19, None, None), (0, 0, None), (0.004, 4, None),
    ],
)  # fmt: skip
def test_times_that_do_not_fit_the_duration_have_a_warning(
    end: float, duration: float | None, unit: str | None
) -> None:
    turns: list[TranscriptTurn] = [{"role": "user", "text": "Hi.", "start_ms": 0, "end_ms": round(end * 1_000)}]

    warnings = assess_quality(turns, duration).warnings
    assert [unit in warning for warning in warnings if unit] == ([True] if unit else [])
    assert len(warnings) == (unit is not None)


@pytest.mark.parametrize("texts", [[], [""], ["  "], ["...", "…"], ["?!", "-", "\u2014"]], ids=str)
def test_a_caller_without_letters_or_digits_is_silent(texts: list[str]) -> None:
    turns = [turn("agent", "Hello?"), *(turn("user", text) for text in texts)]

    assert assess_quality(turns, None).user_is_silent
    assert assess_quality(turns, None).user_turns == len(texts)


@pytest.mark.parametrize("word", ["Oslo", "4", "東", "да", "ok."])
def test_a_caller_with_one_word_in_any_script_is_not_silent(word: str) -> None:
    assert not assess_quality([turn("agent", "Hello?"), turn("user", "..."), turn("user", word)], None).user_is_silent


@pytest.mark.parametrize(
    ("turns", "repeated"),
    [
        ([turn("user", "Yes."), turn("user", "Yes.")], 1),
        ([turn("user", "Yes."), turn("user", "  YES. ")], 1),
        ([turn("user", "my  name"), turn("user", "my\nname")], 1),
        ([turn("user", "Yes."), turn("agent", "Yes.")], 0),
        ([turn("user", "Yes."), turn("user", "Yes!")], 0),
        ([turn("user", "Yes."), turn("agent", "So."), turn("user", "Yes.")], 0),
        ([turn("agent", "Hello?")] * 4, 3),
    ],
    ids=str,
)
def test_a_repeated_turn_has_the_role_and_text_of_the_turn_before(turns: list[TranscriptTurn], repeated: int) -> None:
    assert assess_quality(turns, None).repeated_turns == repeated


TIMES = st.none() | st.integers(0, 10**9)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["agent", "user"]), "text": st.text(max_size=5)},
            optional={"start_ms": TIMES, "end_ms": TIMES},
        ),
        max_size=8,
    ),
    st.none() | st.floats(0, 86_400),
)
def test_quality_can_be_assessed_for_any_transcript(turns: Any, duration: float | None) -> None:
    quality = assess_quality(turns, duration)

    assert quality.agent_turns + quality.user_turns == len(turns)
    assert quality.coverage is None or 0 <= quality.coverage <= 1
    assert quality.longest_gap_seconds is None or quality.longest_gap_seconds >= 0
