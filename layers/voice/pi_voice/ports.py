"""What the use cases need of the world, as Protocols: the adapters implement them, and the tests' fakes do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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


class Caller(Protocol):
    """Who calls. Whose key it is takes a look-up, which a use case may run beside its own first read."""

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

    async def add(self, session: Session) -> None:
        """Keep a new session."""
        ...

    async def complete(self, session_id: SessionId, end: CallEnd) -> Session | None:
        """Turn an active session into a completed one, all or nothing; None if it was not active."""
        ...

    async def record(
        self,
        session_id: SessionId,
        transcript_id: TranscriptId | None,
        results: JsonValue,
        extraction: Extraction,
    ) -> Session | None:
        """Keep what the extraction gave; None if the session is gone."""
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

    async def merge(self, event: RoomEvent) -> bool:
        """Merge an event into its session; False if there is no such session. Repeats change nothing."""
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
class ModelAnswer:
    """What the extraction model said, and the model's own name for itself."""

    text: str
    model: str


class ExtractionModel(Protocol):
    """The model that reads transcripts."""

    name: str

    async def answer(self, instruction: str, text: str, schema: dict[str, JsonValue], seconds: float) -> ModelAnswer:
        """Ask for JSON of the schema within so many seconds.

        Raises GeminiError, GeminiUnavailable or UpstreamTimeout.
        """
        ...
