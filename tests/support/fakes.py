"""In-memory fakes: one per port, and variants that fail in one way each.

Every method yields to the event loop before it acts, like a request, so that concurrent calls interleave. It then acts
in one step, like DynamoDB's conditional writes.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from pydantic import JsonValue

from pi_voice.domain.agents import Agent, ListAgentsQuery, ListAgentVersionsQuery, OwnedAgent
from pi_voice.domain.api_keys import ApiKey
from pi_voice.domain.connection_api import GeminiLiveConnection, LiveKitConnection
from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import (
    AgentVersionNotFound,
    ErrorDetail,
    InvalidApiKey,
    InvalidRequest,
    RateLimited,
    RenewalLimitReached,
    SessionActive,
    SessionNotFound,
    StorageError,
    UnreadableRow,
    VoiceError,
)
from pi_voice.domain.extractions import Extraction
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
from pi_voice.domain.sessions import MAX_RENEWALS, Medium, Participant, Session, SessionCompletion, Tombstone
from pi_voice.domain.tool_calls import Run, StoredToolCall, ToolCall
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.domain.usage import TokenUsage
from pi_voice.domain.webhook_deliveries import Delivery, Outcome
from pi_voice.domain.webhook_delivery_api import ListWebhookDeliveriesQuery
from pi_voice.domain.webhook_endpoint_api import ListWebhookEndpointsQuery, WebhookDisabledReason
from pi_voice.domain.webhook_endpoints import WebhookEndpoint
from pi_voice.domain.webhook_events import OwedEvent, event_of_end, event_of_extraction, event_of_first_sign
from pi_voice.ports import (
    CreatedRoom,
    DueDelivery,
    DueSession,
    FinishedRun,
    LiveTokenRequest,
    ModelRequest,
    ModelResponse,
    Scope,
    Sent,
    SignedRequest,
)

FAKE_PAGE: Final = 10
"""Number of due sessions on a page."""


async def _request() -> None:
    await asyncio.sleep(0)


class FakeClock:
    """A clock that moves only when a test moves it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Advance the clock without waiting."""
        await _request()
        self.now += seconds


async def no_pause(_: float) -> None:
    """Sleep without waiting."""
    await _request()


@dataclass(frozen=True)
class FakeCaller:
    """A caller with a valid key."""

    name: str = "acme"

    async def authenticate(self) -> None:
        await self.workspace()

    async def workspace(self) -> WorkspaceId:
        await _request()
        return WorkspaceId(self.name)

    async def scope(self) -> Scope:
        return Scope(workspace=await self.workspace())


@dataclass(frozen=True)
class FakeClient:
    """A caller with a valid client token."""

    session_id: SessionId

    async def authenticate(self) -> None:
        await self.scope()

    async def scope(self) -> Scope:
        await _request()
        return Scope(session_id=self.session_id)


class UnknownCaller:
    """A caller with a well-formed, unknown key."""

    async def authenticate(self) -> None:
        await self.workspace()

    async def workspace(self) -> WorkspaceId:
        await _request()
        raise InvalidApiKey

    async def scope(self) -> Scope:
        await _request()
        raise InvalidApiKey


class FakeApiKeys:
    """API keys, and the number of lookups."""

    def __init__(self) -> None:
        self.stored: dict[KeyHash, ApiKey] = {}
        self.lookups = 0

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        await _request()
        self.lookups += 1
        return self.stored.get(key_hash)

    async def add(self, key: ApiKey, key_hash: KeyHash) -> None:
        await _request()
        self.stored[key_hash] = key

    async def in_workspace(self, workspace: WorkspaceId) -> list[ApiKey]:
        await _request()
        return sorted(
            (key for key in self.stored.values() if key.workspace == workspace),
            key=lambda key: key.key_id,
            reverse=True,
        )

    async def revoke(self, workspace: WorkspaceId, key_id: KeyId, now: int) -> ApiKey | None:
        await _request()
        for key_hash, key in self.stored.items():
            if (key.workspace, key.key_id) == (workspace, key_id):
                if key.revoked_at is None:
                    self.stored[key_hash] = key.model_copy(update={"revoked_at": now})
                return self.stored[key_hash]
        return None


class FakeAgents:
    """Agents: heads, and versions that remain after a delete."""

    def __init__(self, *agents: Agent, workspace: str = "acme") -> None:
        self.heads = {agent.agent_id: OwnedAgent(WorkspaceId(workspace), agent) for agent in agents}
        self.versions = {(agent.agent_id, agent.version): agent for agent in agents}

    async def current(self, agent_id: AgentId) -> OwnedAgent | None:
        await _request()
        return self.heads.get(agent_id)

    async def version(self, agent_id: AgentId, version: int) -> Agent:
        await _request()
        if (agent_id, version) not in self.versions:
            raise AgentVersionNotFound
        return self.versions[agent_id, version]

    async def version_page(self, agent_id: AgentId, query: ListAgentVersionsQuery) -> Page[Agent]:
        await _request()
        newest_first = sorted((key for key in self.versions if key[0] == agent_id), reverse=True)
        return Page[Agent](data=[self.versions[key] for key in newest_first][: query.limit])

    async def save(self, workspace: WorkspaceId, agent: Agent, request_hash: str | None = None) -> bool:
        await _request()
        head = self.heads.get(agent.agent_id)
        if agent.version != (head.agent.version + 1 if head else 1):
            return False
        self.heads[agent.agent_id] = OwnedAgent(workspace, agent, request_hash)
        self.versions[agent.agent_id, agent.version] = agent
        return True

    async def delete(self, workspace: WorkspaceId, agent_id: AgentId) -> None:
        await _request()
        if agent_id in self.heads and self.heads[agent_id].workspace == workspace:
            del self.heads[agent_id]

    async def page(self, workspace: WorkspaceId, query: ListAgentsQuery) -> Page[Agent]:
        await _request()
        newest_first = sorted(self.heads, reverse=True)
        agents = [
            self.heads[agent_id].agent for agent_id in newest_first if self.heads[agent_id].workspace == workspace
        ]
        return Page[Agent](data=agents[: query.limit])


class FakeWebhookEndpoints:
    """Webhook endpoints, and the number of writes."""

    def __init__(self, *endpoints: WebhookEndpoint) -> None:
        self.stored = {endpoint.endpoint_id: endpoint for endpoint in endpoints}
        self.writes = 0

    async def find(self, workspace: WorkspaceId, endpoint_id: EndpointId) -> WebhookEndpoint | None:
        await _request()
        endpoint = self.stored.get(endpoint_id)
        return endpoint if endpoint is not None and endpoint.workspace == workspace else None

    async def in_workspace(self, workspace: WorkspaceId) -> list[WebhookEndpoint]:
        await _request()
        found = [each for each in self.stored.values() if each.workspace == workspace]
        return sorted(found, key=lambda each: each.endpoint_id, reverse=True)

    async def page(self, workspace: WorkspaceId, query: ListWebhookEndpointsQuery) -> Page[WebhookEndpoint]:
        endpoints = await self.in_workspace(workspace)
        return Page[WebhookEndpoint].model_construct(data=endpoints[: query.limit])

    async def add(self, endpoint: WebhookEndpoint) -> None:
        await _request()
        self._save(endpoint)

    async def update(self, before: WebhookEndpoint, after: WebhookEndpoint) -> WebhookEndpoint | None:
        await _request()
        current = self.stored.get(before.endpoint_id)
        if current is None or current.revision != before.revision:
            return None
        return self._save(replace(_merged(current, before, after), revision=before.revision + 1))

    async def rotate(self, before: WebhookEndpoint, after: WebhookEndpoint) -> WebhookEndpoint | None:
        await _request()
        current = self.stored.get(before.endpoint_id)
        if current is None or current.secret.generation != before.secret.generation:
            return None
        return self._save(_merged(current, before, after))

    async def delete(self, workspace: WorkspaceId, endpoint_id: EndpointId) -> bool:
        await _request()
        return self._is_in(endpoint_id, workspace) and self.stored.pop(endpoint_id, None) is not None

    async def note_failure(
        self, endpoint: WebhookEndpoint, now: int, *, timed_out: bool = False
    ) -> WebhookEndpoint | None:
        await _request()
        after = endpoint.after_failure(now, timed_out=timed_out)
        current = self.stored.get(endpoint.endpoint_id)
        if current is None or current.url != endpoint.url:
            return None
        since = current.failing_since or now
        return self._save(
            replace(current, failing_since=since, timeouts=after.timeouts, resting_until=after.resting_until)
        )

    async def note_success(self, endpoint: WebhookEndpoint) -> None:
        await _request()
        current = self.stored.get(endpoint.endpoint_id)
        if current is not None and current.failing_since is not None:
            self._save(replace(current.awake(), failing_since=None))

    async def disable(
        self, endpoint: WebhookEndpoint, reason: WebhookDisabledReason, now: int
    ) -> WebhookEndpoint | None:
        await _request()
        current = self.stored.get(endpoint.endpoint_id)
        if current is None or current.url != endpoint.url or current.disabled_at is not None:
            return None
        if reason == "failing" and current.failing_since != endpoint.failing_since:
            return None
        return self._save(replace(current, disabled_at=now, disabled_reason=reason))

    def _is_in(self, endpoint_id: EndpointId, workspace: WorkspaceId) -> bool:
        return endpoint_id in self.stored and self.stored[endpoint_id].workspace == workspace

    def _save(self, endpoint: WebhookEndpoint) -> WebhookEndpoint:
        self.writes += 1
        self.stored[endpoint.endpoint_id] = endpoint
        return endpoint


def _merged(current: WebhookEndpoint, before: WebhookEndpoint, after: WebhookEndpoint) -> WebhookEndpoint:
    """Apply what differs of two endpoints to the current one."""
    names = (field.name for field in fields(after))
    return replace(current, **{name: new for name in names if (new := getattr(after, name)) != getattr(before, name)})


class FakeWebhookTargets:
    """A check that accepts all URLs but some, and records what it was asked."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.checked: list[str] = []

    async def check(self, url: str) -> None:
        await _request()
        self.checked.append(url)
        if url in self.refused:
            raise InvalidRequest(details=[ErrorDetail("url", "Names a host that is not found. Check its name.")])


