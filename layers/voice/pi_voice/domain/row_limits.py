"""What fits the row of a session: DynamoDB's limit for an item is 400 KB, and readers cannot parse deep results.

Everything of unbounded size that goes into the row is checked before it is written. What the session is created with is
bounded by `sessions.MAX_CREATED_BYTES`; here are results, their evidence and errors, the history of extractions,
metadata of LiveKit's rooms, and their recordings.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import JsonValue
from pydantic_core import to_json

from pi_voice.domain.extractions import ErrorInfo, Evidence, ExtractionRun

MAX_RESULT_DEPTH: Final = 32
MAX_RESULT_BYTES: Final = 100_000
"""Maximum size of results as JSON, together with the details of an error."""

MAX_RESULT_AND_EVIDENCE_BYTES: Final = 150_000
"""Maximum size of results and their evidence as JSON."""

MAX_RUN_BYTES: Final = 105_000
"""Maximum size of the history as JSON."""

MAX_ROOM_METADATA_BYTES: Final = 4_096
"""Maximum size of a room's metadata as it was received, and of an object as it is stored."""

MAX_ROOM_TEXT_BYTES: Final = 2 * MAX_ROOM_METADATA_BYTES
"""Maximum size of a room's metadata as a JSON string, in which each quote takes two bytes."""

MAX_RECORDINGS: Final = 20
MAX_RECORDINGS_BYTES: Final = 16_384
"""Maximum size of all recordings of a session as JSON."""

TOO_LARGE: Final = ErrorInfo(
    code="results_too_large",
    message="The results or their evidence are too large. Ask for less in the output schema.",
)
TOO_DEEP: Final = ErrorInfo(
    code="results_too_large",
    message=f"The results are nested more than {MAX_RESULT_DEPTH} levels deep. Make the output schema flatter.",
)


def results_error(results: JsonValue, evidence: Mapping[str, Evidence] | None = None) -> ErrorInfo | None:
    """Return why results cannot be stored; None if they fit."""
    if is_deeper(results, MAX_RESULT_DEPTH):
        return TOO_DEEP
    size = size_of(results)
    with_evidence = size + size_of({path: found.model_dump() for path, found in (evidence or {}).items()})
    return TOO_LARGE if size > MAX_RESULT_BYTES or with_evidence > MAX_RESULT_AND_EVIDENCE_BYTES else None


def size_of(value: object) -> int:
    """Return the size of a value as JSON in UTF-8, which is how rows hold it."""
    return len(to_json(value))


def fitting_runs(runs: Sequence[ExtractionRun]) -> list[ExtractionRun]:
    """Return the latest runs that fit the history, newest first; the newest one always fits."""
    kept = list(runs)
    while len(kept) > 1 and size_of([run.model_dump() for run in kept]) > MAX_RUN_BYTES:
        kept.pop()
    return kept


def room_metadata_fits(metadata: JsonValue) -> bool:
    """Return whether a room's metadata can be stored: 1e15 takes four times as much when it is written again."""
    return size_of(metadata) <= MAX_ROOM_METADATA_BYTES and not is_deeper(metadata, MAX_RESULT_DEPTH)


def fitting_room_text(text: str) -> str:
    """Return the first 4 KB of a room's metadata, or less if it has many control characters, which take six bytes."""
    fitting = text.encode()[:MAX_ROOM_METADATA_BYTES].decode(errors="ignore")
    while (excess := size_of(fitting) - len('""') - MAX_ROOM_TEXT_BYTES) > 0:
        fitting = fitting[: -(excess // 6 + 1)]
    return fitting


def is_deeper(value: JsonValue, levels: int) -> bool:
    """Return whether objects and arrays are nested deeper than a number of levels; never recurses deeper itself."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(is_deeper(each, levels - 1) for each in inner)
