"""Sessions: one call from its provisioning to its results.

create ──► active ──complete──► completed     (transcript durable; results now or a little later)
  │          ├─────sweeper────► completed     (never completed, but with turns that were kept on the way)
  │          └─────sweeper────► failed        (never completed, and nothing was kept: expired)
  └─provisioning fails────────► failed        (Gemini may be the last to fail: until then it is active)

An active session may be hung up: its call is over (stopped, or past its cap) and its transcript may still come.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, WithJsonSchema

from pi_voice.agents import Behaviors, DurationCap, OwnedAgent
from pi_voice.documents import Detail, Document, JsonObject, Metadata, Paging
from pi_voice.errors import TtlTooShort
from pi_voice.ids import AgentId, SessionId, TranscriptId, WorkspaceId
from pi_voice.transcript import MAX_CHECKPOINT_TURNS, MAX_TURNS, Turn

DEFAULT_TTL_SECONDS: Final = 600
DAY_SECONDS: Final = 86_400
DEFAULT_GRACE_SECONDS: Final = DAY_SECONDS
"""For how long after its end a call's transcript may still come: a phone may be back late."""

SHARDS: Final = 16
"""Over how many keys the sessions are spread for which something is due."""

LONGEST_SECONDS: Final = 3_600
"""How long after its creation a session's connections may be good at most, however often they are renewed."""

CAP_LEEWAY_SECONDS: Final = 15
"""What a call gets beyond its cap before it is hung up, so that the client can end it first, with a goodbye."""

_YEAR_9999: Final = 253_370_764_800

Status = Literal["active", "completed", "failed"]
Medium = Literal["microphone", "camera"]


def _publishable(media: tuple[Medium, ...]) -> tuple[Medium, ...]:
    """Hold `media` to the two sets there are; to LiveKit an empty list would mean everything."""
    if sorted(media) not in (["microphone"], ["camera", "microphone"]):
        message = 'media must be ["microphone"] or ["microphone", "camera"]'
        raise ValueError(message)
    return media


def _whole(seconds: float) -> int | float:
    """Keep milliseconds and no more, and write whole seconds as whole numbers."""
    rounded = round(seconds, 3)
    return int(rounded) if rounded.is_integer() else rounded


Media = Annotated[
    tuple[Medium, ...],
    AfterValidator(_publishable),
    WithJsonSchema({"enum": [["microphone"], ["microphone", "camera"], ["camera", "microphone"]]}),
]
Identity = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"\S")]
DisplayName = Annotated[str, StringConstraints(max_length=128)]


class Participant(Document):
    """A person in the room."""

    identity: Identity
    """Who this is, to LiveKit; a second person of the same identity throws the first one out."""
    name: DisplayName = ""
    """How others see this person."""


def _without_default(schema: dict[str, Any]) -> None:
    """Leave the default out of the reference: a client that filled it in would take the agent's cap away."""
    schema.pop("default")


class NewSession(Document):
    """What a caller asks for when a call begins.

    `max_duration_seconds` tells three things apart: absent is the agent's cap, null is none, a number is this
    call's own.
    """

    agent_id: str
    """Which agent takes the call."""
    participant: Participant
    """Who calls."""
    ttl_seconds: Annotated[int, Field(ge=60, le=3600)] = DEFAULT_TTL_SECONDS
    """For how long the connections are good; at least as long as the call may last."""
    max_duration_seconds: Annotated[DurationCap | None, Field(json_schema_extra=_without_default)] = None
    """How long the call may last: absent is the agent's own cap, null is none."""
    media: Media = ("microphone",)
    """What the participant may publish."""
    metadata: Metadata = Field(default={})
    """Up to 16 notes of your own."""


class NewParticipant(Document):
    """Another person who is to join a running call."""

    identity: Identity
    """Who this is, to LiveKit; nobody else's in this session."""
    name: DisplayName = ""
    """How others see this person."""
    media: Media = ("microphone",)
    """What this person may publish."""