class FakeSessions:
    """Sessions and tombstones, and the room events merged into them."""

    def __init__(self, *sessions: Session) -> None:
        self.stored = {session.session_id: session for session in sessions}
        self.tombstones: dict[SessionId, Tombstone] = {}
        self.unreadable: dict[SessionId, int] = {}
        """Rows that cannot be read, and when they are due."""
        self.is_put_off_too_often = False
        self.room_events: list[RoomEvent] = []
        self.writes = 0
        """Number of changes to stored sessions."""

    async def get(self, session_id: SessionId) -> Session | None:
        await _request()
        return self.stored.get(session_id)

    async def add(self, session: Session) -> bool:
        await _request()
        return self.stored.setdefault(session.session_id, session) is session

    async def complete(self, session: Session, completion: SessionCompletion) -> Session | None:
        await _request()
        current = self._active(session.session_id)
        if current is None or completion.checkpoint_turns not in (None, current.checkpoint_turns):
            return None
        if completion.expires_at not in (None, current.expires_at):
            return None
        return self._update(
            current,
            status="completed",
            completed_at=completion.completed_at,
            completed_by=completion.completed_by,
            duration_seconds=completion.duration_seconds,
            end_reason=current.end_reason or completion.end_reason,
            transcript_id=completion.transcript_id,
            turns=completion.turns,
            request_hash=completion.request_hash,
            room_ends_at=completion.room_ends_at,
            extraction=completion.extraction,
            **_owing(
                current, completion.duties_after(current.duties), event_of_end("completed", completion.completed_at)
            ),
        )

    async def fail(self, session: Session, failed: Session, close_room_at: int | None) -> Session | None:
        await _request()
        current = self._active(session.session_id)
        if current is None or current.checkpoint_turns or current.expires_at != failed.expires_at:
            return None
        duties = current.duties.without("end_call", "hang_up")
        return self._update(
            current,
            status=failed.status,
            failed_at=failed.failed_at,
            failure=failed.failure,
            end_reason=current.end_reason or failed.end_reason,
            **_owing(
                current,
                duties if close_room_at is None else duties.plus(close_room=close_room_at),
                failed.owed_events[-1],
            ),
        )

    async def hang_up(self, session: Session, reason: str, now: int) -> Session | None:
        await _request()
        current = self._active(session.session_id)
        if current is None:
            return None
        first = now if current.hung_up_at is None else current.hung_up_at
        duties = current.duties.without("hang_up").plus(close_room=now)
        return self._update(current, hung_up_at=first, end_reason=current.end_reason or reason, duties=duties)

    async def start(self, session: Session, now: int, hang_up_at: int | None) -> Session | Tombstone | None:
        await _request()
        current = self.stored.get(session.session_id)
        if current is None:
            return self.tombstones.get(session.session_id)
        if not current.is_ongoing or current.started_at is not None:
            return current
        duties = current.duties if hang_up_at is None else current.duties.plus(hang_up=hang_up_at)
        return self._update(current, started_at=now, **_owing(current, duties, event_of_first_sign(None, now)))

    async def count_renewal(self, session_id: SessionId) -> Session | None:
        await _request()
        session = self._active(session_id)
        if session is None or not session.is_ongoing:
            return None
        if session.renewals >= MAX_RENEWALS:
            raise RenewalLimitReached
        return self._update(session, renewals=session.renewals + 1)

    async def renew(self, session_id: SessionId, expires_at: int) -> Session | None:
        await _request()
        session = self._active(session_id)
        if session is None or not session.is_ongoing:
            return None
        return self._update(session, expires_at=max(session.expires_at, expires_at))

    async def report_usage(self, session: Session, report: TokenUsage) -> TokenUsage | None:
        await _request()
        current = self.stored.get(session.session_id)
        if current is None:
            return None
        usage = current.usage.with_report(report) if current.usage else report
        if usage is not current.usage:
            self._update(current, usage=usage)
        return usage

    async def set_duties(self, session_id: SessionId, before: Duties, after: Duties) -> Session | Tombstone | None:
        await _request()
        if session_id in self.tombstones:
            if self.tombstones[session_id].duties == before:
                self.tombstones[session_id] = self.tombstones[session_id]._replace(duties=after)
            return self.tombstones[session_id]
        current = self.stored.get(session_id)
        if current is None or current.duties != before:
            return current
        return self._update(current, duties=after)

    async def save_extraction(
        self, before: Session, results: JsonValue, extraction: Extraction, duties: Callable[[Duties], Duties]
    ) -> Session:
        await _request()
        session = self.stored.get(before.session_id)
        if session is None:
            raise SessionNotFound
        if (session.transcript_id, session.extraction) != (before.transcript_id, before.extraction):
            return session
        event = event_of_extraction(before.extraction, extraction)
        owing = _owing(session, duties(session.duties), event)
        return self._update(session, results=results, extraction=extraction, **owing)

    async def clear_owed_events(self, session: Session, dispatched: Collection[EventId]) -> None:
        await _request()
        current = self.stored.get(session.session_id)
        if current is None:
            return
        left = tuple(event for event in current.owed_events if event.event_id not in dispatched)
        duties = current.duties if left else current.duties.without("send_events")
        self._update(current, owed_events=left, duties=duties)

    async def due(self, now: int) -> AsyncIterator[list[DueSession]]:
        rows: list[Session | Tombstone] = [*self.stored.values(), *self.tombstones.values()]
        times = {row.session_id: row.duties.due_at for row in rows} | self.unreadable
        due = sorted((at, session_id) for session_id, at in times.items() if at is not None and at <= now)
        for start in range(0, max(len(due), 1), FAKE_PAGE):
            await _request()
            yield [DueSession(session_id, at) for at, session_id in due[start : start + FAKE_PAGE]]

    async def duties(self, session_id: SessionId) -> Duties | None:
        await _request()
        if session_id in self.unreadable:
            raise UnreadableRow
        row = self.stored.get(session_id) or self.tombstones.get(session_id)
        return row.duties if row else None

    async def put_off(self, due: DueSession, until: int | None) -> bool:
        await _request()
        if until is None:
            del self.unreadable[due.session_id]
            return True
        if self.is_put_off_too_often:
            return False
        self.unreadable[due.session_id] = until
        return True

    async def delete(self, tombstone: Tombstone, now: int) -> None:
        await _request()
        if self._active(tombstone.session_id):
            raise SessionActive
        if self.stored.pop(tombstone.session_id, None):
            self.tombstones[tombstone.session_id] = tombstone

    async def forget(self, tombstone: Tombstone) -> None:
        await _request()
        if self.tombstones.get(tombstone.session_id) == tombstone:
            del self.tombstones[tombstone.session_id]

    async def page(self, workspace: WorkspaceId, query: ListSessionsQuery) -> Page[Session]:
        await _request()
        sessions = [
            session
            for _, session in sorted(self.stored.items(), reverse=True)
            if session.workspace == workspace
            and query.status in (None, session.status)
            and query.agent_id in (None, session.agent_id)
            and query.participant in (None, session.participant.identity)
            and (query.created_after or 0) <= session.created_at < (query.created_before or math.inf)
        ]
        return Page[Session](data=sessions[: query.limit])

    async def merge_room_event(self, event: RoomEvent) -> Session | Tombstone | None:
        await _request()
        self.room_events.append(event)
        session = self.stored.get(event.session_id)
        if session is None:
            return self.tombstones.get(event.session_id)
        if event.recordings:
            return self._update(session, recordings=tuple(event.recordings_after(session.recordings)))
        if event.joined_at is None:
            return session
        joined = min(event.joined_at, session.livekit.first_joined_at or event.joined_at)
        return self._update(session, livekit=session.livekit.model_copy(update={"first_joined_at": joined}))

    def _active(self, session_id: SessionId) -> Session | None:
        session = self.stored.get(session_id)
        return session if session is not None and session.status == "active" else None

    def _update(self, session: Session, **changes: Any) -> Session:
        self.writes += 1
        self.stored[session.session_id] = replace(session, **changes)
        return self.stored[session.session_id]


