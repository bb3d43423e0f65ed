"""Transcripts: the turns of a call, their limits, and their text for a model."""

import json
from collections.abc import Sequence
from typing import Annotated, Final, Literal, NotRequired

from pydantic import Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from pi_voice.domain.errors import ErrorDetail, TranscriptTooLarge

MAX_TURNS: Final = 5_000
MAX_TURN_CHARACTERS: Final = 20_000
MAX_BYTES: Final = 1_048_576
MAX_CHECKPOINT_TURNS: Final = 500
MAX_CHECKPOINT_BYTES: Final = 300_000
"""Maximum size of one checkpoint as JSON, so that it fits one stored item even uncompressed."""
_MAX_DETAILS: Final = 20

_LINE_BREAKS: Final = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""Line separators that JSON does not escape."""

Milliseconds = Annotated[int, Field(ge=0)]


@with_config(extra="forbid", strict=True)
class TranscriptTurn(TypedDict):
    """One turn of the conversation; times are milliseconds since the start of the call."""

    role: Literal["agent", "user"]
    """Who spoke."""
    text: str
    """What was said, up to 20,000 characters."""
    start_ms: NotRequired[Milliseconds | None]
    """Start of the turn."""
    end_ms: NotRequired[Milliseconds | None]
    """End of the turn."""


TURNS: Final = TypeAdapter(list[TranscriptTurn])


def check_size(turns: Sequence[TranscriptTurn]) -> None:
    """Check a transcript against its limits; raises TranscriptTooLarge with a detail for each one exceeded."""
    details = _long_turns("transcript", turns)
    if len(turns) > MAX_TURNS:
        details.append(ErrorDetail("transcript", f"Has {len(turns):,} turns; at most {MAX_TURNS:,} are taken."))
    if not details and (size := len(TURNS.dump_json(list(turns)))) > MAX_BYTES:
        details.append(ErrorDetail("transcript", f"Takes {size:,} bytes as JSON; at most {MAX_BYTES:,} are taken."))
    if details:
        raise TranscriptTooLarge(details=details)


def check_checkpoint(turns: Sequence[TranscriptTurn], known: int, saved_turns: int, saved_bytes: int) -> int:
    """Check new turns and the transcript they extend against the limits; return their size as JSON in bytes.

    `known` is the number of turns before them in the same request, for the paths of errors. Raises TranscriptTooLarge.
    """
    details, size = _long_turns("turns", turns, known), len(TURNS.dump_json(list(turns)))
    if size > MAX_CHECKPOINT_BYTES:
        details.append(
            ErrorDetail("turns", f"Take {size:,} bytes as JSON; at most {MAX_CHECKPOINT_BYTES:,} are taken at once.")
        )
    if saved_turns + len(turns) > MAX_TURNS:
        details.append(ErrorDetail("turns", f"Would be more than {MAX_TURNS:,} in all."))
    if saved_bytes + size > MAX_BYTES:
        details.append(ErrorDetail("turns", f"Would make the transcript larger than {MAX_BYTES:,} bytes."))
    if details:
        raise TranscriptTooLarge(details=details)
    return size


def _long_turns(name: str, turns: Sequence[TranscriptTurn], first: int = 0) -> list[ErrorDetail]:
    return [
        ErrorDetail(
            f"{name}.{number}.text",
            f"Has {len(turn['text']):,} characters; at most {MAX_TURN_CHARACTERS:,} are taken.",
        )
        for number, turn in enumerate(turns, start=first)
        if len(turn["text"]) > MAX_TURN_CHARACTERS
    ][:_MAX_DETAILS]


def lines(turns: Sequence[TranscriptTurn]) -> list[str]:
    """Format each turn as one line of JSON for a model, so that spoken text cannot end the line or imitate a turn."""
    return [
        json.dumps({"turn": number, "role": turn["role"], "text": turn["text"]}, ensure_ascii=False).translate(
            _LINE_BREAKS
        )
        for number, turn in enumerate(turns)
    ]
