"""Sessions: one call from its provisioning to its results.

create ──► active ──complete──► completed     (transcript durable; results now or later)
  │          ├─────sweeper────► completed     (never completed by the client, but with checkpoints)
  │          └─────sweeper────► failed        (never completed, no checkpoints: expired)
  └─provisioning fails────────► failed        (active until then, if only Gemini fails)

An active session may be hung up: its call was stopped or exceeded its time limit, and its transcript may still arrive.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, JsonValue, StringConstraints
from pydantic_core import to_json
from typing_extensions import TypeAliasType

from pi_voice.domain.base import Document, JsonObject
from pi_voice.domain.duties import Duties
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import AgentId, SessionId, TranscriptId, WorkspaceId
from pi_voice.domain.usage import TokenUsage
from pi_voice.domain.webhook_events import OwedEvent, event_of_end

DEFAULT_TTL_SECONDS: Final = 600
DEFAULT_TIME_ZONE: Final = "UTC"
DAY_SECONDS: Final = 86_400
DEFAULT_GRACE_SECONDS: Final = DAY_SECONDS
"""How long after a session's expiry its transcript may still arrive, for clients that were offline."""

MAX_SESSION_SECONDS: Final = 3_600
"""Latest expiry of a session's connections, counted from its creation, however often they are renewed.

Also the time limit of a call without one.
"""

MAX_RENEWALS: Final = 20
"""Number of times that a session may be renewed, so that a client token does not make tokens without end."""

SHORTEST_RENEWAL_SECONDS: Final = 30
"""A session is not renewed for less time than this."""

CAP_LEEWAY_SECONDS: Final = 15
"""Time beyond the time limit before the room is closed, so that the client can end the call with a goodbye first."""

MAX_CREATED_BYTES: Final = 80_000
"""Maximum size of metadata, client metadata, variables and overrides, so that the row has room for what follows."""

CLOCK_LEEWAY_SECONDS: Final = 60
"""Time after the expiry of tokens, for clocks that differ, before the room is closed for good."""

SessionStatus = TypeAliasType("SessionStatus", Literal["active", "completed", "failed"])
"""Status of a session."""

Medium = TypeAliasType("Medium", Literal["microphone", "camera"])
"""Track that a participant may publish."""


def _validate_media(media: tuple[Medium, ...]) -> tuple[Medium, ...]:
    """Require a microphone. LiveKit reads an empty list as permission to publish everything."""
    if "microphone" not in media or len(set(media)) != len(media):
        message = 'media must be ["microphone"] or ["microphone", "camera"]'
        raise ValueError(message)
    return media


Media = Annotated[
    tuple[Medium, ...],
    Field(max_length=2, json_schema_extra={"contains": {"const": "microphone"}, "uniqueItems": True, "minItems": 1}),
    AfterValidator(_validate_media),
]
Identity = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"\S")]
DisplayName = Annotated[str, StringConstraints(max_length=128)]


class Participant(Document):
    """A person in the room."""

    identity: Identity
    """LiveKit identity; a second participant with the same identity disconnects the first."""
    name: DisplayName = ""
    """Display name."""


class ReopenedRoom(Document):
    """A later LiveKit room of the same name, created when a participant rejoined after the first had closed."""

    room_sid: str
    """LiveKit's id of the room."""
    started_at: int | None = None
    """When the room was created."""
    first_joined_at: int | None = None
    """When the first person joined."""
    finished_at: int | None = None
    """When the room was closed."""
    metadata: JsonObject | str | None = None
    """Room metadata at its close."""


class LiveKitRoom(Document):
    """State of the session's LiveKit room, from LiveKit's webhooks."""

    room_name: str
    """Room name; equal to the session id."""
    room_sid: str | None = None
    """LiveKit's id of the room."""
    started_at: int | None = None
    """When the room was created."""
    first_joined_at: int | None = None
    """When the first person joined."""
    finished_at: int | None = None
    """When the room was closed."""
    metadata: JsonObject | str | None = None
    """Room metadata at its close: a JSON object, or else its text. Text over 4 KB is clipped."""
    other_rooms: list[ReopenedRoom] = Field(default=[])
    """Later rooms of the same name."""