def _owing(session: Session, duties: Duties, event: OwedEvent | None) -> dict[str, Any]:
    """Return the changed attributes of a session that owes an event."""
    if event is None:
        return {"duties": duties}
    return {"duties": event.duties_after(duties), "owed_events": (*session.owed_events, event)}


def _first_sign(session: Session, now: int) -> dict[str, Any]:
    """Return the changed attributes of a session after a sign of life."""
    event = event_of_first_sign(session.started_at, now)
    return {"started_at": now, **_owing(session, session.duties, event)} if event else {}


class FakeCheckpoints:
    """Turns saved during the call. Their number is in the session."""

    def __init__(self, sessions: FakeSessions) -> None:
        self.stored: dict[SessionId, list[TranscriptTurn]] = {}
        self._sessions = sessions

    async def append(self, session: Session, turns: Sequence[TranscriptTurn], size: int, now: int) -> Session | None:
        await _request()
        current = self._sessions.stored.get(session.session_id)
        if current is None or current.status != "active" or current.checkpoint_turns != session.checkpoint_turns:
            return None
        self.stored[session.session_id] = [*self.stored.get(session.session_id, []), *turns]
        grown = replace(
            session,
            checkpoint_turns=session.checkpoint_turns + len(turns),
            checkpoint_bytes=session.checkpoint_bytes + size,
        )
        self._sessions.stored[session.session_id] = replace(
            current,
            checkpoint_turns=grown.checkpoint_turns,
            checkpoint_bytes=grown.checkpoint_bytes,
            **_first_sign(current, now),
        )
        return grown

    async def read(self, session: Session) -> list[TranscriptTurn]:
        await _request()
        return self.stored.get(session.session_id, [])[: session.checkpoint_turns]

    async def delete(self, session_id: SessionId) -> None:
        await _request()
        self.stored.pop(session_id, None)


