"""Transcript quality: signs of missing or repeated speech, from the turns and their times."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from pi_voice.domain.extractions import TranscriptQuality
from pi_voice.domain.transcripts import TranscriptTurn

GAP_SECONDS: Final = 10.0
"""Minimum length of a pause that counts as a gap."""

TOLERANCE_SECONDS: Final = 5.0
"""Difference between the clocks of a turn and of the call that has no warning."""


def assess_quality(turns: Sequence[TranscriptTurn], duration_seconds: float | None) -> TranscriptQuality:
    """Return the quality of a transcript; values that need times are None if the turns have none."""
    user_texts = [turn["text"] for turn in turns if turn["role"] == "user"]
    pauses = [
        (start - end) / 1000
        for before, after in pairwise(turns)
        if (end := before.get("end_ms")) is not None and (start := after.get("start_ms")) is not None
    ]
    ends = [end for turn in turns if (end := turn.get("end_ms")) is not None]
    return TranscriptQuality(
        agent_turns=len(turns) - len(user_texts),
        user_turns=len(user_texts),
        user_is_silent=not any(letter.isalnum() for text in user_texts for letter in text),
        repeated_turns=sum(_normalized(before) == _normalized(after) for before, after in pairwise(turns)),
        gaps=sum(pause > GAP_SECONDS for pause in pauses),
        longest_gap_seconds=round(max(0.0, *pauses), 1) if pauses else None,
        warnings=_warnings(max(ends) / 1000, duration_seconds) if ends and duration_seconds is not None else [],
        coverage=round(min(1.0, max(ends) / 1000 / duration_seconds), 2) if ends and duration_seconds else None,
    )


def _warnings(end: float, duration_seconds: float) -> list[str]:
    """Compare the end of the last turn in seconds with the duration of the call."""
    warnings = []
    if end > duration_seconds + TOLERANCE_SECONDS:
        warnings.append(
            f"The last turn ends after {end:,.1f} s, but duration_seconds is {duration_seconds:,.1f}. "
            "Send duration_seconds in seconds, and start_ms and end_ms in milliseconds since the call began."
        )
    if duration_seconds >= GAP_SECONDS and end * 1000 <= duration_seconds + TOLERANCE_SECONDS:
        warnings.append(
            f"The last turn ends after {end:,.3f} s. Send start_ms and end_ms in milliseconds, not in seconds."
        )
    return warnings


def _normalized(turn: TranscriptTurn) -> tuple[str, str]:
    return turn["role"], " ".join(turn["text"].casefold().split())
