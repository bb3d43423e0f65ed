"""Deliveries to many endpoints in virtual time: the real use cases, as many workers as the template allows, and fakes.

sessions ──► DispatchEvents ──► FIFO queue, a group for each endpoint ──► MaximumConcurrency of DeliverEvent
                                         ▲ every minute
                                SweepDeliveries ◄── deliveries that are due
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import pytest

from local import template
from pi_voice.domain.duties import Duties
from pi_voice.domain.ids import AgentId, DeliveryId, EndpointId, EventId, SessionId, WorkspaceId, uuid7
from pi_voice.domain.sessions import LiveKitRoom, Participant, Session
from pi_voice.domain.webhook_deliveries import TRY_SECONDS, Delivery, Try
from pi_voice.domain.webhook_endpoints import SecretVersion, WebhookEndpoint
from pi_voice.domain.webhook_events import OwedEvent
from pi_voice.domain.webhook_secrets import Masters, WebhookSecrets
from pi_voice.ports import Sent, SignedRequest
from pi_voice.use_cases.call_content import CallContent
from pi_voice.use_cases.deliver_event import DeliverEvent
from pi_voice.use_cases.dispatch_events import DispatchEvents
from pi_voice.use_cases.event_bodies import EventBodies
from pi_voice.use_cases.sweep_deliveries import SweepDeliveries
from tests.support.fakes import (
    FakeSessions,
    FakeToolCalls,
    FakeTranscripts,
    FakeWebhookDeliveries,
    FakeWebhookEndpoints,
)
from tests.support.template import ROOT

START: Final = 1_800_000_000
WORK_SECONDS: Final = 0.15
"""Time of a worker for a message besides the request: its start, and its requests to DynamoDB."""

DEDUPLICATION_SECONDS: Final = 300
"""Time in which SQS drops a message with the id of an earlier one."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What template.yaml says of deliveries."""

    workers: int
    """Messages that are processed at once, one for each group."""

    dispatchers: int
    retention_seconds: int
    """Age at which the queue deletes a message."""

    sweep_seconds: int


