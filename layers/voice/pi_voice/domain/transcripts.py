"""Transcripts: the turns of a call, their limits, and their text for a model."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, NotRequired

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import TypedDict

from pi_voice.domain.base import check_fault_count
from pi_voice.domain.errors import MAX_DETAILS, ErrorDetail, TranscriptTooLarge
from pi_voice.domain.json_text import one_line

MAX_TURNS: Final = 5_000
MAX_TURN_CHARACTERS: Final = 20_000
MAX_BYTES: Final = 1_048_576
MAX_CHECKPOINT_TURNS: Final = 500
MAX_CHECKPOINT_BYTES: Final = 300_000
"""Maximum size of one checkpoint as JSON, so that it fits one stored item even uncompressed."""
_MAX_DETAILS: Final = 20

_LONGEST_ESCAPE: Final = 6
"""Number of characters that one character may become, such as \\u0000."""

DAY_MILLISECONDS: Final = 86_400_000
_TURNS_AT_ONCE: Final = 100


_NOT_SINCE_START: Final = PydanticCustomError(
    "not_since_start", "Should be milliseconds since the call began, 0 to 86,400,000, and no time of day"
)


def _rounded(value: object) -> object:
    """Round a time that has fractions, such as `performance.now()` in a browser gives."""
    return round(value) if isinstance(value, float) and abs(value) <= DAY_MILLISECONDS else value


Milliseconds = Annotated[
    int,
    Field(ge=0, le=DAY_MILLISECONDS),
    BeforeValidator(_rounded, json_schema_input_type=Annotated[float, Field(ge=0, le=DAY_MILLISECONDS)]),
]


@with_config(extra="forbid", strict=True)
class TranscriptTurn(TypedDict):
    """One turn of the conversation; times are milliseconds since the start of the call."""

    role: Literal["agent", "user"]
    """Who spoke."""
    text: str
    """What was said, up to 20,000 characters."""
    start_ms: NotRequired[Milliseconds | None]
    """Start of the turn, 0 to 86,400,000; rounded to an integer."""
    end_ms: NotRequired[Milliseconds | None]
    """End of the turn, not before its start; rounded to an integer."""


TURNS: Final = TypeAdapter(list[TranscriptTurn])


def check_turn_count(turns: object) -> object:
    """Raise TranscriptTooLarge for a transcript with too many turns, before they are validated."""
    if isinstance(turns, list) and len(turns) > MAX_TURNS:
        raise TranscriptTooLarge(details=[_too_many(turns)])
    return turns


def stop_after_fifty_faults(turns: object) -> object:
    """Validate the turns of a request in batches until there are 50 faults: pydantic would list those of all turns."""
    if not isinstance(turns, list) or len(turns) > MAX_TURNS:
        return turns  # refused by the type of the field
    faults: list[InitErrorDetails] = []
    for first in range(0, len(turns), _TURNS_AT_ONCE):
        try:
            faults += _order_faults(TURNS.validate_python(turns[first : first + _TURNS_AT_ONCE]), first)
        except ValidationError as error:
            faults += _located(error, first)
        if len(faults) >= MAX_DETAILS:
            break
    if faults:
        raise ValidationError.from_exception_data("transcript", faults[:MAX_DETAILS])
    return turns


WholeTranscript = Annotated[
    list[TranscriptTurn],
    Field(max_length=MAX_TURNS),
    BeforeValidator(stop_after_fifty_faults),
    BeforeValidator(check_turn_count),  # the last one runs first
]
"""The turns of a whole call, in a request."""


def _located(error: ValidationError, first: int) -> list[InitErrorDetails]:
    """Return the faults of a batch, with the numbers of the turns in the whole list."""
    check_fault_count(error)
    return [
        InitErrorDetails(
            type=_NOT_SINCE_START if fault["type"] == "less_than_equal" else fault["type"],
            loc=_shifted(fault["loc"], first),
            input=None,
            ctx=fault.get("ctx", {}),
        )
        for fault in error.errors(include_url=False, include_input=False)
    ]


def _shifted(location: tuple[int | str, ...], first: int) -> tuple[int | str, ...]:
    number, *steps = location
    return int(number) + first, *steps


def _order_faults(turns: Sequence[TranscriptTurn], first: int) -> list[InitErrorDetails]:
    """Return a fault for each turn that ends before it starts."""
    before_start = PydanticCustomError("end_before_start", "Should not be before start_ms")
    return [
        InitErrorDetails(type=before_start, loc=(number, "end_ms"), input=None)
        for number, turn in enumerate(turns, start=first)
        if (start := turn.get("start_ms")) is not None and (end := turn.get("end_ms")) is not None and end < start
    ]


def check_size(turns: Sequence[TranscriptTurn]) -> None:
    """Check a transcript against its limits; raises TranscriptTooLarge with a detail for each one exceeded."""
    details = _long_turns("transcript", turns)
    if len(turns) > MAX_TURNS:
        details.append(_too_many(turns))
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


def _too_many(turns: Sequence[object]) -> ErrorDetail:
    return ErrorDetail("transcript", f"Has {len(turns):,} turns; at most {MAX_TURNS:,} are taken.")


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
    return [line(number, turn["role"], turn["text"]) for number, turn in enumerate(turns)]


def latest_lines(turns: Sequence[TranscriptTurn], most: int) -> list[str]:
    """Format the latest turns, with at most so many characters in all. Of a longer last turn only its end is left."""
    latest: list[str] = []
    left = most
    for number in reversed(range(len(turns))):
        role, text = turns[number]["role"], turns[number]["text"]
        formatted = line(number, role, text)
        while not latest and (excess := len(formatted) - most) > 0 and text:
            text = text[-(-excess // _LONGEST_ESCAPE) :]
            formatted = line(number, role, text)
        left -= len(formatted)
        if left < 0:
            break
        latest.append(formatted)
    return latest[::-1]


def line(number: int, role: str, text: str) -> str:
    """Format one turn as a line of JSON."""
    return one_line({"turn": number, "role": role, "text": text})
