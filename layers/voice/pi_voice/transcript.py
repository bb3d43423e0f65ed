"""Transcripts: what was said, who said it, and how it is kept."""

import gzip
from collections.abc import Sequence
from typing import Annotated, Final, Literal, NotRequired

from pydantic import Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from pi_voice.errors import Fault, TranscriptTooLarge

MAX_TURNS: Final = 5_000
MAX_TURN_CHARACTERS: Final = 20_000
MAX_BYTES: Final = 1_048_576
_MAX_FAULTS: Final = 20
PIECE_BYTES: Final = 350_000
"""How much of a packed transcript one DynamoDB item holds; the limit of an item is 400 KB."""

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
    faults = [
        Fault(
            f"transcript.{number}.text",
            f"Has {len(turn['text']):,} characters; at most {MAX_TURN_CHARACTERS:,} are taken.",
        )
        for number, turn in enumerate(turns)
        if len(turn["text"]) > MAX_TURN_CHARACTERS
    ][:_MAX_FAULTS]
    if len(turns) > MAX_TURNS:
        faults.append(Fault("transcript", f"Has {len(turns):,} turns; at most {MAX_TURNS:,} are taken."))
    if not faults and (size := len(_TURNS.dump_json(list(turns)))) > MAX_BYTES:
        faults.append(Fault("transcript", f"Takes {size:,} bytes as JSON; at most {MAX_BYTES:,} are taken."))
    if faults:
        raise TranscriptTooLarge(faults=faults)


def pack(turns: Sequence[Turn]) -> list[bytes]:
    """Compress a transcript into pieces that fit one DynamoDB item each."""
    packed = gzip.compress(_TURNS.dump_json(list(turns)), mtime=0)
    return [packed[start : start + PIECE_BYTES] for start in range(0, len(packed), PIECE_BYTES)]


def unpack(pieces: Sequence[bytes]) -> list[Turn]:
    """Read back what `pack` made."""
    return _TURNS.validate_json(gzip.decompress(b"".join(pieces)))
