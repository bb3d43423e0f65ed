"""Request and response models of the routes that take a transcript: save, complete."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from pi_voice.domain.base import Document
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import DAY_SECONDS
from pi_voice.domain.transcripts import (
    MAX_CHECKPOINT_TURNS,
    MAX_TURNS,
    TranscriptTurn,
    WholeTranscript,
    stop_after_fifty_faults,
)


def _round_to_milliseconds(seconds: float) -> int | float:
    """Round to milliseconds, and return whole seconds as an int."""
    rounded = round(seconds, 3)
    return int(rounded) if rounded.is_integer() else rounded


class SaveTranscriptRequest(Document):
    """Request body of POST /sessions/{session_id}/transcript."""

    at: Annotated[int, Field(alias="from", ge=0, le=MAX_TURNS)]
    """Index of the first of these turns, counted from 0."""
    turns: Annotated[
        list[TranscriptTurn],
        Field(min_length=1, max_length=MAX_CHECKPOINT_TURNS),
        BeforeValidator(stop_after_fifty_faults),
    ]
    """Turns in order, 1 to 500."""


class SavedTranscript(Document):
    """Response of POST /sessions/{session_id}/transcript."""

    session_id: SessionId
    """Session id."""
    next: int
    """Index of the turn to send next, counted from 0; all earlier turns are durable."""
    hung_up_at: int | None = None
    """When the call was hung up, because it was stopped or exceeded its time limit; null if it may continue."""


class CompleteSessionRequest(Document):
    """Request body of POST /sessions/{session_id}/complete."""

    transcript: WholeTranscript | None = None
    """All turns in order, or an empty list; absent: the turns saved during the call."""
    duration_seconds: Annotated[float, Field(ge=0, le=DAY_SECONDS), AfterValidator(_round_to_milliseconds)] | None = (
        None
    )
    """Duration of the call in seconds."""
    end_reason: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,79}$")] = "completed"
    """Reason why the call ended: 1 to 80 lowercase letters, digits and `_.-`, starting with a letter.

    Ignored if the call was stopped or exceeded its time limit.
    """
    keep_room: bool = False
    """Whether the LiveKit room stays open, at most an hour and 15 seconds after the session's creation.

    Ignored if the call was stopped or exceeded its time limit.
    """