def bounds_of_template() -> Bounds:
    """Read template.yaml."""
    read = template.load(ROOT / "template.yaml", {"LIVEKIT_URL": "wss://livekit.example"})
    functions = {function.logical_id: function for function in read.functions}
    [deliver], [dispatch] = functions["DeliverEvent"].queues, functions["DispatchEvents"].queues
    [queue] = [queue for queue in read.queues if queue.name == deliver.queue]
    [schedule] = functions["SweepDeliveries"].schedules
    assert deliver.batch_size == 1
    assert deliver.max_concurrency is not None
    assert dispatch.max_concurrency is not None
    return Bounds(
        deliver.max_concurrency,
        dispatch.max_concurrency,
        int(queue.attributes["MessageRetentionPeriod"]),
        schedule.minutes * 60,
    )


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the queue."""

    endpoint_id: EndpointId
    delivery_id: DeliveryId
    due: Try
    sent_at: float


Choose = Callable[[dict[EndpointId, Message]], EndpointId]
"""Chooses a group of those that have a message and are not locked. SQS does not say which one it takes."""


Order = Literal["oldest first", "hanging first"]
"""The group of the oldest message, or a group that hangs, which is the worst for the others."""


class FifoQueue:
    """The queue of deliveries: a group is locked while one of its messages is processed."""

    def __init__(self, retention_seconds: float, choose: Choose) -> None:
        self._retention = retention_seconds
        self._choose = choose
        self._groups: dict[EndpointId, deque[Message]] = {}
        self._locked: set[EndpointId] = set()
        self._sent: dict[tuple[DeliveryId, Try], float] = {}
        self._changed = asyncio.Event()
        self.expired = 0

    async def put(self, delivery: Delivery) -> None:
        """Enqueue the next try of a delivery, unless it was within five minutes."""
        await asyncio.sleep(0)
        now = _now()
        key = delivery.delivery_id, delivery.next_try
        if now - self._sent.get(key, -math.inf) < DEDUPLICATION_SECONDS:
            return
        self._sent[key] = now
        message = Message(delivery.endpoint_id, delivery.delivery_id, delivery.next_try, now)
        self._groups.setdefault(delivery.endpoint_id, deque()).append(message)
        self._changed.set()

    async def delay(self, receipt_handle: str, seconds: int) -> None:
        """Fail, because no message fails here."""
        pytest.fail(f"{receipt_handle} failed, and is delayed by {seconds} s")

    async def receive(self) -> Message:
        """Wait for a message, and lock its group."""
        while not (heads := self._heads()):
            self._changed.clear()
            await self._changed.wait()
        chosen = self._choose(heads)
        self._locked.add(chosen)
        return self._groups[chosen].popleft()

    def done(self, message: Message) -> None:
        """Unlock the group of a message."""
        self._locked.remove(message.endpoint_id)
        self._changed.set()

    def _heads(self) -> dict[EndpointId, Message]:
        ends = _now() - self._retention
        heads = {}
        for endpoint_id, messages in self._groups.items():
            while messages and messages[0].sent_at <= ends:
                messages.popleft()
                self.expired += 1
            if messages and endpoint_id not in self._locked:
                heads[endpoint_id] = messages[0]
        return heads


@dataclass
class Receivers:
    """The sender: requests that time out, and requests that take a moment. It records each."""

    quick_seconds: float
    hanging: set[str] = field(default_factory=set)
    """URLs of the receivers that hang."""
    first_tried: dict[str, float] = field(default_factory=dict)
    """When each event was sent for the first time, by its id."""
    accepted: set[str] = field(default_factory=set)
    """Ids of the events that a receiver has accepted."""
    most_at_once: int = 0
    """Maximum number of requests to one receiver at once."""
    timed_out: list[float] = field(default_factory=list)
    """When each request began that timed out."""
    _busy: dict[str, int] = field(default_factory=dict)

    async def send(self, request: SignedRequest) -> Sent:
        """Send a request within the sender's time limit."""
        self.first_tried.setdefault(request.event_id, _now())
        self._busy[request.url] = self._busy.get(request.url, 0) + 1
        self.most_at_once = max(self.most_at_once, self._busy[request.url])
        try:
            if request.url in self.hanging:
                self.timed_out.append(_now())
                await asyncio.sleep(TRY_SECONDS)
                return Sent(None, round(TRY_SECONDS * 1000), "timeout")
            await asyncio.sleep(self.quick_seconds)
        finally:
            self._busy[request.url] -= 1
        self.accepted.add(request.event_id)
        return Sent(204, round(self.quick_seconds * 1000), None)