class Renewal(Document):
    """What a client asks for whose connections ended, or are about to."""

    has_resumption_handle: bool = False
    """Whether it holds a handle to resume Gemini's conversation; if not, the model is told what was said so far."""


class Checkpoint(Document):
    """Turns to keep while the call goes on."""

    at: Annotated[int, Field(alias="from", ge=0, le=MAX_TURNS)]
    """Which turn the first of these is, counted from 0."""
    turns: Annotated[list[Turn], Field(min_length=1, max_length=MAX_CHECKPOINT_TURNS)]
    """What was said, in order."""


class Kept(Document):
    """How much of the transcript is safe."""

    session_id: SessionId
    next: int
    """Which turn to send next, counted from 0: all before it are kept."""
    hung_up_at: int | None = None
    """When the call was hung up, because it was stopped or over its cap; null while it may go on."""


class Ending(Document):
    """What the client tells when the call is over."""

    transcript: list[Turn] | None = None
    """What was said, in order; empty if nothing was. Left out: what was sent as the call went."""
    duration_seconds: Annotated[float, Field(ge=0, le=DAY_SECONDS), AfterValidator(_whole)] | None = None
    """How long the call lasted."""
    end_reason: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")] = "completed"
    """Why it ended, in a word of your own; a call that was stopped or over its cap keeps that reason."""


class NewExtraction(Document):
    """What a caller asks for who wants a completed session's results extracted again."""

    output_schema: JsonObject | None = None
    """The results wanted, by hints; left out with the strict one: what the agent wants now."""
    output_schema_strict: JsonObject | None = None
    """The results wanted, by JSON Schema; wins over the hints."""
    evidence: bool | None = None
    """Whether to tell where each value was said; left out: as the agent has it."""
    preview: bool = False
    """Whether to only show what would come of it: nothing is kept."""


class ExtractionPreview(Document):
    """What a caller asks for who tries a schema out on a transcript."""

    transcript: Annotated[list[Turn], Field(min_length=1, max_length=MAX_TURNS)]
    """What was said, in order."""
    output_schema: JsonObject | None = None
    """The results wanted, by hints."""
    output_schema_strict: JsonObject | None = None
    """The results wanted, by JSON Schema; wins over the hints."""
    evidence: bool = False
    """Whether to tell where each value was said."""
    called_at: Annotated[int, Field(ge=0, le=_YEAR_9999)] | None = None
    """When the call began, for days such as "tomorrow"; left out: now."""
    duration_seconds: Annotated[float, Field(ge=0, le=DAY_SECONDS)] | None = None
    """How long the call lasted."""


class SessionQuery(Paging):
    """Which sessions to list."""

    status: Status | None = None
    """Only sessions in this state."""
    agent_id: str | None = None
    """Only sessions of this agent."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How long the connections are good for and how long the call may last, in seconds."""

    ttl_seconds: int
    max_duration_seconds: int | None

    @classmethod
    def agree(cls, order: NewSession, behaviors: Behaviors) -> Self:
        """Settle a call's terms; raises TtlTooShort when its connections would expire before its cap."""
        ordered = "max_duration_seconds" in order.model_fields_set
        cap = order.max_duration_seconds if ordered else behaviors.max_duration_seconds
        if cap is not None and order.ttl_seconds < cap:
            raise TtlTooShort(order.ttl_seconds, cap)
        return cls(order.ttl_seconds, cap)


class Problem(Document):
    """Why something failed, in the words of the error codes."""

    code: str
    """What went wrong, for programs."""
    message: str
    """What went wrong, for people."""
    details: list[Detail] = Field(default=[])
    """Each fault by its place, where there are several."""


class Evidence(Document):
    """Where in the call one value of the results was said."""

    status: Literal["found", "not_mentioned", "conflicting", "unverified"]
    """`unverified`: the model gave a value, or a quote, that the transcript does not bear out."""
    turn: int | None = None
    """Which turn says it, counted from 0."""
    quote: str | None = None
    """The words of that turn; they are in it, which was checked."""


