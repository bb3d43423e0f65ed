"""Receivers that fail for a day or more, with a clock that a test moves from one try to the next.

Worker and job of deliveries run on the real store, with the real sender. The queue is in memory.
"""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count, pairwise
from typing import NamedTuple

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from pi_voice.adapters.webhook_sender import WebhookSender
from pi_voice.domain.ids import EndpointId, EventId, SessionId, uuid7
from pi_voice.domain.webhook_deliveries import MAX_TRIES, PAUSES, Delivery
from pi_voice.domain.webhook_delivery_api import ListWebhookDeliveriesQuery
from pi_voice.domain.webhook_endpoints import SecretVersion, WebhookEndpoint
from pi_voice.domain.webhook_secrets import Masters, WebhookSecrets
from pi_voice.domain.webhook_urls import UrlPolicy
from pi_voice.use_cases.call_content import CallContent
from pi_voice.use_cases.deliver_event import FAILING_SECONDS, DeliverEvent
from pi_voice.use_cases.event_bodies import EventBodies
from pi_voice.use_cases.sweep_deliveries import SweepDeliveries
from tests.integration.provider import Answer, Provider, Received, hangs, hangs_up, redirects, resets, says
from tests.integration.samples import ACME, NOW, a_delivery, a_session, a_webhook_endpoint
from tests.integration.store import Store
from tests.support.fakes import FakeClock, FakeDeliveryQueue

HOUR, DAY = 3_600, 86_400
EVERY_MINUTE = 60
SECRETS = WebhookSecrets(lambda: Masters("a1", {"a1": "m" * 32}))


class Logged(NamedTuple):
    """What the log says after a try."""

    at: int
    tries: int
    status: str
    http_status: int | None
    error: str | None


class Deployment:
    """Worker and job of deliveries, and an endpoint."""

    def __init__(self, store: Store, runner: asyncio.Runner, url: str) -> None:
        self._run = runner.run
        self._deliveries, self._endpoints = store.webhook_deliveries, store.webhook_endpoints
        self._sessions = store.sessions
        self.clock = FakeClock(NOW)
        self._queue = FakeDeliveryQueue()
        sender = WebhookSender(UrlPolicy(allows_loopback=True), clock=self.clock)
        bodies = EventBodies(store.sessions, CallContent(store.transcripts, store.tool_calls))
        self._deliver = DeliverEvent(self._deliveries, self._endpoints, SECRETS, bodies, sender, clock=self.clock)
        self._sweep = SweepDeliveries(self._deliveries, self._endpoints, self._queue, self.clock)
        self._endpoint = a_webhook_endpoint(
            endpoint_id=EndpointId(uuid7()),
            url=url,
            secret=SecretVersion("a1", 1),
            previous_secret=None,
            previous_secret_ends_at=None,
            include=(),
            agent_id=None,
            active=True,
            failing_since=None,
            timeouts=0,
            resting_until=None,
            disabled_at=None,
            disabled_reason=None,
        )
        self._run(self._endpoints.add(self._endpoint))

    @property
    def endpoint(self) -> WebhookEndpoint:
        found = self._run(self._endpoints.find(ACME, self._endpoint.endpoint_id))
        assert found is not None
        return found

    @property
    def log(self) -> list[Delivery]:
        """All deliveries, as the API lists them."""
        query = ListWebhookDeliveriesQuery(limit=100)
        return list(self._run(self._deliveries.page(self._endpoint.endpoint_id, query)).data)

    def logged(self, delivery_id: str) -> Delivery:
        [found] = [each for each in self.log if each.delivery_id == delivery_id]
        return found

    def happen(self) -> str:
        """Store the delivery of an event of a new session, queue it, and return its id."""
        session_id, now = SessionId(uuid7()), int(self.clock())
        assert self._run(self._sessions.add(a_session(session_id=session_id, workspace=ACME)))
        delivery = a_delivery(
            event_id=EventId(uuid7()),
            endpoint_id=self._endpoint.endpoint_id,
            session_id=session_id,
            event_at=now,
            created_at=now,
            due_at=now,
        )
        assert self._run(self._deliveries.add(delivery))
        self._run(self._queue.put(delivery))
        return delivery.delivery_id

    def redeliver(self, delivery_id: str) -> None:
        """Deliver again what has ended."""
        assert self._run(self._deliveries.redeliver(self.logged(delivery_id), int(self.clock()))) is not None

    def pass_time(self, seconds: int) -> dict[str, list[Logged]]:
        """Let time pass, from one run of the job to the next that finds something, and return what the log said."""
        ends_at, told = self.clock.now + seconds, dict[str, list[Logged]]()
        while True:
            self._work_off(told)
            due = [each.due_at for each in self.log if each.due_at is not None]
            wakes_at = max(min(due, default=ends_at), self.clock.now)
            if wakes_at >= ends_at:
                self.clock.now = ends_at
                return told
            self.clock.now = wakes_at + EVERY_MINUTE - (wakes_at - NOW) % EVERY_MINUTE
            self._run(self._sweep())

    def _work_off(self, told: dict[str, list[Logged]]) -> None:
        while self._queue.messages:
            message = self._queue.messages.pop(0)
            self._run(self._deliver(message.endpoint_id, message.delivery_id, message.next_try))
            now = self.logged(message.delivery_id)
            if (now.tries, now.status) == (message.tries, message.status):  # it was put off
                continue
            told.setdefault(message.delivery_id, []).append(
                Logged(int(self.clock()), now.tries, now.status, now.http_status, now.error)
            )

    def verify(self, received: Received) -> str:
        """Check the signature of a request, and return its event."""
        event_id, sent_at = received.headers["webhook-id"], int(received.headers["webhook-timestamp"])
        assert NOW <= sent_at <= self.clock()
        secret = SECRETS.reveal(self._endpoint.endpoint_id, self._endpoint.secret)
        expected = Webhook(secret).sign(event_id, datetime.fromtimestamp(sent_at, UTC), received.body.decode())
        assert received.headers["webhook-signature"] == expected
        assert json.loads(received.body)["type"] == "session.completed"
        return event_id