class Recording(Document):
    """A file that LiveKit recorded of the session's room."""

    file: str
    """Name of the file; of a recording in segments, of its playlist."""
    location: str | None = None
    """Where LiveKit stored it; null if LiveKit does not say."""
    duration_seconds: int | float | None = None
    """Duration in seconds; null if LiveKit does not say."""

    @property
    def place(self) -> tuple[str, str | None]:
        """What tells the file from others."""
        return self.file, self.location


@dataclass(frozen=True, slots=True)
class Session:
    """A session as stored. All instants are Unix seconds."""

    session_id: SessionId
    workspace: WorkspaceId
    agent_id: AgentId
    agent_version: int
    status: SessionStatus
    participant: Participant
    max_duration_seconds: int | None
    ttl_seconds: int
    created_at: int
    expires_at: int
    livekit: LiveKitRoom
    media: tuple[Medium, ...] = ("microphone",)
    metadata: dict[str, str] = field(default_factory=dict)
    client_metadata: dict[str, str] = field(default_factory=dict)
    variables: dict[str, JsonValue] = field(default_factory=dict)
    time_zone: str = DEFAULT_TIME_ZONE
    overrides: dict[str, JsonValue] = field(default_factory=dict)
    grace_seconds: int = DEFAULT_GRACE_SECONDS
    duties: Duties = field(default_factory=Duties)
    checkpoint_turns: int = 0
    checkpoint_bytes: int = 0
    tool_calls: int = 0
    tool_call_bytes: int = 0
    renewals: int = 0
    hung_up_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    failure: ErrorInfo | None = None
    duration_seconds: int | float | None = None
    end_reason: str | None = None
    completed_by: str | None = None
    room_ends_at: int | None = None
    transcript_id: TranscriptId | None = None
    turns: int = 0
    request_hash: str | None = None
    results: JsonValue = None
    extraction: Extraction | None = None
    recordings: tuple[Recording, ...] = ()
    usage: TokenUsage | None = None
    started_at: int | None = None
    """When the first sign of life was: a person joined, a turn was saved, or a tool was called."""
    owed_events: tuple[OwedEvent, ...] = ()
    """Events without deliveries yet, the oldest first."""

    @property
    def created_bytes(self) -> int:
        """Size of what the session was created with: metadata, which is stored as plain text, and JSON."""
        pairs = (*self.metadata.items(), *self.client_metadata.items())
        documents = len(to_json(self.variables)) + len(to_json(self.overrides))
        return documents + sum(len(key.encode()) + len(value.encode()) for key, value in pairs)

    @property
    def is_ongoing(self) -> bool:
        """Whether the call may continue: the session is active and was not hung up."""
        return self.status == "active" and self.hung_up_at is None

    @property
    def brought(self) -> str:
        """Texts that this session brought for its agent: the participant's name, values of variables and overrides."""
        lists = [value if isinstance(value, list) else [value] for value in self.overrides.values()]
        texts = (self.participant.name, *self.variables.values(), *(each for values in lists for each in values))
        return "\n".join(map(str, texts))

    @property
    def tokens_end_at(self) -> int:
        """When no token can open the room any more, a minute late because clocks differ."""
        return self.expires_at + CLOCK_LEEWAY_SECONDS

    @property
    def abandoned_at(self) -> int:
        """When the sweeper ends the session: its connections have expired and the grace time is over."""
        return self.expires_at + self.grace_seconds

    @property
    def latest_end(self) -> int:
        """When a call without a time limit, and a room that its completion kept, are closed."""
        return self.created_at + MAX_SESSION_SECONDS + CAP_LEEWAY_SECONDS

    def keeps_room(self, now: int) -> bool:
        """Whether the completion of the session left the room open, and it may still be open."""
        return self.room_ends_at is not None and now < self.room_ends_at

    @property
    def call_ends_at(self) -> int | None:
        """When the call is hung up: at its time limit, counted from the first join; None before that.

        Without a time limit, an hour after its creation.
        """
        if self.max_duration_seconds is None:
            return self.latest_end
        joined = self.first_joined_at
        return None if joined is None else joined + self.max_duration_seconds + CAP_LEEWAY_SECONDS

    @property
    def first_joined_at(self) -> int | None:
        """When the first person joined the room or a later one of the same name."""
        rooms: tuple[LiveKitRoom | ReopenedRoom, ...] = (self.livekit, *self.livekit.other_rooms)
        return min((room.first_joined_at for room in rooms if room.first_joined_at is not None), default=None)

    @property
    def latest_expiry(self) -> int:
        """The latest expiry of a renewal: an hour after the creation.

        Without a sign of life, a person's join, a saved turn or a tool call, it is the end of the call's time limit.
        """
        latest = self.created_at + MAX_SESSION_SECONDS
        is_alive = self.checkpoint_turns or self.tool_calls or self.call_ends_at is not None
        if self.max_duration_seconds is None or is_alive:
            return latest
        return min(latest, self.created_at + self.max_duration_seconds + CAP_LEEWAY_SECONDS)

    def with_first_duties(self) -> Self:
        """Return the new session with its duties: to be ended when abandoned, and hung up if it has no time limit."""
        duties, ends_at = Duties().plus(end_call=self.abandoned_at), self.call_ends_at
        return replace(self, duties=duties if ends_at is None else duties.plus(hang_up=ends_at))

    def opened(self, room_sid: str, started_at: int) -> Self:
        """Return the session with the room that LiveKit created."""
        room = self.livekit.model_copy(update={"room_sid": room_sid, "started_at": started_at})
        return replace(self, livekit=room)

    def failed(self, failure: ErrorInfo, end_reason: str, now: int) -> Self:
        """Return the session as failed, which owes an event."""
        event, duties = event_of_end("failed", now), self.duties.without("end_call", "hang_up")
        return replace(
            self,
            status="failed",
            failed_at=now,
            failure=failure,
            end_reason=end_reason,
            duties=event.duties_after(duties),
            owed_events=(*self.owed_events, event),
        )