class TranscriptQuality(Document):
    """How much a transcript can be trusted to be the whole call."""

    agent_turns: int
    """How many turns the agent has."""
    user_turns: int
    """How many turns the caller has."""
    user_is_silent: bool
    """Whether the caller said nothing that was understood."""
    repeated_turns: int
    """How many turns say the same as the one before, by the same speaker."""
    gaps: int
    """How many pauses between turns are longer than ten seconds."""
    longest_gap_seconds: float | None
    """The longest pause between two turns; null without times."""
    coverage: float | None
    """How much of `duration_seconds` lies before the end of the last turn, 0 to 1; null without times or duration."""


class Run(Document):
    """One extraction that was kept, as it went."""

    at: int | None
    """When it ended."""
    status: Literal["succeeded", "failed"]
    """Whether there were results."""
    agent_version: int | None
    """Whose schema it used; null for one that was given for this run alone."""
    model: str | None
    """The model that answered, or was asked last."""
    results: JsonValue
    """What it gave."""
    error: Problem | None
    """Why there were no results."""


class Extraction(Document):
    """How the extraction of results went."""

    status: Literal["succeeded", "pending", "failed", "skipped"]
    """Whether there are results."""
    model: str | None = None
    """The model that answered, or was asked last."""
    attempts: int = 0
    """How often the model was asked, repairs and the parts of a long call included."""
    error: Problem | None = None
    """Why there are no results."""
    agent_version: int | None = None
    """Whose schema was used; null for one that was given for one run alone."""
    extracted_at: int | None = None
    """When it ended."""
    milliseconds: int = 0
    """How long it took."""
    input_tokens: int = 0
    """How many tokens the model read."""
    output_tokens: int = 0
    """How many tokens the model wrote, thoughts included."""
    cost_usd: float | None = None
    """What these tokens cost by the deployment's price table, in dollars; null for a model that is not in it."""
    windows: int = 1
    """In how many parts the call was read."""
    fields: dict[str, Evidence] | None = None
    """Where each value was said, by its path; null for an agent without `evidence`."""
    transcript: TranscriptQuality | None = None
    """What the transcript itself is like."""
    runs: list[Run] = Field(default=[])
    """Every extraction since the results were first extracted again, newest first; the latest ten."""

    def after(self, before: "Extraction | None") -> Self:
        """Count what was spent before as well, and keep the runs."""
        if before is None:
            return self
        costs = [cost for cost in (before.cost_usd, self.cost_usd) if cost is not None]
        spent = ("attempts", "milliseconds", "input_tokens", "output_tokens")
        sums = {name: getattr(before, name) + getattr(self, name) for name in spent}
        return self.model_copy(update={**sums, "cost_usd": sum(costs) if costs else None, "runs": before.runs})


class OtherRoom(Document):
    """A later LiveKit room of the same name, opened by a re-join after ours had closed."""

    room_sid: str
    """LiveKit's id of the room."""
    started_at: int | None = None
    """When it was opened."""
    first_joined_at: int | None = None
    """When somebody first joined it."""
    finished_at: int | None = None
    """When it was closed."""
    metadata: dict[str, JsonValue] | None = None
    """Its metadata when it was closed."""