@pytest.fixture
def deployed(store: Store, runner: asyncio.Runner) -> Callable[[str], Deployment]:
    return lambda url: Deployment(store, runner, url)


async def speaks_garbage(request: web.Request) -> web.StreamResponse:
    """Write what is no HTTP, and close the connection."""
    assert request.transport is not None
    request.transport.write(b"\x00\xffSSH-2.0-OpenSSH\r\n\r\n")
    request.transport.close()
    return web.Response()


async def redirects_elsewhere(request: web.Request) -> web.StreamResponse:
    """Redirect to this receiver."""
    return await redirects(f"http://{request.host}")(request)


@pytest.mark.parametrize(
    ("answer", "http_status", "error"),
    [
        (says("no", 500), 500, "http_error"),
        (hangs_up, None, "connection_failed"),
        (resets, None, "connection_failed"),
        (redirects_elsewhere, 307, "redirected"),
        (speaks_garbage, None, "connection_failed"),
    ],
)
def test_a_receiver_that_fails_all_day_is_tried_eight_times_and_the_log_has_each_error(
    deployed: Callable[[str], Deployment],
    provider: Provider,
    answer: Answer,
    http_status: int | None,
    error: str,
) -> None:
    provider.answers(answer)
    deployment = deployed(provider.url)
    events = [deployment.happen() for _ in range(3)]

    told = deployment.pass_time(2 * DAY)

    assert told.keys() == set(events)
    for tries in told.values():
        assert [each.tries for each in tries] == list(range(1, MAX_TRIES + 1))
        assert {(each.http_status, each.error) for each in tries} == {(http_status, error)}
        assert [each.status for each in tries] == ["pending"] * (MAX_TRIES - 1) + ["failed"]
        pauses = [after.at - before.at for before, after in pairwise(tries)]
        for pause, longest in zip(pauses, PAUSES, strict=True):
            assert 0.8 * longest <= pause <= longest + EVERY_MINUTE
        assert 18 * HOUR < tries[-1].at - tries[0].at < DAY
    assert len(provider.received) == 3 * MAX_TRIES
    assert sorted(map(deployment.verify, provider.received)) == sorted(
        event.partition(".")[0] for event in events for _ in range(MAX_TRIES)
    )
    assert deployment.endpoint.failing_since == NOW
    assert deployment.endpoint.disabled_at is None


def test_a_receiver_that_hangs_all_day_is_tried_eight_times_for_each_event_with_rests_between(
    deployed: Callable[[str], Deployment], provider: Provider
) -> None:
    provider.answers(hangs)
    deployment = deployed(provider.url)
    events = [deployment.happen() for _ in range(3)]

    told = deployment.pass_time(2 * DAY)

    assert told.keys() == set(events)
    for tries in told.values():
        assert [each.tries for each in tries] == list(range(1, MAX_TRIES + 1))
        assert {(each.http_status, each.error) for each in tries} == {(None, "timeout")}
        assert [each.status for each in tries] == ["pending"] * (MAX_TRIES - 1) + ["failed"]
        pauses = [after.at - before.at for before, after in pairwise(tries)]
        assert [pause for pause, longest in zip(pauses, PAUSES, strict=True) if pause < 0.8 * longest] == []
        assert 18 * HOUR < tries[-1].at - NOW < DAY + HOUR
    assert len(provider.received) == 3 * MAX_TRIES
    tried_at = sorted(each.at for tries in told.values() for each in tries)
    rests = [after - before for before, after in pairwise(tried_at[1:])]
    assert min(rests) >= EVERY_MINUTE
    assert deployment.endpoint.failing_since == NOW
    assert deployment.endpoint.disabled_at is None


