"""Request and response models of the session routes."""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from pi_voice.domain import sessions
from pi_voice.domain.agents import Behaviors, DurationCap, OwnedAgent
from pi_voice.domain.base import BACKEND_FIELDS, Document, JsonObject, Metadata, digits_to_int
from pi_voice.domain.errors import ErrorDetail, TtlTooShort
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import AgentId, SessionId
from pi_voice.domain.pagination import PageQuery
from pi_voice.domain.sessions import (
    DAY_SECONDS,
    DEFAULT_TTL_SECONDS,
    DisplayName,
    Identity,
    LiveKitRoom,
    Media,
    Participant,
    Recording,
    SessionStatus,
)
from pi_voice.domain.transcripts import (
    MAX_CHECKPOINT_TURNS,
    MAX_TURNS,
    TranscriptTurn,
    check_turn_count,
    stop_after_fifty_faults,
)

_YEAR_9999: Final = 253_370_764_800
_WHOLE: Final = (BeforeValidator(stop_after_fifty_faults), BeforeValidator(check_turn_count))
"""Validators of a whole transcript in a request; the last one runs first."""


def _round_to_milliseconds(seconds: float) -> int | float:
    """Round to milliseconds, and return whole seconds as an int."""
    rounded = round(seconds, 3)
    return int(rounded) if rounded.is_integer() else rounded


def _with_optional_backend_fields(schema: dict[str, Any]) -> None:
    """Say in the reference that a client token gets this document without BACKEND_FIELDS."""
    schema["required"] = [name for name in schema["required"] if name not in BACKEND_FIELDS]


def _without_default(schema: dict[str, Any]) -> None:
    """Remove the default from the reference: generated clients would send it and remove the agent's time limit."""
    schema.pop("default")


class CreateSessionRequest(Document):
    """Request body of POST /sessions.

    `max_duration_seconds` has three cases: absent uses the agent's time limit, null means no time limit, a number is
    the time limit of this call.
    """

    agent_id: str
    """Agent that takes the call."""
    participant: Participant
    """Participant who talks to the agent."""
    ttl_seconds: Annotated[int, Field(ge=60, le=3600)] = DEFAULT_TTL_SECONDS
    """Lifetime of the connections in seconds, 60 to 3600; at least `max_duration_seconds`."""
    max_duration_seconds: Annotated[DurationCap | None, Field(json_schema_extra=_without_default)] = None
    """Time limit of the call in seconds, 60 to 1800; absent: the agent's, null: none."""
    media: Media = ("microphone",)
    """Tracks the participant may publish: `microphone`, or `microphone` and `camera`."""
    metadata: Metadata = Field(default={})
    """Up to 16 key-value pairs for your backend; a client token does not see them."""
    client_metadata: Metadata = Field(default={})
    """Up to 16 key-value pairs for your backend and the client."""

    def call_limit(self, behaviors: Behaviors) -> int | None:
        """Return the time limit of the call in seconds; raises TtlTooShort if the connections would expire first."""
        is_requested = "max_duration_seconds" in self.model_fields_set
        limit = self.max_duration_seconds if is_requested else behaviors.max_duration_seconds
        if limit is not None and self.ttl_seconds < limit:
            raise TtlTooShort(self.ttl_seconds, limit)
        return limit

    def new_session(self, session_id: SessionId, owned: OwnedAgent, now: int, grace_seconds: int) -> sessions.Session:
        """Make the active session of this request; raises TtlTooShort. The room's name is the session id."""
        return sessions.Session(
            session_id=session_id,
            workspace=owned.workspace,
            agent_id=owned.agent.agent_id,
            agent_version=owned.agent.version,
            status="active",
            participant=self.participant,
            max_duration_seconds=self.call_limit(owned.agent.behaviors),
            ttl_seconds=self.ttl_seconds,
            created_at=now,
            expires_at=now + self.ttl_seconds,
            livekit=LiveKitRoom(room_name=session_id),
            media=self.media,
            metadata=self.metadata,
            client_metadata=self.client_metadata,
            grace_seconds=grace_seconds,
        ).with_first_duties()


class LiveKitConnection(Document):
    """How one participant joins the LiveKit room."""

    url: str
    """URL for the LiveKit client."""
    token: str
    """Access token (JWT) for this room and this participant."""
    room: str
    """Room name."""


class GeminiLiveConnection(Document):
    """How the client connects to Gemini Live: open `url + "?access_token=" + token`, then send `setup` unchanged."""

    url: str
    """WebSocket URL, without the token."""
    token: str
    """Ephemeral token, locked to the agent."""
    model: str
    """Live model."""
    setup: JsonObject
    """First message to send, unchanged."""
    turn_ends_at: Literal["turnComplete", "idle"]
    """What ends a turn of the agent: `turnComplete`, or `interactionStatus` IDLE."""


