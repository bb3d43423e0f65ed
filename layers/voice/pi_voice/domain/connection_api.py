"""Request and response models of the routes that issue connections: create, renew, add a participant."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pi_voice.domain.agents import MAX_VERSION, Behaviors, DurationCap, OwnedAgent
from pi_voice.domain.base import Document, JsonObject, Metadata, VariableValue
from pi_voice.domain.call_agent import check_call
from pi_voice.domain.errors import ErrorDetail, InvalidRequest, TtlTooShort
from pi_voice.domain.ids import AgentId, SessionId
from pi_voice.domain.overrides import SessionOverrides
from pi_voice.domain.sessions import (
    DEFAULT_TIME_ZONE,
    DEFAULT_TTL_SECONDS,
    MAX_CREATED_BYTES,
    DisplayName,
    Identity,
    LiveKitRoom,
    Media,
    Participant,
    Session,
)
from pi_voice.domain.time_zones import TimeZone
from pi_voice.domain.tools import Speaks
from pi_voice.domain.variables import MAX_VARIABLES, resolved


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
    agent_version: Annotated[int, Field(ge=1, le=MAX_VERSION)] | None = None
    """Version of the agent that takes the call; absent: the current one."""
    participant: Participant
    """Participant who talks to the agent."""
    ttl_seconds: Annotated[int, Field(ge=60, le=3600)] = DEFAULT_TTL_SECONDS
    """Lifetime of the connections in seconds, 60 to 3600; at least `max_duration_seconds`."""
    max_duration_seconds: Annotated[DurationCap | None, Field(json_schema_extra=_without_default)] = None
    """Time limit of the call in seconds, 60 to 1800; absent: the agent's, null: none."""
    media: Media = ("microphone",)
    """Tracks the participant may publish: `microphone`, or `microphone` and `camera`."""
    variables: dict[str, VariableValue] = Field(default={}, max_length=MAX_VARIABLES)
    """Values of the agent's variables by name; those without a default are required. Hidden from client tokens."""
    time_zone: TimeZone = DEFAULT_TIME_ZONE
    """IANA name of the time zone of `{{date}}`, such as `Europe/Berlin`."""
    overrides: SessionOverrides | None = None
    """Fields of the agent for this call alone. Hidden from client tokens."""
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

    def new_session(self, session_id: SessionId, owned: OwnedAgent, now: int, grace_seconds: int) -> Session:
        """Make the active session of this request. The room's name is the session id.

        Raises TtlTooShort, InvalidVariables, and InvalidRequest if it would take too much space.
        """
        session = Session(
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
            variables=resolved(owned.agent.variables or {}, self.variables),
            time_zone=self.time_zone,
            overrides=self.overrides.model_dump(mode="json", exclude_none=True) if self.overrides else {},
            grace_seconds=grace_seconds,
        )
        check_call(owned.agent, session)
        _check_size(session)
        return session.with_first_duties()


def _check_size(session: Session) -> None:
    if (size := session.created_bytes) > MAX_CREATED_BYTES:
        message = (
            f"metadata, client_metadata, variables and overrides take {size:,} bytes together; "
            f"at most {MAX_CREATED_BYTES:,} are taken."
        )
        raise InvalidRequest(details=[ErrorDetail("", message)])


class LiveKitConnection(Document):
    """How one participant joins the LiveKit room."""

    url: str
    """URL for the LiveKit client."""
    token: str
    """Access token (JWT) for this room and this participant."""
    room: str
    """Room name."""


class LiveTool(Document):
    """A function that the agent may call in this call."""

    name: str
    """Name of the function; the built-in `hang_up` is to end the call once the agent's sentence was played."""
    where: Literal["client", "server"]
    """Where it runs. `client`: your page runs it, answers Gemini and records the call. `server`: your page sends the
    call to `POST /sessions/{session_id}/tool-calls`, and answers Gemini with its `response`."""
    speaks: Speaks | None
    """`scheduling` of the answer, in capitals, if the live model takes one; else null."""


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
    tools: list[LiveTool]
    """Functions that the agent may call; they are locked into the token."""


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
