"""What the use cases need, as Protocols. Adapters implement them, and so do the fakes of the tests.

Models are imported for their types only: every function imports this module, and none needs all models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from pydantic import JsonValue

    from pi_voice.domain.agents import Agent, ListAgentsQuery, ListAgentVersionsQuery, OwnedAgent
    from pi_voice.domain.api_keys import ApiKey
    from pi_voice.domain.connection_api import GeminiLiveConnection, LiveKitConnection
    from pi_voice.domain.duties import Duties
    from pi_voice.domain.extractions import Extraction
    from pi_voice.domain.idempotency import IdempotentRequest
    from pi_voice.domain.ids import (
        AgentId,
        DeliveryId,
        EndpointId,
        EventId,
        KeyHash,
        KeyId,
        SessionId,
        TranscriptId,
        WorkspaceId,
    )
    from pi_voice.domain.livekit_webhooks import RoomEvent
    from pi_voice.domain.pagination import Page
    from pi_voice.domain.session_api import ListSessionsQuery
    from pi_voice.domain.sessions import Medium, Participant, Session, SessionCompletion, Tombstone
    from pi_voice.domain.tool_calls import Run, StoredToolCall, ToolCall
    from pi_voice.domain.tools import Tool
    from pi_voice.domain.transcripts import TranscriptTurn
    from pi_voice.domain.usage import TokenUsage
    from pi_voice.domain.webhook_deliveries import Delivery, Outcome
    from pi_voice.domain.webhook_delivery_api import ListWebhookDeliveriesQuery
    from pi_voice.domain.webhook_endpoint_api import ListWebhookEndpointsQuery, WebhookDisabledReason
    from pi_voice.domain.webhook_endpoints import WebhookEndpoint


class Scope(NamedTuple):
    """The sessions a caller may access: those of a workspace, or a single one."""

    workspace: WorkspaceId | None = None
    session_id: SessionId | None = None

    @property
    def owner(self) -> str:
        """The workspace, or the single session: whose requests are counted and recognized."""
        return self.workspace or self.session_id or ""

    def covers(self, session: Session) -> bool:
        """Return whether a session is in the scope."""
        return self.workspace == session.workspace or self.session_id == session.session_id


class SessionCaller(Protocol):
    """Caller of a session's own routes, with an API key or with the session's client token."""

    async def authenticate(self) -> None:
        """Check the credential; raises InvalidApiKey."""
        ...

    async def scope(self) -> Scope:
        """Return the caller's scope; raises InvalidApiKey."""
        ...


class Caller(SessionCaller, Protocol):
    """Caller with an API key. The key is looked up on demand, so that a use case can read a row at the same time."""

    async def workspace(self) -> WorkspaceId:
        """Return the caller's workspace; raises InvalidApiKey."""
        ...


class ApiKeys(Protocol):
    """Store of API keys."""

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        """Return the key with this hash, revoked or not."""
        ...

    async def add(self, key: ApiKey, key_hash: KeyHash) -> None:
        """Store a new key."""
        ...

    async def in_workspace(self, workspace: WorkspaceId) -> list[ApiKey]:
        """Return all keys of a workspace, newest first."""
        ...

    async def revoke(self, workspace: WorkspaceId, key_id: KeyId, now: int) -> ApiKey | None:
        """Revoke a key and return it; None if the workspace has no such key.

        Repeated calls do not change `revoked_at`.
        """
        ...


class Agents(Protocol):
    """Store of agents: immutable versions, and a head for the current one."""

    async def current(self, agent_id: AgentId) -> OwnedAgent | None:
        """Return an agent's head, in any workspace."""
        ...

    async def version(self, agent_id: AgentId, version: int) -> Agent:
        """Return one version of an agent, also after the agent was deleted; raises AgentVersionNotFound."""
        ...

    async def version_page(self, agent_id: AgentId, query: ListAgentVersionsQuery) -> Page[Agent]:
        """Return one page of an agent's versions, newest first; raises InvalidCursor."""
        ...

    async def save(self, workspace: WorkspaceId, agent: Agent, request_hash: str | None = None) -> bool:
        """Make this version the head if the head is the previous version; return whether it was."""
        ...

    async def delete(self, workspace: WorkspaceId, agent_id: AgentId) -> None:
        """Delete the head; the versions remain for the sessions that use them."""
        ...

    async def page(self, workspace: WorkspaceId, query: ListAgentsQuery) -> Page[Agent]:
        """Return one page of a workspace's agents, newest first; raises InvalidCursor."""
        ...