def test_what_a_receiver_missed_is_delivered_again_once_it_works(
    deployed: Callable[[str], Deployment], provider: Provider
) -> None:
    provider.answers(says("no", 500))
    deployment = deployed(provider.url)
    events = [deployment.happen() for _ in range(3)]
    deployment.pass_time(2 * DAY)
    assert {each.status for each in deployment.log} == {"failed"}
    provider.answers(says("", 204))
    provider.forget()

    for event in events:
        deployment.redeliver(event)
    deployment.pass_time(HOUR)

    assert sorted(map(deployment.verify, provider.received)) == sorted(event.partition(".")[0] for event in events)
    assert {(each.status, each.tries, each.error) for each in deployment.log} == {("succeeded", 1, None)}
    assert deployment.endpoint.failing_since is None


class Outage:
    """A port that refuses connections, until a server starts on it."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._run = runner.run
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._server: asyncio.Server | None = None
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/hook"

    def end(self) -> None:
        """Start the server."""
        self._server = self._run(asyncio.start_server(self._serve, sock=self._socket))

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._socket.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@pytest.fixture
def outage(runner: asyncio.Runner) -> Iterator[Outage]:
    outage = Outage(runner)
    yield outage
    outage.close()


def test_a_receiver_that_is_down_for_twenty_hours_then_gets_each_event(
    deployed: Callable[[str], Deployment], outage: Outage
) -> None:
    deployment = deployed(outage.url)
    told = dict[str, list[Logged]]()
    for _ in range(4):  # events before and during the outage
        deployment.happen()
        for event, tries in deployment.pass_time(5 * HOUR).items():
            told.setdefault(event, []).extend(tries)
    assert {each.status for each in deployment.log} == {"pending"}
    assert {(each.http_status, each.error) for tries in told.values() for each in tries} == {
        (None, "connection_failed")
    }
    outage.end()

    later = deployment.pass_time(DAY)

    assert {each.status for each in deployment.log} == {"succeeded"}
    assert later.keys() == told.keys()
    assert outage.requests == 4
    for event, [last] in later.items():
        assert (last.status, last.http_status, last.error) == ("succeeded", 204, None)
        assert last.tries == len(told[event]) + 1 <= MAX_TRIES
        assert [each.tries for each in told[event]] == list(range(1, last.tries))
    assert deployment.endpoint.failing_since is None


def test_a_receiver_that_responds_410_gets_nothing_more_until_its_owner_enables_it(
    deployed: Callable[[str], Deployment], provider: Provider
) -> None:
    provider.answers(says("no", 500), says("gone", 410), says("", 204))
    deployment = deployed(provider.url)
    first = deployment.happen()
    deployment.pass_time(30)  # its second try is due after that of the next event
    second = deployment.happen()

    told = deployment.pass_time(2 * DAY)

    assert (deployment.endpoint.disabled_reason, deployment.endpoint.disabled_at) == ("gone", NOW + 30)
    assert [(each.status, each.http_status) for each in told[second]] == [("failed", 410)]
    assert [(each.status, each.http_status, each.error) for each in told[first]] == [("cancelled", 500, "http_error")]
    assert len(provider.received) == 2


def test_a_receiver_that_fails_for_three_days_is_disabled_and_not_before(
    deployed: Callable[[str], Deployment], provider: Provider
) -> None:
    provider.answers(says("no", 503))
    deployment = deployed(provider.url)

    for hours in count(0, 12):
        deployment.happen()
        deployment.pass_time(12 * HOUR)
        if deployment.endpoint.disabled_at is not None:
            break
        assert hours * HOUR < FAILING_SECONDS
    sent = len(provider.received)
    later = deployment.happen()
    deployment.pass_time(2 * DAY)

    endpoint = deployment.endpoint
    assert endpoint.disabled_reason == "failing"
    assert endpoint.failing_since == NOW
    assert endpoint.disabled_at is not None
    assert NOW + FAILING_SECONDS <= endpoint.disabled_at < NOW + FAILING_SECONDS + 12 * HOUR
    assert deployment.logged(later).status == "cancelled"
    assert {each.status for each in deployment.log} == {"failed", "cancelled"}
    assert max(each.tries for each in deployment.log) <= MAX_TRIES
    assert len(provider.received) == sent == sum(each.tries for each in deployment.log)


def test_a_receiver_that_works_now_and_then_is_never_disabled(
    deployed: Callable[[str], Deployment], provider: Provider
) -> None:
    provider.answers(*[says("no", 503), says("no", 503), says("", 204)] * 100)
    deployment = deployed(provider.url)

    for _ in range(8):
        deployment.happen()
        deployment.pass_time(12 * HOUR)
    deployment.pass_time(DAY)

    assert deployment.endpoint.disabled_at is None
    assert {each.status for each in deployment.log} == {"succeeded"}
    assert len(deployment.log) == 8
