"""What the use cases need of the world, as Protocols: the adapters implement them, and the tests' fakes do."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import JsonValue

from pi_voice.agents import Agent, AgentQuery, OwnedAgent
from pi_voice.api_keys import ApiKey
from pi_voice.documents import Page
from pi_voice.ids import AgentId, KeyHash, KeyId, SessionId, TranscriptId, WorkspaceId
from pi_voice.sessions import (
    CallEnd,
    Extraction,
    GeminiLiveConnection,
    LiveKitConnection,
    Medium,
    Participant,
    Session,
    SessionQuery,
)
from pi_voice.transcript import Turn


@dataclass(frozen=True, slots=True)
class Scope:
    """What a caller of a session's routes may see: the sessions of a workspace, or one session alone."""

    workspace: WorkspaceId | None = None
    session_id: SessionId | None = None

    def covers(self, session: Session) -> bool:
        """Tell whether a session is in it."""
        return self.workspace == session.workspace or self.session_id == session.session_id


class Visitor(Protocol):
    """Who calls a session's own routes: the holder of an API key, or of the session's client token."""

    async def scope(self) -> Scope:
        """Return what the caller may see; raises InvalidApiKey."""
        ...


class Caller(Visitor, Protocol):
    """The holder of an API key. Whose key it is takes a look-up, which a use case may run beside its own first read."""

    async def workspace(self) -> WorkspaceId:
        """Return the caller's workspace; raises InvalidApiKey."""
        ...


class ApiKeys(Protocol):
    """Where API keys are kept."""

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        """Return the key with this hash, revoked or not."""
        ...

    async def add(self, key: ApiKey, key_hash: KeyHash) -> None:
        """Keep a new key."""
        ...

    async def of(self, workspace: WorkspaceId) -> list[ApiKey]:
        """Return all keys of a workspace, newest first."""
        ...

    async def revoke(self, workspace: WorkspaceId, key_id: KeyId, now: int) -> ApiKey | None:
        """Revoke a key and return it; None if the workspace has none with this id. The first time stands."""
        ...


class Agents(Protocol):
    """Where agents are kept: every version as an immutable item, and the current one as the head."""

    async def current(self, agent_id: AgentId) -> OwnedAgent | None:
        """Return an agent's head, whichever workspace it belongs to."""
        ...

    async def version(self, agent_id: AgentId, version: int) -> Agent:
        """Return one version of an agent, which outlives the agent itself; raises AgentNotFound."""
        ...

    async def save(self, workspace: WorkspaceId, agent: Agent) -> bool:
        """Make this version the head, if the head is the version before it; tell whether it was."""
        ...

    async def delete(self, workspace: WorkspaceId, agent_id: AgentId) -> None:
        """Remove the head; the versions stay for the sessions that were started with them."""
        ...

    async def page(self, workspace: WorkspaceId, query: AgentQuery) -> Page[Agent]:
        """Return one page of a workspace's agents, newest first; raises InvalidCursor."""
        ...


class Sessions(Protocol):
    """Where sessions are kept."""

    async def get(self, session_id: SessionId) -> Session | None:
        """Return a session, whichever workspace it belongs to."""
        ...

    async def add(self, session: Session) -> bool:
        """Keep a new session, and tell whether it was not kept already; what is kept then stays as it is."""
        ...

    async def complete(self, session_id: SessionId, end: CallEnd) -> Session | None:
        """Turn an active session into a completed one, all or nothing.

        None if it was not active, or if turns were kept or more time was given that the end does not know of.
        """
        ...

    async def fail(self, failed: Session) -> Session | None:
        """Turn an active session without kept turns into a failed one; None if it was not that, or was renewed.

        What a call was hung up for stays its reason. All else that is not about the failure stays as it is kept.
        """
        ...

    async def hang_up(self, session_id: SessionId, reason: str, now: int) -> Session | None:
        """Note that an active call was hung up, and that its room has to go; None if it was not active.

        The first time stands. Until `schedule` says otherwise it is due at once.
        """
        ...

    async def renew(self, session_id: SessionId, expires_at: int) -> Session | None:
        """Move the expiry of a call that is on, never back; None if it is not on any more.

        When it is due stays as it is: who looks then finds that there is more time.
        """
        ...

    async def schedule(self, session: Session, due_at: int | None) -> Session | None:
        """Say when to look at a session next, None for never, if nobody has said so since it was read.

        Return the session as it is now; None if it is gone.
        """
        ...

    async def record(self, before: Session, results: JsonValue, extraction: Extraction, due_at: int | None) -> Session:
        """Keep what an extraction gave, unless another was kept since `before` was read; return what is kept now.

        Raises SessionNotFound if the session is gone.
        """
        ...

    def due(self, shard: int, now: int) -> AsyncIterator[SessionId]:
        """Return the sessions of one shard for which something has to be done by now, the oldest first."""
        ...

    async def delete(self, session_id: SessionId) -> None:
        """Remove a session that has ended."""
        ...

    async def page(self, workspace: WorkspaceId, query: SessionQuery) -> Page[Session]:
        """Return one page of a workspace's sessions, without results, newest first; raises InvalidCursor."""
        ...