class DueSession(NamedTuple):
    """A session or tombstone with a duty that is due, as listed by the index, which lags behind the table."""

    session_id: SessionId
    due_at: int


class Sessions(Protocol):
    """Store of sessions, and of the tombstones of deleted ones.

    `add`, `complete`, `fail`, `start` and `save_extraction` also store the event that the change owes, with the duty to
    send it, as `domain.webhook_events` says. So do `Checkpoints.append` and `ToolCalls.record`, the first time.
    """

    async def get(self, session_id: SessionId) -> Session | None:
        """Return a session, in any workspace; None for a tombstone. Raises UnreadableRow."""
        ...

    async def add(self, session: Session) -> bool:
        """Store a new session, and return whether it was new; an existing one is not changed."""
        ...

    async def complete(self, session: Session, completion: SessionCompletion) -> Session | None:
        """Turn an active session into a completed one, all or nothing.

        None if it was not active, or if its checkpoints or its expiry differ from those in the completion.
        """
        ...

    async def fail(self, session: Session, failed: Session, close_room_at: int | None) -> Session | None:
        """Turn an active session without checkpoints into a failed one, with the duty to close its room, if any.

        None if it is not active, has checkpoints, or was renewed. An earlier hang-up keeps its reason. Only
        attributes of the failure and the duties change.
        """
        ...

    async def hang_up(self, session: Session, reason: str, now: int) -> Session | None:
        """Record that an active call was hung up, with the duty to close its room; None if it was not active.

        Repeated calls do not change `hung_up_at`.
        """
        ...

    async def start(self, session: Session, now: int, hang_up_at: int | None) -> Session | Tombstone | None:
        """Record the first sign of life of an ongoing call, and when to hang up, if it is known.

        Nothing changes if the call has started or is not ongoing. Return the current row; None if there is none.
        """
        ...

    async def count_renewal(self, session_id: SessionId) -> Session | None:
        """Count one more renewal of an ongoing call; None if it is not ongoing. Raises RenewalLimitReached."""
        ...

    async def renew(self, session_id: SessionId, expires_at: int) -> Session | None:
        """Move the expiry of an ongoing call forward, never back; None if it is not ongoing.

        The duties do not change: the sweeper reads the new expiry when it would end the call.
        """
        ...

    async def report_usage(self, session: Session, report: TokenUsage) -> TokenUsage | None:
        """Merge a report into the usage of a session, the larger of each number, and return the merged usage.

        None if the session was deleted. Nothing else changes.
        """
        ...

    async def set_duties(self, session_id: SessionId, before: Duties, after: Duties) -> Session | Tombstone | None:
        """Replace the duties of a session or tombstone, unless they changed since the read.

        Return the current row; None if there is none.
        """
        ...

    async def save_extraction(
        self, before: Session, results: JsonValue, extraction: Extraction, duties: Callable[[Duties], Duties]
    ) -> Session:
        """Store results and extraction, and change the duties, unless the extraction changed since the read.

        Return the current session. Raises SessionNotFound if it was deleted.
        """
        ...

    async def clear_owed_events(self, session: Session, dispatched: Collection[EventId]) -> None:
        """Remove events that have their deliveries, and the duty to send if none is left.

        Events that were appended since the read stay. Nothing changes once the session was deleted.
        """
        ...

    async def merge_room_event(self, event: RoomEvent) -> Session | Tombstone | None:
        """Merge a LiveKit event into its session and return it; None if there is no such session. Idempotent."""
        ...

    def due(self, now: int) -> AsyncIterator[list[DueSession]]:
        """Yield due sessions, page by page. A page may be empty."""
        ...

    async def duties(self, session_id: SessionId) -> Duties | None:
        """Return the duties of a session or tombstone; None if there is none. Raises UnreadableRow."""
        ...

    async def put_off(self, due: DueSession, until: int | None) -> bool:
        """Move the due time of a row that cannot be read; None: it is not due any more.

        Return False, without a write, if it was put off too often.
        """
        ...

    async def delete(self, tombstone: Tombstone, now: int) -> None:
        """Replace an ended session by a tombstone; raises SessionActive."""
        ...

    async def forget(self, tombstone: Tombstone) -> None:
        """Delete a tombstone, unless its duties changed since the read."""
        ...

    async def page(self, workspace: WorkspaceId, query: ListSessionsQuery) -> Page[Session]:
        """Return one page of a workspace's sessions, without results, newest first; raises InvalidCursor."""
        ...