class Tombstone(NamedTuple):
    """What is left of a deleted session until its duties are done: nothing that was said, no workspace."""

    session_id: SessionId
    duties: Duties
    tokens_end_at: int = 0
    """When no token can open the room any more; 0 for tombstones of earlier versions."""


class SessionCompletion(NamedTuple):
    """The attributes that turn an active session into a completed one in a single write."""

    completed_at: int
    completed_by: str
    duration_seconds: int | float | None
    end_reason: str
    transcript_id: TranscriptId
    turns: int
    extraction: Extraction
    recheck_at: int
    """When the sweeper closes the room and queues the extraction, unless both are finished before."""
    checkpoint_turns: int | None = None
    """Number of checkpointed turns the transcript was made of; None if the client sent the transcript."""
    request_hash: str | None = None
    """Hash of the completing request, if it carried an Idempotency-Key."""
    expires_at: int | None = None
    """Expiry the sweeper read; the write fails if the session was renewed since. None if a client completes."""
    room_ends_at: int | None = None
    """When the sweeper closes the room, if the client keeps it."""

    def duties_after(self, before: Duties) -> Duties:
        """Return the duties of the completed session."""
        close_room_at = self.recheck_at if self.room_ends_at is None else self.room_ends_at
        after = before.without("end_call", "hang_up").plus(close_room=close_room_at)
        return after.plus(extract=self.recheck_at) if self.extraction.status == "pending" else after
