"""Transcripts: what was said, who said it, and how it is kept."""

import gzip
import json
from collections.abc import Sequence
from typing import Annotated, Final, Literal, NotRequired

from pydantic import Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from pi_voice.errors import Fault, TranscriptTooLarge

MAX_TURNS: Final = 5_000
MAX_TURN_CHARACTERS: Final = 20_000
MAX_BYTES: Final = 1_048_576
MAX_CHECKPOINT_TURNS: Final = 500
MAX_CHECKPOINT_BYTES: Final = 300_000
"""What one checkpoint may hold: it is one DynamoDB item, however badly it compresses."""
_MAX_FAULTS: Final = 20
PIECE_BYTES: Final = 350_000
"""How much of a packed transcript one DynamoDB item holds; the limit of an item is 400 KB."""

_LINE_BREAKS: Final = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""The line breaks that JSON leaves as they are."""

Milliseconds = Annotated[int, Field(ge=0)]


@with_config(extra="forbid", strict=True)
class Turn(TypedDict):
    """One turn of the conversation; the times are milliseconds since the call began."""

    role: Literal["agent", "user"]
    text: str
    start_ms: NotRequired[Milliseconds | None]
    end_ms: NotRequired[Milliseconds | None]


_TURNS: Final = TypeAdapter(list[Turn])


def check_size(turns: Sequence[Turn]) -> None:
    """Hold a transcript to its limits; raises TranscriptTooLarge, which names what is over them."""
    faults = _long_turns("transcript", turns)
    if len(turns) > MAX_TURNS:
        faults.append(Fault("transcript", f"Has {len(turns):,} turns; at most {MAX_TURNS:,} are taken."))
    if not faults and (size := len(_TURNS.dump_json(list(turns)))) > MAX_BYTES:
        faults.append(Fault("transcript", f"Takes {size:,} bytes as JSON; at most {MAX_BYTES:,} are taken."))
    if faults:
        raise TranscriptTooLarge(faults=faults)


def check_checkpoint(turns: Sequence[Turn], known: int, kept_turns: int, kept_bytes: int) -> int:
    """Hold turns to be kept, and the transcript that they become part of, to the limits; return their size in bytes.

    They were sent behind so many `known` ones. Raises TranscriptTooLarge.
    """
    faults, size = _long_turns("turns", turns, known), len(_TURNS.dump_json(list(turns)))
    if size > MAX_CHECKPOINT_BYTES:
        faults.append(
            Fault("turns", f"Take {size:,} bytes as JSON; at most {MAX_CHECKPOINT_BYTES:,} are taken at once.")
        )
    if kept_turns + len(turns) > MAX_TURNS:
        faults.append(Fault("turns", f"Would be more than {MAX_TURNS:,} in all."))
    if kept_bytes + size > MAX_BYTES:
        faults.append(Fault("turns", f"Would make the transcript larger than {MAX_BYTES:,} bytes."))
    if faults:
        raise TranscriptTooLarge(faults=faults)
    return size


def _long_turns(name: str, turns: Sequence[Turn], first: int = 0) -> list[Fault]:
    return [
        Fault(
            f"{name}.{number}.text",
            f"Has {len(turn['text']):,} characters; at most {MAX_TURN_CHARACTERS:,} are taken.",
        )
        for number, turn in enumerate(turns, start=first)
        if len(turn["text"]) > MAX_TURN_CHARACTERS
    ][:_MAX_FAULTS]


def lines(turns: Sequence[Turn], first: int = 0) -> list[str]:
    """Write each turn as one line of JSON for a model: nothing that was said can end the line or the turn.

    Turns are counted from 0, as everywhere; `first` is the number of the first one.
    """
    return [
        json.dumps({"turn": number, "role": turn["role"], "text": turn["text"]}, ensure_ascii=False).translate(
            _LINE_BREAKS
        )
        for number, turn in enumerate(turns, start=first)
    ]


def pack(turns: Sequence[Turn]) -> list[bytes]:
    """Compress a transcript into pieces that fit one DynamoDB item each."""
    packed = gzip.compress(_TURNS.dump_json(list(turns)), mtime=0)
    return [packed[start : start + PIECE_BYTES] for start in range(0, len(packed), PIECE_BYTES)]


def unpack(pieces: Sequence[bytes]) -> list[Turn]:
    """Read back what `pack` made."""
    return _TURNS.validate_json(gzip.decompress(b"".join(pieces)))