class FakeToolCalls:
    """Tool calls, with the runs that have not ended. Their number is in the session."""

    def __init__(self, sessions: FakeSessions | None = None) -> None:
        self.stored: dict[SessionId, list[ToolCall]] = {}
        self.runs: dict[tuple[SessionId, str], Run] = {}
        self._sessions = sessions or FakeSessions()

    async def record(self, session: Session, call: ToolCall, size: int, run: Run | None = None) -> Session | None:
        await _request()
        now = self._sessions.stored.get(session.session_id)
        known = self.stored.get(session.session_id, [])
        if now is None or now.status != "active" or now.tool_calls != session.tool_calls:
            return None
        if any(each.call_id == call.call_id for each in known):
            return None
        self.stored[session.session_id] = [*known, call]
        if run is not None:
            self.runs[session.session_id, call.call_id] = run
        number, total = session.tool_calls + 1, session.tool_call_bytes + size
        self._sessions.stored[session.session_id] = replace(
            now, tool_calls=number, tool_call_bytes=total, **_first_sign(now, call.called_at)
        )
        return replace(session, tool_calls=number, tool_call_bytes=total)

    async def run_again(self, session_id: SessionId, call_id: str, before: Run, ends_at: int) -> Run | None:
        await _request()
        if self.runs.get((session_id, call_id)) != before:
            return None
        self.runs[session_id, call_id] = run = before._replace(number=before.number + 1, ends_at=ends_at)
        return run

    async def finish(self, session_id: SessionId, call: ToolCall, run: Run, size: int, limit: int) -> FinishedRun:
        await _request()
        session = self._sessions.stored.get(session_id)
        if session is None:
            return "deleted"
        if session.tool_call_bytes + size > limit:
            return "full"
        if self.runs.get((session_id, call.call_id)) != run:
            return "superseded"
        del self.runs[session_id, call.call_id]
        calls = self.stored[session_id]
        self.stored[session_id] = [call if each.call_id == call.call_id else each for each in calls]
        self._sessions.stored[session_id] = replace(session, tool_call_bytes=session.tool_call_bytes + size)
        return "recorded"

    async def find(self, session_id: SessionId, call_id: str) -> StoredToolCall | None:
        await _request()
        found = [each for each in self.stored.get(session_id, []) if each.call_id == call_id]
        return StoredToolCall(found[0], self.runs.get((session_id, call_id))) if found else None

    async def read(self, session: Session) -> list[ToolCall]:
        if not session.tool_calls:
            return []
        await _request()
        return self.stored[session.session_id][: session.tool_calls]