class RoomFacts(Document):
    """What LiveKit has told of the session's room so far."""

    room_name: str
    """The room's name, which is the session's id."""
    room_sid: str | None = None
    """LiveKit's id of the room."""
    started_at: int | None = None
    """When it was opened."""
    first_joined_at: int | None = None
    """When somebody first joined it."""
    finished_at: int | None = None
    """When it was closed."""
    metadata: dict[str, JsonValue] | None = None
    """Its metadata when it was closed, if that was a small JSON object."""
    other_rooms: list[OtherRoom] = Field(default=[])
    """Later rooms of the same name."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it is kept; all instants are Unix seconds."""

    session_id: SessionId
    workspace: WorkspaceId
    agent_id: AgentId
    agent_version: int
    status: Status
    participant: Participant
    max_duration_seconds: int | None
    ttl_seconds: int
    created_at: int
    expires_at: int
    livekit: RoomFacts
    media: tuple[Medium, ...] = ("microphone",)
    metadata: dict[str, str] = field(default_factory=dict)
    grace_seconds: int = DEFAULT_GRACE_SECONDS
    due_at: int | None = None
    checkpoint_turns: int = 0
    checkpoint_bytes: int = 0
    hung_up_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    failure: Problem | None = None
    duration_seconds: int | float | None = None
    end_reason: str | None = None
    completed_by: str | None = None
    transcript_id: TranscriptId | None = None
    turns: int = 0
    request_hash: str | None = None
    results: JsonValue = None
    extraction: Extraction | None = None

    @classmethod
    def new(cls, session_id: SessionId, owned: OwnedAgent, order: NewSession, now: int, grace_seconds: int) -> Self:
        """Begin a session; raises TtlTooShort. The room's name is the session's id."""
        agent, terms = owned.agent, Terms.agree(order, owned.agent.behaviors)
        return cls(
            session_id=session_id,
            workspace=owned.workspace,
            agent_id=agent.agent_id,
            agent_version=agent.version,
            status="active",
            participant=order.participant,
            max_duration_seconds=terms.max_duration_seconds,
            ttl_seconds=terms.ttl_seconds,
            created_at=now,
            expires_at=now + terms.ttl_seconds,
            livekit=RoomFacts(room_name=session_id),
            media=order.media,
            metadata=order.metadata,
            grace_seconds=grace_seconds,
            due_at=now + terms.ttl_seconds + grace_seconds,
        )

    @property
    def is_on(self) -> bool:
        """Whether the call may go on: it has neither ended nor been hung up."""
        return self.status == "active" and self.hung_up_at is None

    @property
    def given_up_at(self) -> int:
        """When it is no longer waited for: its connections have ended, and its transcript had time to come late."""
        return self.expires_at + self.grace_seconds

    @property
    def cap_ends_at(self) -> int | None:
        """When the call is hung up for being over its cap, which counts from the first join; None without either."""
        rooms: tuple[RoomFacts | OtherRoom, ...] = (self.livekit, *self.livekit.other_rooms)
        joined = min((room.first_joined_at for room in rooms if room.first_joined_at is not None), default=None)
        cap = self.max_duration_seconds
        return None if joined is None or cap is None else joined + cap + CAP_LEEWAY_SECONDS

    @property
    def next_due_at(self) -> int:
        """When something has to be done for it, while it is active, if nobody else does."""
        over_at = self.cap_ends_at if self.hung_up_at is None else None
        return self.given_up_at if over_at is None else min(self.given_up_at, over_at)

    def opened(self, room_sid: str, started_at: int) -> Self:
        """Note the room that LiveKit made."""
        facts = self.livekit.model_copy(update={"room_sid": room_sid, "started_at": started_at})
        return replace(self, livekit=facts)

    def failed(self, failure: Problem, end_reason: str, now: int, due_at: int | None = None) -> Self:
        """End a session of which nothing came, and keep why."""
        return replace(self, status="failed", failed_at=now, failure=failure, end_reason=end_reason, due_at=due_at)


@dataclass(frozen=True, slots=True)
class CallEnd:
    """What turns an active session into a completed one, all in one write."""

    completed_at: int
    completed_by: str
    duration_seconds: int | float | None
    end_reason: str
    transcript_id: TranscriptId
    turns: int
    extraction: Extraction
    due_at: int
    """When to look after its room and the extraction, if nobody has said by then that both are done with."""
    checkpoint_turns: int | None = None
    """How many kept turns the transcript was made of; None if it was the client's own."""
    request_hash: str | None = None
    """Which request did it, if that may be sent again under an Idempotency-Key."""
    expires_at: int | None = None
    """The expiry for which the session was given up: it goes on if it was renewed since. None if it is not given up."""