class Checkpoints(Protocol):
    """Store of turns saved during the call."""

    async def append(self, session: Session, turns: Sequence[TranscriptTurn], size: int, now: int) -> Session | None:
        """Append turns to those of a session. When this returns, they are durable.

        All or nothing; None if the session is not active, or if turns were saved since it was read.
        """
        ...

    async def read(self, session: Session) -> list[TranscriptTurn]:
        """Return all turns that were saved when the session was read."""
        ...


FinishedRun = Literal["recorded", "full", "superseded", "deleted"]
"""What came of recording the answer of a run."""


class ToolCalls(Protocol):
    """Store of the tool calls of sessions."""

    async def record(self, session: Session, call: ToolCall, size: int, run: Run | None = None) -> Session | None:
        """Record a call of a session, with its run if it has one. When this returns, it is durable.

        None if the session is not active, if a call was recorded since it was read, or if this call is recorded.
        """
        ...

    async def run_again(self, session_id: SessionId, call_id: str, before: Run, ends_at: int) -> Run | None:
        """Begin another run of a call whose run ended without an answer.

        None if another request did, or if the answer was recorded since.
        """
        ...

    async def finish(self, session_id: SessionId, call: ToolCall, run: Run, size: int, limit: int) -> FinishedRun:
        """Record the answer of a run, also if the session has ended meanwhile. When it is `recorded`, it is durable.

        `full`: with `size` more bytes the session's calls would exceed `limit`. `superseded`: another run has begun, or
        has ended. `deleted`: the session was.
        """
        ...

    async def find(self, session_id: SessionId, call_id: str) -> StoredToolCall | None:
        """Return a recorded call."""
        ...

    async def read(self, session: Session) -> list[ToolCall]:
        """Return the calls that were recorded when the session was read, in their order."""
        ...


class Transcripts(Protocol):
    """Store of transcripts of completed sessions, beside everything else that was said in a session."""

    async def put(self, session_id: SessionId, transcript_id: TranscriptId, turns: Sequence[TranscriptTurn]) -> None:
        """Store a transcript. When this returns, it is durable."""
        ...

    async def get(self, session_id: SessionId, transcript_id: TranscriptId) -> list[TranscriptTurn] | None:
        """Return a transcript."""
        ...

    async def expire(self, session_id: SessionId, transcript_id: TranscriptId, turns: Sequence[TranscriptTurn]) -> None:
        """Let a transcript without a session expire; it may have been written in part."""
        ...

    async def delete(self, session_id: SessionId) -> None:
        """Delete everything that was said in a session: its transcript, those of lost races, and saved turns."""
        ...


class SessionQueue(Protocol):
    """Queue of sessions: those whose results are still to be extracted, or those that owe events."""

    async def put(self, session_id: SessionId, delay_seconds: int = 0) -> None:
        """Enqueue a session, to be delivered after a pause; raises StorageError."""
        ...

    async def delay(self, receipt_handle: str, seconds: int) -> None:
        """Set when a received message becomes visible again; raises StorageError."""
        ...


class SessionQueues(NamedTuple):
    """The queues of a function that extracts results: unfinished extractions, and sessions that owe events."""

    extractions: SessionQueue
    events: SessionQueue