class Connection(Document):
    """The two real-time connections of a session."""

    livekit: LiveKitConnection
    gemini_live: GeminiLiveConnection


class CreatedSession(Document):
    """Response of POST /sessions. The tokens are returned once and stored nowhere."""

    session_id: SessionId
    """Session id."""
    agent_id: AgentId
    """Agent of the session."""
    agent_version: int
    """Agent version of the session, fixed when it was created."""
    status: Literal["active"]
    """Always `active`."""
    participant: Participant
    """Participant who talks to the agent."""
    max_duration_seconds: int | None
    """Time limit of the call in seconds; null: none."""
    ttl_seconds: int
    """Lifetime of the connections in seconds."""
    created_at: int
    """When the session was created."""
    expires_at: int
    """When the connections expire."""
    client_metadata: Metadata
    """Key-value pairs of the create request for the client; `metadata` is left out, so this is safe for a browser."""
    client_token: str
    """Token for this session's own routes, safe to hand to a browser."""
    connection: Connection
    """LiveKit and Gemini Live connection."""


class RenewSessionRequest(Document):
    """Request body of POST /sessions/{session_id}/renew."""

    has_resumption_handle: bool = False
    """Whether the client can resume the Gemini session; if not, the new prompt contains the turns saved so far."""


class RenewedSession(Document):
    """Response of POST /sessions/{session_id}/renew. The tokens are returned once and stored nowhere."""

    session_id: SessionId
    """Session id."""
    expires_at: int
    """When the connections expire."""
    client_token: str
    """Token for this session's own routes, safe to hand to a browser."""
    connection: Connection
    """LiveKit and Gemini Live connection."""


class AddParticipantRequest(Document):
    """Request body of POST /sessions/{session_id}/participants."""

    identity: Identity
    """LiveKit identity, unique in this session."""
    name: DisplayName = ""
    """Display name."""
    media: Media = ("microphone",)
    """Tracks the participant may publish: `microphone`, or `microphone` and `camera`."""


class ParticipantConnection(Document):
    """The LiveKit connection of an added participant."""

    livekit: LiveKitConnection


class AddedParticipant(Document):
    """Response of POST /sessions/{session_id}/participants."""

    session_id: SessionId
    """Session id."""
    participant: Participant
    """The added participant."""
    expires_at: int
    """When the connections expire."""
    connection: ParticipantConnection
    """LiveKit connection of the participant."""


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

    transcript: Annotated[list[TranscriptTurn], Field(max_length=MAX_TURNS), *_WHOLE] | None = None
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
    """Whether the LiveKit room stays open, at most an hour and 15 seconds after the session's creation."""


class RerunExtractionRequest(Document):
    """Request body of POST /sessions/{session_id}/extract."""

    output_schema: JsonObject | None = None
    """Output schema as hints; absent with `output_schema_strict`: the agent's current schema."""
    output_schema_strict: JsonObject | None = None
    """Output schema as JSON Schema; takes precedence over `output_schema`."""
    evidence: bool | None = None
    """Whether to return evidence for each value; absent: the agent's setting."""
    preview: bool = False
    """Whether to return the results without storing them."""


class PreviewExtractionRequest(Document):
    """Request body of POST /extractions/preview."""

    transcript: Annotated[list[TranscriptTurn], Field(min_length=1, max_length=MAX_TURNS), *_WHOLE]
    """Turns in order."""
    output_schema: JsonObject | None = None
    """Output schema as hints."""
    output_schema_strict: JsonObject | None = None
    """Output schema as JSON Schema; takes precedence over `output_schema`."""
    evidence: bool = False
    """Whether to return evidence for each value."""
    called_at: Annotated[int, Field(ge=0, le=_YEAR_9999)] | None = None
    """When the call began, to resolve words like "tomorrow"; absent: now."""
    duration_seconds: Annotated[float, Field(ge=0, le=DAY_SECONDS)] | None = None
    """Duration of the call in seconds."""


def _word_to_bool(word: object) -> object:
    """Convert a boolean in a query string, where every value is text."""
    return {"true": True, "false": False}.get(word, word) if isinstance(word, str) else word


class PreviewExtractionQuery(Document):
    """Query of POST /extractions/preview."""

    explain: Annotated[bool, BeforeValidator(_word_to_bool)] = False
    """Whether to return the schema that was sent to Gemini."""