class SessionSummary(Document):
    """A session as lists show it."""

    session_id: SessionId
    agent_id: AgentId
    agent_version: int
    """The agent's version when the session was started; it stays with it."""
    status: Status
    participant: Participant
    max_duration_seconds: int | None
    """How long the call may last; null is without a cap."""
    ttl_seconds: int
    """For how long the connections are good."""
    created_at: int
    expires_at: int
    """When the connections end."""
    completed_at: int | None
    failed_at: int | None
    failure: Problem | None
    """Why a failed session failed."""
    duration_seconds: int | float | None
    end_reason: str | None
    """Why the call ended."""
    completed_by: str | None
    """Who completed the session."""
    hung_up_at: int | None
    """When we hung the call up, because it was stopped or over its cap."""
    checkpoint_turns: int
    """How many turns were kept as the call went."""
    livekit: RoomFacts
    """What LiveKit has told of the room so far."""
    metadata: dict[str, str]


class SessionState(SessionSummary):
    """A session with all that is known of it."""

    transcript: list[Turn] | None
    """What was said; null until the session is completed."""
    results: JsonValue
    """What the agent's output schema asks for; null where there is none."""
    extraction: Extraction | None
    """How the extraction of the results went; null until the session is completed."""


class ExtractedResults(Document):
    """The answer to an extraction that was asked for by hand."""

    session_id: SessionId | None
    """Whose transcript was read; null for a pasted one."""
    results: JsonValue
    """What the output schema asks for; null where there is none, or where the extraction failed."""
    extraction: Extraction
    """How it went."""
    warnings: list[Detail]
    """What Gemini will not see of the output schema, by its place."""


class LiveKitConnection(Document):
    """How one person enters the room."""

    url: str
    """Where the LiveKit client connects to."""
    token: str
    """A JWT for this one room and this one person."""
    room: str
    """The room's name."""


class GeminiLiveConnection(Document):
    """How the client reaches the model: open `url + "?access_token=" + token`, then send `setup` as it stands."""

    url: str
    """The WebSocket to open, with `?access_token=` and the token behind it."""
    token: str
    """An ephemeral token, locked to the agent."""
    model: str
    """The model that speaks."""
    setup: dict[str, JsonValue]
    """The first message to send, as it stands."""


class Connection(Document):
    """The two real-time connections of a session."""

    livekit: LiveKitConnection
    gemini_live: GeminiLiveConnection


class StartedSession(Document):
    """The answer to session create: shown once, its tokens are stored nowhere."""

    session_id: SessionId
    agent_id: AgentId
    agent_version: int
    status: Literal["active"]
    participant: Participant
    max_duration_seconds: int | None
    ttl_seconds: int
    created_at: int
    expires_at: int
    client_token: str
    """Opens this session's own routes, and nothing else: for a browser, which must not hold an API key."""
    connection: Connection
    metadata: dict[str, str]


class RenewedSession(Document):
    """The answer to renewing a session: shown once, its tokens are stored nowhere."""

    session_id: SessionId
    expires_at: int
    client_token: str
    connection: Connection


class ParticipantConnection(Document):
    """The one connection that another person gets."""

    livekit: LiveKitConnection


class AdmittedParticipant(Document):
    """The answer to adding a participant."""

    session_id: SessionId
    participant: Participant
    expires_at: int
    connection: ParticipantConnection


def summary_of(session: Session) -> SessionSummary:
    """Show a session as lists do."""
    return SessionSummary.model_construct(**_shown(session))


def state_of(session: Session, transcript: list[Turn] | None) -> SessionState:
    """Show a session with its transcript; None while there is none."""
    return SessionState.model_construct(
        **_shown(session),
        transcript=transcript,
        results=session.results,
        extraction=session.extraction,
    )


def _shown(session: Session) -> dict[str, Any]:
    return {name: getattr(session, name) for name in SessionSummary.model_fields}
