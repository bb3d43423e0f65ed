"""Response models of a session, alone and in a list."""

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, ValidationInfo, field_validator

from pi_voice.domain import sessions
from pi_voice.domain.base import BACKEND_FIELDS, Document, Metadata, VariableValue, digits_to_int
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import AgentId, SessionId
from pi_voice.domain.overrides import SessionOverrides
from pi_voice.domain.pagination import PageQuery
from pi_voice.domain.sessions import Identity, LiveKitRoom, Participant, Recording, SessionStatus
from pi_voice.domain.tool_calls import ToolCall
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.domain.usage import TokensByModality, TokenUsage

_YEAR_9999: Final = 253_370_764_800


def _with_optional_backend_fields(schema: dict[str, Any]) -> None:
    """Say in the reference that a client token gets this document without BACKEND_FIELDS."""
    schema["required"] = [name for name in schema["required"] if name not in BACKEND_FIELDS]


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


class Usage(Document):
    """Tokens of Gemini Live that a session used. It is a claim of the client, because only the client sees them."""

    input_tokens: TokensByModality
    """Tokens that the model read, over all turns. Each turn counts the conversation before it again."""
    output_tokens: TokensByModality
    """Tokens that the model wrote and said."""
    tool_use_tokens: TokensByModality
    """Tokens of the prompts of tools."""
    cached_tokens: TokensByModality
    """Tokens of the input that came from a cache."""
    thinking_tokens: int | None
    """Tokens of thoughts; null: unknown."""
    reported_by: Literal["client"]
    """Always `client`."""
    reported_at: int
    """When a number last changed."""

    @classmethod
    def of(cls, usage: TokenUsage) -> "Usage":
        """Build the view of stored numbers."""
        return cls.model_construct(**usage._asdict(), reported_by="client")


class Session(SessionSummary):
    """A session with its transcript, tool calls and results."""

    model_config = ConfigDict(json_schema_extra=_with_optional_backend_fields)

    transcript: list[TranscriptTurn] | None
    """Turns of the call; null until the session is completed."""
    tool_calls: list[ToolCall]
    """Tool calls in the order in which they were recorded."""
    results: JsonValue
    """Results in the agent's output schema; null if there are none."""
    extraction: Extraction | None
    """State and cost of the extraction; null until the session is completed."""
    recordings: list[Recording]
    """Files that LiveKit recorded of the room, up to 20, in the order in which LiveKit reported them."""
    usage: Usage | None
    """Tokens of Gemini Live, as the client reported them; null if it reported none."""
    variables: dict[str, VariableValue]
    """Values of the agent's variables in this call, defaults included; left out of responses to a client token."""
    time_zone: str
    """IANA name of the time zone of `{{date}}`."""
    overrides: SessionOverrides | None
    """Fields of the agent for this call alone; null: none. Left out of responses to a client token."""

    @classmethod
    def of_stored(
        cls, session: sessions.Session, transcript: list[TranscriptTurn] | None, tool_calls: list[ToolCall]
    ) -> "Session":
        """Build the full view of a stored session; the transcript is None until the session is completed."""
        return cls.model_construct(
            **_summary_fields(session),
            transcript=transcript,
            tool_calls=tool_calls,
            results=session.results,
            extraction=session.extraction,
            recordings=list(session.recordings),
            usage=session.usage and Usage.of(session.usage),
            variables=session.variables,
            time_zone=session.time_zone,
            overrides=SessionOverrides.stored(session.overrides),
        )


def _summary_fields(session: sessions.Session) -> dict[str, Any]:
    return {name: getattr(session, name) for name in SessionSummary.model_fields}