class WebhookEndpoints(Protocol):
    """Store of webhook endpoints."""

    async def find(self, workspace: WorkspaceId, endpoint_id: EndpointId) -> WebhookEndpoint | None:
        """Return an endpoint of a workspace."""
        ...

    async def in_workspace(self, workspace: WorkspaceId) -> list[WebhookEndpoint]:
        """Return all endpoints of a workspace, newest first."""
        ...

    async def page(self, workspace: WorkspaceId, query: ListWebhookEndpointsQuery) -> Page[WebhookEndpoint]:
        """Return one page of a workspace's endpoints, newest first; raises InvalidCursor."""
        ...

    async def add(self, endpoint: WebhookEndpoint) -> None:
        """Store a new endpoint."""
        ...

    async def update(self, before: WebhookEndpoint, after: WebhookEndpoint) -> WebhookEndpoint | None:
        """Store what the owner changed and return the endpoint; None if the owner changed it since the read.

        Only what differs is written: what deliveries changed since the read remains.
        """
        ...

    async def rotate(self, before: WebhookEndpoint, after: WebhookEndpoint) -> WebhookEndpoint | None:
        """Store a new secret's version and return the endpoint; None if the secret changed since the read."""
        ...

    async def delete(self, workspace: WorkspaceId, endpoint_id: EndpointId) -> bool:
        """Delete an endpoint, and return whether there was one."""
        ...

    async def note_failure(
        self, endpoint: WebhookEndpoint, now: int, *, timed_out: bool = False
    ) -> WebhookEndpoint | None:
        """Record since when the events of an endpoint fail, and whether it hangs, and return it.

        A later failure does not change the time. None if it was deleted, or has another URL by now.
        """
        ...

    async def note_success(self, endpoint: WebhookEndpoint) -> None:
        """Record that an event was delivered to an endpoint, so that it neither fails nor hangs any more."""
        ...

    async def disable(
        self, endpoint: WebhookEndpoint, reason: WebhookDisabledReason, now: int
    ) -> WebhookEndpoint | None:
        """Disable an endpoint and return it.

        None if it was disabled before, was deleted, has another URL by now, or, for `failing`, has worked since.
        """
        ...


class DueDelivery(NamedTuple):
    """A delivery with a try that is due, as listed by the index, which lags behind the table."""

    endpoint_id: EndpointId
    delivery_id: DeliveryId
    due_at: int


class WebhookDeliveries(Protocol):
    """Store of deliveries: what is still to be sent, and the log of what was."""

    async def add(self, delivery: Delivery) -> bool:
        """Store a new delivery, and return whether it was new; an existing one is not changed."""
        ...

    async def find(self, endpoint_id: EndpointId, delivery_id: DeliveryId) -> Delivery | None:
        """Return a delivery; raises UnreadableRow."""
        ...

    async def page(self, endpoint_id: EndpointId, query: ListWebhookDeliveriesQuery) -> Page[Delivery]:
        """Return one page of an endpoint's deliveries, newest first; raises InvalidCursor."""
        ...

    def due(self, now: int) -> AsyncIterator[list[DueDelivery]]:
        """Yield due deliveries, page by page. A page may be empty."""
        ...

    async def put_off(self, due: DueDelivery, until: int) -> Delivery | None:
        """Move the due time of a pending delivery and return it; None if it changed since the index listed it.

        Raises UnreadableRow.
        """
        ...

    async def claim(self, delivery: Delivery, now: int, due_at: int) -> Delivery | None:
        """Count one more try of a pending delivery and return it; None if another try was begun or it ended."""
        ...

    async def record(self, delivery: Delivery, outcome: Outcome) -> Delivery | None:
        """Store the outcome of the try that was claimed; None if another try was begun or it ended."""
        ...

    async def cancel(self, delivery: Delivery) -> Delivery | None:
        """Turn a pending delivery into a cancelled one; None if another try was begun or it ended."""
        ...

    async def put(self, delivery: Delivery) -> None:
        """Store a delivery that has ended, in place of an earlier one of the same id."""
        ...

    async def redeliver(self, delivery: Delivery, now: int) -> Delivery | None:
        """Make a delivery that has ended due again, with all its tries; None if it changed since it was read."""
        ...


class WebhookTargets(Protocol):
    """The hosts that webhooks are sent to."""

    async def check(self, url: str) -> None:
        """Check the URL of an endpoint and the addresses of its host; raises InvalidRequest with the path `url`."""
        ...


class DeliveryQueue(Protocol):
    """Queue of deliveries that are due. It delivers those of one endpoint in order, one at a time."""

    async def put(self, delivery: Delivery) -> None:
        """Enqueue the next try of a delivery, once if it is enqueued repeatedly; raises StorageError."""
        ...

    async def delay(self, receipt_handle: str, seconds: int) -> None:
        """Set when a received message becomes visible again; raises StorageError."""
        ...


class SignedRequest(NamedTuple):
    """A request to a webhook endpoint. Each secret signs it."""

    url: str
    event_id: str
    body: bytes
    secrets: tuple[str, ...]


SendError = Literal[
    "timeout", "connection_failed", "tls_failed", "address_refused", "redirected", "http_error", "response_too_large"
]
"""Why a request to a webhook endpoint failed."""


