"""The routes of deliveries: test, list and redeliver."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain.errors import InvalidApiKey, WebhookDeliveryNotFound, WebhookEndpointNotFound
from pi_voice.domain.ids import DeliveryId, EndpointId, SessionId, is_uuid
from pi_voice.domain.webhook_deliveries import Delivery
from pi_voice.domain.webhook_delivery_api import ListWebhookDeliveriesQuery, WebhookDelivery
from pi_voice.use_cases import test_webhook_endpoint
from pi_voice.use_cases.list_webhook_deliveries import ListWebhookDeliveries
from pi_voice.use_cases.redeliver_webhook import RedeliverWebhook
from tests.support.fakes import (
    BrokenDeliveryQueue,
    FakeCaller,
    FakeClock,
    FakeDeliveryQueue,
    FakeWebhookDeliveries,
    FakeWebhookEndpoints,
    UnknownCaller,
)
from tests.unit.examples import DELIVERY_ID, ENDPOINT_ID, EVENT_ID, NOW, SESSION_ID, delivery, webhook_endpoint

ACME, GLOBEX = FakeCaller("acme"), FakeCaller("globex")
SUCCEEDED = delivery(
    status="succeeded", tries=2, due_at=None, tried_at=NOW - 1, http_status=204, milliseconds=12, redeliveries=1
)


class World:
    """The three routes with their stores and queue."""

    def __init__(self, *deliveries: Delivery, queue: FakeDeliveryQueue | None = None) -> None:
        endpoints = FakeWebhookEndpoints(webhook_endpoint())
        self.deliveries = FakeWebhookDeliveries(*deliveries)
        self.queue = queue or FakeDeliveryQueue()
        clock = FakeClock(NOW + 0.5)
        self.send_test = test_webhook_endpoint.TestWebhookEndpoint(endpoints, self.deliveries, self.queue, clock)
        self.list = ListWebhookDeliveries(endpoints, self.deliveries)
        self.redeliver = RedeliverWebhook(endpoints, self.deliveries, self.queue, clock)


# ---- Test -------------------------------------------------------------------------------------------


def test_a_test_is_a_pending_delivery_in_log_and_queue() -> None:
    world = World()

    shown = asyncio.run(world.send_test(ENDPOINT_ID, ACME))

    [stored] = world.deliveries.stored.values()
    assert [message.delivery_id for message in world.queue.messages] == [stored.delivery_id]
    assert (stored.type, stored.session_id, stored.workspace) == ("endpoint.test", None, "acme")
    assert (stored.event_at, stored.created_at, stored.due_at, stored.tries) == (NOW, NOW, NOW, 0)
    assert is_uuid(stored.event_id)
    assert stored.delivery_id == f"{stored.event_id}.{ENDPOINT_ID}"
    assert shown == WebhookDelivery.of(stored)
    assert (shown.status, shown.next_try_at) == ("pending", NOW)


def test_each_test_is_an_event_of_its_own_and_a_repeated_request_returns_the_first() -> None:
    world = World()
    first = asyncio.run(world.send_test(ENDPOINT_ID, ACME))
    second = asyncio.run(world.send_test(ENDPOINT_ID, ACME))

    assert first.event_id != second.event_id
    assert asyncio.run(world.send_test.repeat(first.delivery_id, ACME)) == first
    assert len(world.queue.messages) == 2


def test_a_repeated_test_whose_delivery_or_endpoint_is_gone_is_not_found() -> None:
    world = World()

    for gone in (DELIVERY_ID, DeliveryId(f"{EVENT_ID}.{SESSION_ID}"), DeliveryId("")):
        with pytest.raises(WebhookEndpointNotFound):
            asyncio.run(world.send_test.repeat(gone, ACME))


def test_a_test_that_cannot_be_queued_is_accepted_because_the_schedule_queues_it() -> None:
    world = World(queue=BrokenDeliveryQueue())

    shown = asyncio.run(world.send_test(ENDPOINT_ID, ACME))

    assert world.deliveries.stored[shown.delivery_id].due_at == NOW


# ---- List -------------------------------------------------------------------------------------------


def test_a_delivery_in_a_list_has_all_fields_of_the_contract() -> None:
    page = asyncio.run(World(SUCCEEDED).list(ENDPOINT_ID, ListWebhookDeliveriesQuery(), ACME))

    [shown] = page.data
    assert shown.model_dump() == {
        "delivery_id": DELIVERY_ID,
        "event_id": EVENT_ID,
        "endpoint_id": ENDPOINT_ID,
        "type": "session.completed",
        "session_id": SESSION_ID,
        "status": "succeeded",
        "tries": 2,
        "created_at": NOW - 3,
        "next_try_at": None,
        "tried_at": NOW - 1,
        "http_status": 204,
        "milliseconds": 12,
        "error": None,
        "response": None,
    }


@pytest.mark.parametrize(("tries", "next_try_at"), [(0, NOW), (7, NOW), (8, None)])
def test_after_the_last_try_there_is_no_next_one(tries: int, next_try_at: int | None) -> None:
    assert WebhookDelivery.of(delivery(tries=tries)).next_try_at == next_try_at


def test_a_list_may_be_that_of_one_session() -> None:
    other = delivery(delivery_id=DeliveryId(f"z.{ENDPOINT_ID}"), session_id=SessionId("other"))
    world = World(delivery(), other)

    everything = asyncio.run(world.list(ENDPOINT_ID, ListWebhookDeliveriesQuery(), ACME))
    of_one = asyncio.run(world.list(ENDPOINT_ID, ListWebhookDeliveriesQuery(session_id=SESSION_ID), ACME))

    assert [each.delivery_id for each in everything.data] == [other.delivery_id, DELIVERY_ID]
    assert [each.delivery_id for each in of_one.data] == [DELIVERY_ID]


# ---- Redeliver --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_delivery_that_has_ended_is_pending_again_with_all_its_tries(status: Any) -> None:
    world = World(replace(SUCCEEDED, status=status))

    shown = asyncio.run(world.redeliver(ENDPOINT_ID, DELIVERY_ID, ACME))

    assert (shown.status, shown.tries, shown.next_try_at, shown.event_id) == ("pending", 0, NOW, EVENT_ID)
    [message] = world.queue.messages
    assert message.next_try == (2, 0)  # differs from each try before, so that the queue does not drop it
    assert world.deliveries.stored[DELIVERY_ID] == message


def test_a_pending_delivery_does_not_change() -> None:
    world = World(delivery(tries=3))

    shown = asyncio.run(world.redeliver(ENDPOINT_ID, DELIVERY_ID, ACME))

    assert (shown.status, shown.tries) == ("pending", 3)
    assert world.queue.messages == []
    assert world.deliveries.stored[DELIVERY_ID] == delivery(tries=3)


def test_of_two_requests_at_the_same_time_one_redelivers_and_both_return_it() -> None:
    world = World(SUCCEEDED)

    async def both() -> list[WebhookDelivery]:
        return list(await asyncio.gather(*(world.redeliver(ENDPOINT_ID, DELIVERY_ID, ACME) for _ in range(2))))

    first, second = asyncio.run(both())

    assert first == second
    assert len(world.queue.messages) == 1


def test_a_redelivery_that_cannot_be_queued_is_accepted_because_the_schedule_queues_it() -> None:
    world = World(SUCCEEDED, queue=BrokenDeliveryQueue())

    asyncio.run(world.redeliver(ENDPOINT_ID, DELIVERY_ID, ACME))

    assert world.deliveries.stored[DELIVERY_ID].due_at == NOW


@pytest.mark.parametrize("unknown", ["", "x", DELIVERY_ID.replace("f1", "f2"), f"{EVENT_ID}.{SESSION_ID}"])
def test_an_unknown_delivery_is_not_found(unknown: str) -> None:
    with pytest.raises(WebhookDeliveryNotFound):
        asyncio.run(World(SUCCEEDED).redeliver(ENDPOINT_ID, DeliveryId(unknown), ACME))


# ---- Who may do what --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "endpoint_id", "error"),
    [
        (GLOBEX, ENDPOINT_ID, WebhookEndpointNotFound),
        (ACME, EndpointId(SESSION_ID), WebhookEndpointNotFound),
        (UnknownCaller(), ENDPOINT_ID, InvalidApiKey),
    ],
)
def test_the_endpoint_of_another_workspace_is_not_found(
    caller: Any, endpoint_id: EndpointId, error: type[Exception]
) -> None:
    world = World(SUCCEEDED)
    for request in (
        world.send_test(endpoint_id, caller),
        world.list(endpoint_id, ListWebhookDeliveriesQuery(), caller),
        world.redeliver(endpoint_id, DELIVERY_ID, caller),
    ):
        with pytest.raises(error):
            asyncio.run(request)
    assert world.deliveries.stored == {DELIVERY_ID: SUCCEEDED}
    assert world.queue.messages == []