class FakeSessionQueue:
    """Queued sessions in order, the pauses before their delivery, and the delays of received messages."""

    def __init__(self) -> None:
        self.session_ids: list[SessionId] = []
        self.pauses: list[int] = []
        self.delays: list[tuple[str, int]] = []

    async def delay(self, receipt_handle: str, seconds: int) -> None:
        await _request()
        self.delays.append((receipt_handle, seconds))

    async def put(self, session_id: SessionId, delay_seconds: int = 0) -> None:
        await _request()
        self.session_ids.append(session_id)
        self.pauses.append(delay_seconds)


class FakeTranscripts:
    """Transcripts, and the keys of those that expire."""

    def __init__(self) -> None:
        self.stored: dict[tuple[SessionId, TranscriptId], list[TranscriptTurn]] = {}
        self.expiring: set[tuple[SessionId, TranscriptId]] = set()

    async def put(self, session_id: SessionId, transcript_id: TranscriptId, turns: Sequence[TranscriptTurn]) -> None:
        await _request()
        self.stored[session_id, transcript_id] = list(turns)

    async def get(self, session_id: SessionId, transcript_id: TranscriptId) -> list[TranscriptTurn] | None:
        await _request()
        return self.stored.get((session_id, transcript_id))

    async def expire(self, session_id: SessionId, transcript_id: TranscriptId, turns: Sequence[TranscriptTurn]) -> None:
        await _request()
        assert turns == self.stored.get((session_id, transcript_id), turns)
        self.expiring.add((session_id, transcript_id))

    async def delete(self, session_id: SessionId) -> None:
        await _request()
        self.stored = {key: turns for key, turns in self.stored.items() if key[0] != session_id}