class ExtractedResults(Document):
    """Response of POST /sessions/{session_id}/extract and POST /extractions/preview."""

    session_id: SessionId | None
    """Session of the transcript; null for a preview of a transcript in the request."""
    results: JsonValue
    """Results in the output schema; null if there is no schema or the extraction failed."""
    extraction: Extraction
    """State and cost of the extraction."""
    warnings: list[ErrorDetail]
    """What Gemini ignores or reads differently in the output schema, and what is not held, by path."""
    sent_schema: JsonObject | None = None
    """Schema that was sent to Gemini, for a preview with `explain=true`; else null."""


class ListSessionsQuery(PageQuery):
    """Query of GET /sessions."""

    status: SessionStatus | None = None
    """Only sessions with this status."""
    agent_id: str | None = None
    """Only sessions of this agent."""
    participant: Identity | None = None
    """Only sessions of the participant with this identity."""
    created_after: Annotated[int, Field(ge=0, le=_YEAR_9999), BeforeValidator(digits_to_int)] | None = None
    """Only sessions created at this time or later."""
    created_before: Annotated[int, Field(ge=0, le=_YEAR_9999), BeforeValidator(digits_to_int)] | None = None
    """Only sessions created before this time, which must be later than `created_after`."""

    @field_validator("created_before")
    @classmethod
    def _require_order(cls, before: int | None, info: ValidationInfo) -> int | None:
        after = info.data.get("created_after")
        if before is not None and after is not None and before <= after:
            message = "should be later than created_after"
            raise ValueError(message)
        return before


class SessionSummary(Document):
    """A session in a list, without transcript and results."""

    session_id: SessionId
    """Session id."""
    agent_id: AgentId
    """Agent of the session."""
    agent_version: int
    """Agent version of the session, fixed when it was created."""
    status: SessionStatus
    """`active`, `completed` or `failed`."""
    participant: Participant
    """Participant who talks to the agent."""
    max_duration_seconds: int | None
    """Time limit of the call in seconds; null: none."""
    ttl_seconds: int
    """Lifetime of the connections in seconds."""
    created_at: int
    """When the session was created."""
    expires_at: int
    """When the connections expire."""
    completed_at: int | None
    """When the session was completed."""
    failed_at: int | None
    """When the session failed."""
    failure: ErrorInfo | None
    """Why a failed session failed."""
    duration_seconds: int | float | None
    """Duration of the call in seconds, as reported by the client."""
    end_reason: str | None
    """Reason why the call ended; `cap` if it exceeded its time limit, `expired` if an hour without one."""
    completed_by: str | None
    """`client` or `sweeper`."""
    hung_up_at: int | None
    """When the room was closed because the call was stopped or exceeded its time limit."""
    checkpoint_turns: int
    """Number of turns saved during the call."""
    livekit: LiveKitRoom
    """State of the LiveKit room."""
    metadata: Metadata
    """Key-value pairs of the create request for your backend; left out of responses to a client token."""
    client_metadata: Metadata
    """Key-value pairs of the create request for your backend and the client."""

    @classmethod
    def of(cls, session: sessions.Session) -> "SessionSummary":
        """Build the summary of a stored session."""
        return cls.model_construct(**_summary_fields(session))


class Session(SessionSummary):
    """A session with its transcript and results."""

    model_config = ConfigDict(json_schema_extra=_with_optional_backend_fields)

    transcript: list[TranscriptTurn] | None
    """Turns of the call; null until the session is completed."""
    results: JsonValue
    """Results in the agent's output schema; null if there are none."""
    extraction: Extraction | None
    """State and cost of the extraction; null until the session is completed."""
    recordings: list[Recording]
    """Files that LiveKit recorded of the room, up to 20, in the order in which LiveKit reported them."""

    @classmethod
    def with_transcript(cls, session: sessions.Session, transcript: list[TranscriptTurn] | None) -> "Session":
        """Build the full view of a stored session; the transcript is None until the session is completed."""
        return cls.model_construct(
            **_summary_fields(session),
            transcript=transcript,
            results=session.results,
            extraction=session.extraction,
            recordings=list(session.recordings),
        )


class SweepSessionsResult(Document):
    """Result of the scheduled job: number of duties by what was done."""

    completed: int = 0
    """Sessions completed with their checkpoints."""
    failed: int = 0
    """Sessions failed because they had no checkpoints."""
    hung_up: int = 0
    """Calls hung up at their time limit."""
    rooms_closed: int = 0
    """Rooms closed of calls that had ended or been hung up."""
    queued: int = 0
    """Extractions queued again."""
    deleted: int = 0
    """Deleted sessions whose transcripts were deleted once more."""
    given_up: int = 0
    """Duties given up after their last try."""
    errors: int = 0
    """Duties that failed and will be tried again, and rows that could not be read."""


def _summary_fields(session: sessions.Session) -> dict[str, Any]:
    return {name: getattr(session, name) for name in SessionSummary.model_fields}