class Sent(NamedTuple):
    """What came of a request to a webhook endpoint."""

    http_status: int | None
    """Status of the response; None without one."""
    milliseconds: int
    error: SendError | None
    """None for a response with a status from 200 to 299."""
    response: bytes = b""
    """Response to a tool call, or the first kilobyte of another one."""


class WebhookSender(Protocol):
    """Sends signed requests to webhook endpoints."""

    async def send(self, request: SignedRequest) -> Sent:
        """Send one request within the time limit of a try. Never raises because of the receiver."""
        ...


class ToolSender(Protocol):
    """Sends signed tool calls to webhook endpoints, on connections that stay open."""

    async def send(self, request: SignedRequest, seconds: float) -> Sent:
        """Send one request, and read its whole response, at most MAX_RESPONSE_BYTES, within a time in seconds.

        Never raises because of the receiver.
        """
        ...


class CreatedRoom(NamedTuple):
    """A LiveKit room in the response of CreateRoom."""

    room_sid: str
    started_at: int


class Rooms(Protocol):
    """LiveKit rooms, and tokens to join them."""

    async def open(self, session: Session) -> CreatedRoom:
        """Create a session's room; raises LiveKitError, LiveKitUnavailable or UpstreamTimeout."""
        ...

    async def close(self, session_id: SessionId) -> None:
        """Delete a session's room if it exists, and disconnect its participants; raises as `open` does."""
        ...

    def issue_token(self, session: Session, participant: Participant, media: Sequence[Medium]) -> LiveKitConnection:
        """Sign a token for one participant, valid until the session expires."""
        ...


class SignedWebhook(NamedTuple):
    """The raw body of a webhook, or a function that reads it, and the token in its Authorization header."""

    token: str
    content: bytes | Callable[[], bytes]

    @property
    def body(self) -> bytes:
        """The raw body, which is read only after the token was verified; raises RequestTooLarge, InvalidRequest."""
        return self.content if isinstance(self.content, bytes) else self.content()


class WebhookVerifier(Protocol):
    """Signatures of LiveKit's webhooks."""

    def verify(self, webhook: SignedWebhook) -> None:
        """Check the signature of a webhook; raises InvalidWebhookSignature."""
        ...


class LiveTokenRequest(NamedTuple):
    """The setup a Gemini Live token is locked to; `expires_at` is Unix seconds.

    `languages` (BCP 47) and `vocabulary` are hints for the transcription of the caller.
    """

    instruction: str
    voice: str
    expires_at: int
    languages: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    may_hang_up: bool = False
    """Whether the agent has the built-in tool `hang_up`."""


class LiveTokens(Protocol):
    """Ephemeral Gemini Live tokens for browsers."""

    async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
        """Issue a token for one connection; raises GeminiError, GeminiUnavailable or UpstreamTimeout."""
        ...


class ModelRequest(NamedTuple):
    """A request to the extraction model: system instruction, messages and the schema of the answer.

    Messages alternate between user and model; the first and the last are the user's.
    """

    instruction: str
    messages: tuple[str, ...]
    schema: dict[str, JsonValue]


class ModelResponse(NamedTuple):
    """Answer of the extraction model, how it ended, its token counts, and the model's own id."""

    text: str
    model: str
    end: Literal["finished", "truncated", "blocked", "broken"] = "finished"
    input_tokens: int = 0
    output_tokens: int = 0


class ExtractionModel(Protocol):
    """The model that extracts results from transcripts."""

    name: str

    async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
        """Send one request with a time limit; raises GeminiError, GeminiUnavailable or UpstreamTimeout."""
        ...


class IdempotencyStore(Protocol):
    """Record of the requests that carried an Idempotency-Key."""

    def once(self, request: IdempotentRequest, context: Any, work: Callable[[], str]) -> str:
        """Do the work unless the same request did it before, and return the id of the resource it created.

        `context` is the Lambda context, for the remaining time. Raises what the work raises, IdempotencyKeyReused,
        IdempotencyInProgress and StorageError.
        """
        ...


class RateLimiter(Protocol):
    """Limit of the requests of one kind per minute, for each owner of a scope."""

    async def acquire(self, owner: str) -> None:
        """Count one request of an owner; raises RateLimited, StorageError."""
        ...