class FakeRooms:
    """LiveKit rooms that were opened and closed, and the tokens that were signed."""

    def __init__(self) -> None:
        self.opened: list[SessionId] = []
        self.closed: list[SessionId] = []
        self.tokens: list[tuple[Participant, tuple[Medium, ...], int]] = []

    async def open(self, session: Session) -> CreatedRoom:
        await _request()
        self.opened.append(session.session_id)
        return CreatedRoom("RM_first", started_at=session.created_at)

    async def close(self, session_id: SessionId) -> None:
        await _request()
        self.closed.append(session_id)

    def issue_token(self, session: Session, participant: Participant, media: Sequence[Medium]) -> LiveKitConnection:
        self.tokens.append((participant, tuple(media), session.expires_at))
        token = f"livekit-token-for-{participant.identity}"
        return LiveKitConnection(url="wss://livekit.test", token=token, room=session.session_id)


class FakeLiveTokens:
    """Gemini Live tokens, and the requests for them."""

    def __init__(self) -> None:
        self.requests: list[LiveTokenRequest] = []

    async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
        await _request()
        self.requests.append(request)
        return GeminiLiveConnection(
            url="wss://gemini.test",
            token="auth_tokens/fake",
            model="gemini-live",
            setup={"setup": {"model": "models/gemini-live", "sessionResumption": {}}},
            turn_ends_at="turnComplete",
            tools=[],
        )


@dataclass(frozen=True)
class TimedModelRequest:
    """A request to the extraction model, with its time limit."""

    instruction: str
    messages: tuple[str, ...]
    schema: dict[str, JsonValue]
    seconds: float

    @property
    def text(self) -> str:
        """The first message: the transcript."""
        return self.messages[0]