@dataclass(frozen=True, slots=True)
class RoomEvent:
    """What one LiveKit webhook tells of a room of ours; all instants are Unix seconds."""

    session_id: SessionId
    room_sid: str
    started_at: int | None = None
    joined_at: int | None = None
    finished_at: int | None = None
    metadata: dict[str, JsonValue] | None = None


class RoomLog(Protocol):
    """Where what LiveKit tells of rooms is merged into their sessions."""

    async def merge(self, event: RoomEvent) -> Session | None:
        """Merge an event into its session and return it; None if there is no such session. Repeats change nothing."""
        ...


class Checkpoints(Protocol):
    """Where turns are kept while the call goes on."""

    async def append(self, session: Session, turns: Sequence[Turn], size: int) -> Session | None:
        """Keep turns behind those that a session has; when this returns, they are durable.

        All or nothing; None if the session is not active any more or turns were kept since it was read.
        """
        ...

    async def read(self, session: Session) -> list[Turn]:
        """Return all turns that are kept of a session as it was read."""
        ...

    async def delete(self, session_id: SessionId) -> None:
        """Remove what was kept."""
        ...


class ExtractionQueue(Protocol):
    """Sessions whose results are still to be extracted."""

    async def put(self, session_id: SessionId) -> None:
        """Have a session's results extracted soon; raises StorageError."""
        ...


class Transcripts(Protocol):
    """Where transcripts are kept."""

    async def put(self, transcript_id: TranscriptId, turns: Sequence[Turn]) -> None:
        """Keep a transcript; when this returns, it is durable."""
        ...

    async def get(self, transcript_id: TranscriptId) -> list[Turn] | None:
        """Return a transcript."""
        ...

    async def expire(self, transcript_id: TranscriptId, turns: Sequence[Turn]) -> None:
        """Let a transcript that nothing points to disappear by itself; it may have been written in part."""
        ...

    async def delete(self, transcript_id: TranscriptId) -> None:
        """Remove a transcript now."""
        ...


@dataclass(frozen=True, slots=True)
class OpenedRoom:
    """A LiveKit room as CreateRoom answered it."""

    room_sid: str
    started_at: int


class Rooms(Protocol):
    """LiveKit: rooms, and the tokens that open them."""

    async def open(self, session: Session) -> OpenedRoom:
        """Make a session's room; raises LiveKitError, LiveKitUnavailable or UpstreamTimeout."""
        ...

    async def close(self, session_id: SessionId) -> None:
        """Remove a session's room and everybody in it, if it is there; raises as `open` does."""
        ...

    def admit(self, session: Session, participant: Participant, media: Sequence[Medium]) -> LiveKitConnection:
        """Sign a token that lets one person into the session's room until the session expires."""
        ...


@dataclass(frozen=True, slots=True)
class LiveOrder:
    """What a Gemini Live token is locked to; `expires_at` is Unix seconds."""

    instruction: str
    voice: str
    expires_at: int


class LiveTokens(Protocol):
    """Gemini Live: ephemeral tokens that a browser may hold."""

    async def mint(self, order: LiveOrder) -> GeminiLiveConnection:
        """Make a token for one connection; raises GeminiError, GeminiUnavailable or UpstreamTimeout."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What the extraction model is asked: the caller's and the model's words by turns, the last ones the caller's."""

    instruction: str
    said: tuple[str, ...]
    schema: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What the extraction model said, how it ended, what it took, and the model's own name for itself."""

    text: str
    model: str
    end: Literal["finished", "truncated", "blocked", "broken"] = "finished"
    input_tokens: int = 0
    output_tokens: int = 0


class ExtractionModel(Protocol):
    """The model that reads transcripts."""

    name: str

    async def answer(self, question: Question, seconds: float) -> ModelAnswer:
        """Ask for JSON of the schema within so many seconds.

        Raises GeminiError, GeminiUnavailable or UpstreamTimeout.
        """
        ...


class Rates(Protocol):
    """How often a workspace may do what costs money."""

    async def take(self, workspace: WorkspaceId) -> None:
        """Count one more; raises RateLimited."""
        ...