class Simulation:
    """A deployment with endpoints that hang and endpoints that work; each has a workspace of its own."""

    def __init__(self, hanging: int, working: int, order: Order = "oldest first", quick_seconds: float = 0.2) -> None:
        self.bounds = bounds_of_template()
        self.hanging = [_endpoint(f"hangs-{number}") for number in range(hanging)]
        self.working = [_endpoint(f"works-{number}") for number in range(working)]
        self.sessions = FakeSessions()
        self.deliveries = FakeWebhookDeliveries()
        self.receivers = Receivers(quick_seconds, {endpoint.url for endpoint in self.hanging})
        last = {each.endpoint_id for each in self.working} if order == "hanging first" else set()

        def choose(heads: dict[EndpointId, Message]) -> EndpointId:
            return min(heads, key=lambda each: (each in last, heads[each].sent_at))

        self.queue = FifoQueue(self.bounds.retention_seconds, choose)
        self.happened: dict[EventId, float] = {}
        """When each event happened."""
        self.endpoints = endpoints = FakeWebhookEndpoints(*self.hanging, *self.working)
        secrets = WebhookSecrets(lambda: Masters("a1", {"a1": "m" * 32}))
        bodies = EventBodies(self.sessions, CallContent(FakeTranscripts(), FakeToolCalls()))
        self._dispatch = DispatchEvents(self.sessions, endpoints, self.deliveries, self.queue, _clock)
        self._deliver = DeliverEvent(self.deliveries, endpoints, secrets, bodies, self.receivers, clock=_clock)
        self._sweep = SweepDeliveries(self.deliveries, endpoints, self.queue, _clock)
        self._dispatchers = asyncio.Semaphore(self.bounds.dispatchers)
        self._background: list[asyncio.Task[Any]] = []
        self._is_running = False

    async def run(self, seconds: float) -> None:
        """Let the deployment work for a time."""
        if not self._is_running:
            self._is_running = True
            for _ in range(self.bounds.workers):
                self._start(self._work())
            self._start(self._schedule())
        await asyncio.sleep(seconds)
        for task in self._background:
            assert not task.done() or task.exception() is None, task.exception()
        self._background = [task for task in self._background if not task.done()]

    async def stop(self) -> None:
        """Stop the deployment."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def happen(self, endpoint: WebhookEndpoint, count: int = 1) -> list[EventId]:
        """Let sessions of an endpoint's workspace end now, and return the ids of their events."""
        made = []
        for _ in range(count):
            event = OwedEvent.new("session.completed", int(_clock()))
            session = _ended(endpoint.workspace, event)
            self.sessions.stored[session.session_id] = session
            self.happened[event.event_id] = _now()
            self._start(self._dispatched(session.session_id))
            made.append(event.event_id)
        return made

    async def keep_happening(self, endpoints: Iterable[WebhookEndpoint], every: float, seconds: float) -> list[EventId]:
        """Let one session of each endpoint end now and then, and return the ids of their events."""
        made = []
        each = list(endpoints)
        for number in range(round(seconds / every) * len(each)):
            made += self.happen(each[number % len(each)])
            await self.run(every / len(each))
        return made

    @property
    def pending(self) -> int:
        """Number of deliveries that have not ended."""
        return sum(each.status == "pending" for each in self.deliveries.stored.values())

    def waits(self, event_ids: Iterable[EventId]) -> list[float]:
        """Return the seconds from each event to its first try in order; infinite for one without."""
        tried = self.receivers.first_tried
        return sorted(tried.get(each, math.inf) - self.happened[each] for each in event_ids)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._background.append(asyncio.get_running_loop().create_task(work))

    async def _dispatched(self, session_id: SessionId) -> None:
        async with self._dispatchers:
            await asyncio.sleep(WORK_SECONDS)
            await self._dispatch(session_id, 60.0)

    async def _work(self) -> None:
        while True:
            message = await self.queue.receive()
            await asyncio.sleep(WORK_SECONDS)
            await self._deliver(message.endpoint_id, message.delivery_id, message.due)
            self.queue.done(message)

    async def _schedule(self) -> None:
        while True:
            await asyncio.sleep(self.bounds.sweep_seconds)
            await self._sweep()


def percentile(values: list[float], part: float) -> float:
    """Return the value that a part of sorted values does not exceed."""
    return values[math.ceil(len(values) * part) - 1]


def _now() -> float:
    return asyncio.get_running_loop().time()


def _clock() -> float:
    return START + _now()


def _endpoint(name: str) -> WebhookEndpoint:
    return WebhookEndpoint(
        endpoint_id=EndpointId(uuid7()),
        workspace=WorkspaceId(name),
        url=f"https://{name}.example.com/",
        secret=SecretVersion("a1", 1),
        created_at=START,
        updated_at=START,
        events=("session.completed",),
    )


def _ended(workspace: WorkspaceId, event: OwedEvent) -> Session:
    session_id = SessionId(uuid7())
    session = Session(
        session_id=session_id,
        workspace=workspace,
        agent_id=AgentId(uuid7()),
        agent_version=1,
        status="completed",
        participant=Participant(identity="caller-1"),
        max_duration_seconds=None,
        ttl_seconds=600,
        created_at=event.at - 60,
        expires_at=event.at + 540,
        completed_at=event.at,
        livekit=LiveKitRoom(room_name=session_id, room_sid="RM_1", started_at=event.at - 60),
    )
    return replace(session, owed_events=(event,), duties=event.duties_after(Duties()))