class FakeExtractionModel:
    """Returns its answers in order, the last one repeatedly; raises those that are exceptions."""

    name = "fake-model"

    def __init__(self, *answers: str | ModelResponse | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[TimedModelRequest] = []

    async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
        await _request()
        self.requests.append(TimedModelRequest(request.instruction, request.messages, request.schema, seconds))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return ModelResponse(answer, "fake-model-001") if isinstance(answer, str) else answer


class FakeRateLimiter:
    """Counts requests per owner up to a limit."""

    def __init__(self, limit: int = 100) -> None:
        self.acquired: list[str] = []
        self._limit = limit

    async def acquire(self, owner: str) -> None:
        await _request()
        if self.acquired.count(owner) == self._limit:
            raise RateLimited("requests", self._limit, 41.5)
        self.acquired.append(owner)


# ruff: noqa: ARG002 (failing fakes ignore their arguments)

# ---- Fakes that fail ------------------------------------------------------------------------------------


class FailingRooms(FakeRooms):
    """LiveKit fails every request with the same error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def open(self, session: Session) -> CreatedRoom:
        await super().open(session)
        raise self._error

    async def close(self, session_id: SessionId) -> None:
        await super().close(session_id)
        raise self._error


class HangingRooms(FakeRooms):
    """LiveKit does not respond to the request for a room."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = False

    async def open(self, session: Session) -> CreatedRoom:
        await super().open(session)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError


class FailingLiveTokens(FakeLiveTokens):
    """Gemini fails every request with the same error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
        await super().issue(request)
        raise self._error


class AgentsThatNeverSave(FakeAgents):
    """A concurrent request always saves first."""

    async def save(self, workspace: WorkspaceId, agent: Agent, request_hash: str | None = None) -> bool:
        await _request()
        return False


class SessionsThatCannotGet(FakeSessions):
    """Reads fail at once, before any concurrent request."""

    async def get(self, session_id: SessionId) -> Session | None:
        raise StorageError


class SessionsThatCannotAdd(FakeSessions):
    """Storing a new session fails."""

    async def add(self, session: Session) -> bool:
        await _request()
        raise StorageError


class SessionsThatCannotComplete(FakeSessions):
    """Completing a session fails."""

    async def complete(self, session: Session, completion: SessionCompletion) -> Session | None:
        await _request()
        raise StorageError


class SessionsThatCannotSaveExtraction(FakeSessions):
    """Storing results fails."""

    async def save_extraction(
        self, before: Session, results: JsonValue, extraction: Extraction, duties: Callable[[Duties], Duties]
    ) -> Session:
        await _request()
        raise StorageError


class SessionsThatCannotSetDuties(FakeSessions):
    """Changing duties alone fails."""

    async def set_duties(self, session_id: SessionId, before: Duties, after: Duties) -> Session | Tombstone | None:
        await _request()
        raise StorageError


class CheckpointsThatCannotRead(FakeCheckpoints):
    """Reading saved turns fails."""

    async def read(self, session: Session) -> list[TranscriptTurn]:
        await _request()
        raise StorageError


class QueueThatCannotPut(FakeSessionQueue):
    """The queue cannot be reached."""

    async def put(self, session_id: SessionId, delay_seconds: int = 0) -> None:
        await _request()
        raise StorageError


class TranscriptsThatCannotPut(FakeTranscripts):
    """Storing a transcript fails after a part was written."""

    async def put(self, session_id: SessionId, transcript_id: TranscriptId, turns: Sequence[TranscriptTurn]) -> None:
        await super().put(session_id, transcript_id, turns)
        raise StorageError


class TranscriptsThatCannotExpire(FakeTranscripts):
    """Setting the expiry of a transcript fails."""

    async def expire(self, session_id: SessionId, transcript_id: TranscriptId, turns: Sequence[TranscriptTurn]) -> None:
        await _request()
        raise StorageError


class RateLimiterThatFails(FakeRateLimiter):
    """The counter cannot be reached."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def acquire(self, owner: str) -> None:
        raise self._error


class TranscriptsThatCannotDelete(FakeTranscripts):
    """Deleting a transcript fails."""

    async def delete(self, session_id: SessionId) -> None:
        await _request()
        raise StorageError


class SlowFailingModel(FakeExtractionModel):
    """Fails after some time."""

    def __init__(self, clock: FakeClock, seconds: float, error: VoiceError) -> None:
        super().__init__(error)
        self._clock = clock
        self._seconds = seconds

    async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
        self._clock.now += self._seconds
        return await super().generate(request, seconds)


class FakeWebhookDeliveries:
    """Deliveries to webhook endpoints."""

    def __init__(self, *deliveries: Delivery) -> None:
        self.stored = {delivery.delivery_id: delivery for delivery in deliveries}

    async def add(self, delivery: Delivery) -> bool:
        await _request()
        if delivery.delivery_id in self.stored:
            return False
        self.stored[delivery.delivery_id] = delivery
        return True

    async def put(self, delivery: Delivery) -> None:
        await _request()
        self.stored[delivery.delivery_id] = delivery

    async def find(self, endpoint_id: EndpointId, delivery_id: DeliveryId) -> Delivery | None:
        await _request()
        found = self.stored.get(delivery_id)
        return found if found is not None and found.endpoint_id == endpoint_id else None

    async def page(self, endpoint_id: EndpointId, query: ListWebhookDeliveriesQuery) -> Page[Delivery]:
        await _request()
        found = [
            self.stored[each]
            for each in sorted(self.stored, reverse=True)
            if self.stored[each].endpoint_id == endpoint_id and query.session_id in (None, self.stored[each].session_id)
        ]
        return Page[Delivery].model_construct(data=found[: query.limit])

    async def due(self, now: int) -> AsyncIterator[list[DueDelivery]]:
        await _request()
        due = [
            DueDelivery(each.endpoint_id, each.delivery_id, each.due_at)
            for each in self.stored.values()
            if each.due_at is not None and each.due_at <= now
        ]
        due.sort(key=lambda each: each.due_at)
        for start in range(0, len(due), FAKE_PAGE):
            yield due[start : start + FAKE_PAGE]

    async def put_off(self, due: DueDelivery, until: int) -> Delivery | None:
        await _request()
        current = self.stored.get(due.delivery_id)
        if current is None or current.due_at != due.due_at:
            return None
        return self._save(replace(current, due_at=until))

    async def claim(self, delivery: Delivery, now: int, due_at: int) -> Delivery | None:
        return await self._change(delivery, tries=delivery.tries + 1, tried_at=now, due_at=due_at)

    async def record(self, delivery: Delivery, outcome: Outcome) -> Delivery | None:
        due = {} if outcome.status == "pending" else {"due_at": None}
        return await self._change(delivery, **outcome._asdict(), **due)

    async def cancel(self, delivery: Delivery) -> Delivery | None:
        return await self._change(delivery, status="cancelled", due_at=None)

    async def redeliver(self, delivery: Delivery, now: int) -> Delivery | None:
        again = {"redeliveries": delivery.redeliveries + 1, "redelivered_at": now}
        return await self._change(delivery, status="pending", tries=0, due_at=now, **again)

    async def _change(self, delivery: Delivery, **changes: Any) -> Delivery | None:
        await _request()
        current = self.stored.get(delivery.delivery_id)
        if current is None or (current.status, current.next_try) != (delivery.status, delivery.next_try):
            return None
        return self._save(replace(current, **changes))

    def _save(self, delivery: Delivery) -> Delivery:
        self.stored[delivery.delivery_id] = delivery
        return delivery


class FakeDeliveryQueue:
    """Queue of deliveries."""

    def __init__(self) -> None:
        self.messages: list[Delivery] = []

    async def put(self, delivery: Delivery) -> None:
        await _request()
        self.messages.append(delivery)

    async def delay(self, receipt_handle: str, seconds: int) -> None:
        del receipt_handle, seconds
        await _request()


class BrokenDeliveryQueue(FakeDeliveryQueue):
    """A queue that refuses messages."""

    async def put(self, delivery: Delivery) -> None:
        del delivery
        await _request()
        raise StorageError


class FakeWebhookSender:
    """Sender of webhooks that records requests, and returns the prepared responses in order, then repeats the last."""

    def __init__(self, *answers: Sent) -> None:
        self.sent: list[SignedRequest] = []
        self._answers = list(answers) or [Sent(204, 12, None)]

    async def send(self, request: SignedRequest) -> Sent:
        await _request()
        self.sent.append(request)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


class FakeToolSender:
    """Sender of tool calls that records requests and time limits, and returns or raises its answers like a sender.

    With `until`, each request waits for the event first.
    """

    def __init__(self, *answers: Sent | Exception, until: asyncio.Event | None = None) -> None:
        self.sent: list[SignedRequest] = []
        self.seconds: list[float] = []
        self.begun = asyncio.Event()
        self._answers = list(answers) or [Sent(200, 12, None, b'{"free": true}')]
        self._until = until

    async def send(self, request: SignedRequest, seconds: float) -> Sent:
        await _request()
        self.sent.append(request)
        self.seconds.append(seconds)
        self.begun.set()
        if self._until is not None:
            await self._until.wait()
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer
