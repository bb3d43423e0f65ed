import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain.delivery_sweeps import SweepDeliveriesResult
from pi_voice.domain.errors import StorageError, UnreadableRow
from pi_voice.domain.ids import DeliveryId, EndpointId, WorkspaceId
from pi_voice.domain.webhook_deliveries import LIFE_SECONDS, Delivery
from pi_voice.domain.webhook_endpoints import WebhookEndpoint
from pi_voice.ports import DueDelivery
from pi_voice.use_cases.sweep_deliveries import (
    BUDGET_SECONDS,
    MAX_PER_ENDPOINT,
    MAX_PROBES,
    PUT_BACK_SECONDS,
    QUEUED_SECONDS,
    SweepDeliveries,
)
from tests.support.fakes import (
    BrokenDeliveryQueue,
    FakeClock,
    FakeDeliveryQueue,
    FakeWebhookDeliveries,
    FakeWebhookEndpoints,
)
from tests.unit.examples import NOW, delivery, webhook_endpoint

HOT, COLD = EndpointId("hot"), EndpointId("cold")


def deliveries_to(endpoint_id: EndpointId, count: int, due_at: int = NOW) -> list[Delivery]:
    return [
        delivery(endpoint_id=endpoint_id, delivery_id=DeliveryId(f"{number:04}.{endpoint_id}"), due_at=due_at)
        for number in range(count)
    ]


def sweep(
    deliveries: FakeWebhookDeliveries,
    queue: FakeDeliveryQueue,
    clock: FakeClock | None = None,
    endpoints: FakeWebhookEndpoints | None = None,
) -> SweepDeliveriesResult:
    endpoints = endpoints or FakeWebhookEndpoints()
    return asyncio.run(SweepDeliveries(deliveries, endpoints, queue, clock or FakeClock(NOW + 0.5))())


def test_a_due_delivery_is_queued_with_its_next_try() -> None:
    queue = FakeDeliveryQueue()
    due = delivery(tries=3, redeliveries=1)

    assert sweep(FakeWebhookDeliveries(due), queue) == SweepDeliveriesResult(queued=1)

    assert [message.next_try for message in queue.messages] == [due.next_try]


@pytest.mark.parametrize(
    "other", [delivery(due_at=NOW + 1), delivery(status="succeeded", due_at=None), delivery(due_at=None)]
)
def test_nothing_else_is_queued(other: Delivery) -> None:
    deliveries, queue = FakeWebhookDeliveries(other), FakeDeliveryQueue()

    assert sweep(deliveries, queue) == SweepDeliveriesResult()

    assert queue.messages == []
    assert deliveries.stored == {other.delivery_id: other}


def test_a_queued_delivery_is_due_again_once_its_message_is_lost() -> None:
    deliveries, queue, clock = FakeWebhookDeliveries(delivery()), FakeDeliveryQueue(), FakeClock(NOW)
    sweep(deliveries, queue, clock)
    clock.now = NOW + QUEUED_SECONDS - 1
    sweep(deliveries, queue, clock)
    assert len(queue.messages) == 1

    clock.now = NOW + QUEUED_SECONDS
    sweep(deliveries, queue, clock)

    assert len(queue.messages) == 2
    assert {message.next_try for message in queue.messages} == {delivery().next_try}


def test_of_two_runs_at_the_same_time_one_queues() -> None:
    deliveries, queue = FakeWebhookDeliveries(*deliveries_to(HOT, 25)), FakeDeliveryQueue()
    job = SweepDeliveries(deliveries, FakeWebhookEndpoints(), queue, FakeClock(NOW))

    async def both() -> list[SweepDeliveriesResult]:
        return list(await asyncio.gather(job(), job()))

    results = asyncio.run(both())

    assert sum(result.queued for result in results) == 25
    assert len(queue.messages) == 25


def test_one_endpoint_with_many_deliveries_leaves_room_for_others() -> None:
    hot = deliveries_to(HOT, MAX_PER_ENDPOINT + 50, due_at=NOW - 100)
    deliveries, queue = FakeWebhookDeliveries(*hot, *deliveries_to(COLD, 3)), FakeDeliveryQueue()

    first = sweep(deliveries, queue)
    second = sweep(deliveries, queue)

    assert first == SweepDeliveriesResult(queued=MAX_PER_ENDPOINT + 3, left=50)
    assert second == SweepDeliveriesResult(queued=50)
    assert sum(message.endpoint_id == COLD for message in queue.messages) == 3


class SlowQueue(FakeDeliveryQueue):
    """Each message takes a second of the clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    async def put(self, delivery: Delivery) -> None:
        self._clock.now += 1
        await super().put(delivery)


def test_a_run_starts_nothing_more_after_its_time_and_the_next_one_goes_on() -> None:
    many = [each for number in range(40) for each in deliveries_to(EndpointId(f"e{number}"), 2)]
    deliveries, clock = FakeWebhookDeliveries(*many), FakeClock(NOW)
    queue = SlowQueue(clock)

    first = sweep(deliveries, queue, clock)

    assert BUDGET_SECONDS <= first.queued < BUDGET_SECONDS + 16
    while len(queue.messages) < len(many):
        assert sweep(deliveries, queue, clock).queued
    assert len({message.delivery_id for message in queue.messages}) == len(many)


def test_a_delivery_that_cannot_be_queued_is_due_again_soon_and_stops_no_other() -> None:
    deliveries, clock = FakeWebhookDeliveries(*deliveries_to(HOT, 3)), FakeClock(NOW)

    assert sweep(deliveries, BrokenDeliveryQueue(), clock) == SweepDeliveriesResult(errors=3)

    assert {each.due_at for each in deliveries.stored.values()} == {NOW + PUT_BACK_SECONDS}
    clock.now += PUT_BACK_SECONDS
    assert sweep(deliveries, FakeDeliveryQueue(), clock) == SweepDeliveriesResult(queued=3)


class OneUnreadable(FakeWebhookDeliveries):
    """The first delivery cannot be read."""

    async def put_off(self, due: DueDelivery, until: int) -> Delivery | None:
        moved = await super().put_off(due, until)
        if due.delivery_id.startswith("0000"):
            raise UnreadableRow
        return moved


def test_a_delivery_that_cannot_be_read_stops_no_other() -> None:
    queue = FakeDeliveryQueue()

    assert sweep(OneUnreadable(*deliveries_to(HOT, 3)), queue) == SweepDeliveriesResult(queued=2, errors=1)

    assert len(queue.messages) == 2


class MovedMeanwhile(FakeWebhookDeliveries):
    """Each delivery is tried after the index listed it."""

    async def put_off(self, due: DueDelivery, until: int) -> Delivery | None:
        current = self.stored[due.delivery_id]
        self.stored[due.delivery_id] = replace(current, tries=1, due_at=NOW + 60)
        return await super().put_off(due, until)


def test_a_delivery_that_was_tried_meanwhile_is_not_queued() -> None:
    queue = FakeDeliveryQueue()

    assert sweep(MovedMeanwhile(delivery()), queue) == SweepDeliveriesResult()

    assert queue.messages == []


class NoIndex(FakeWebhookDeliveries):
    """The index cannot be read."""

    async def due(self, now: int) -> AsyncIterator[list[DueDelivery]]:
        async for _ in super().due(now):
            raise StorageError
        yield []


def test_an_index_that_cannot_be_read_fails_the_run() -> None:
    with pytest.raises(StorageError):
        sweep(NoIndex(delivery()), FakeDeliveryQueue())


# ---- Endpoints that hang ----------------------------------------------------------------------------


def hanging(endpoint_id: EndpointId, resting_until: int, **fields: Any) -> WebhookEndpoint:
    return webhook_endpoint(endpoint_id=endpoint_id, timeouts=2, resting_until=resting_until, **fields)


def test_nothing_is_queued_for_an_endpoint_while_it_rests() -> None:
    deliveries, queue = FakeWebhookDeliveries(*deliveries_to(HOT, 3), *deliveries_to(COLD, 3)), FakeDeliveryQueue()
    stored = dict(deliveries.stored)

    result = sweep(deliveries, queue, endpoints=FakeWebhookEndpoints(hanging(HOT, NOW + 1)))

    assert result == SweepDeliveriesResult(queued=3, left=3, hanging=1)
    assert {message.endpoint_id for message in queue.messages} == {COLD}
    assert {each: deliveries.stored[each] for each in stored if each.endswith(HOT)} == {
        each: stored[each] for each in stored if each.endswith(HOT)
    }


def test_after_its_rest_an_endpoint_gets_the_delivery_that_is_due_for_the_longest_time() -> None:
    [first, *_] = due = [*deliveries_to(HOT, 1, due_at=NOW - 90), *deliveries_to(HOT, 3)[1:]]
    deliveries, queue = FakeWebhookDeliveries(*reversed(due)), FakeDeliveryQueue()

    result = sweep(deliveries, queue, endpoints=FakeWebhookEndpoints(hanging(HOT, NOW)))

    assert result == SweepDeliveriesResult(queued=1, left=2, hanging=1)
    assert [message.delivery_id for message in queue.messages] == [first.delivery_id]


def test_an_endpoint_that_responds_again_gets_its_deliveries_with_the_next_run() -> None:
    deliveries, queue = FakeWebhookDeliveries(*deliveries_to(HOT, 3)), FakeDeliveryQueue()
    sweep(deliveries, queue, endpoints=FakeWebhookEndpoints(hanging(HOT, NOW)))

    sweep(deliveries, queue, endpoints=FakeWebhookEndpoints(hanging(HOT, NOW).awake()))

    assert {message.delivery_id for message in queue.messages} == deliveries.stored.keys()


def test_a_run_sends_to_a_limited_number_of_endpoints_that_hang_and_each_has_its_turn() -> None:
    names = [EndpointId(f"e{number:02}") for number in range(2 * MAX_PROBES)]
    deliveries = FakeWebhookDeliveries(*(each for name in names for each in deliveries_to(name, 2)))
    rested = {name: NOW - 100 + number for number, name in enumerate(reversed(names))}
    endpoints = FakeWebhookEndpoints(*(hanging(name, until) for name, until in rested.items()))
    queue = FakeDeliveryQueue()

    first = sweep(deliveries, queue, endpoints=endpoints)
    probed = [message.endpoint_id for message in queue.messages]
    for name in probed:
        endpoints.stored[name] = replace(endpoints.stored[name], resting_until=NOW + 60)
    sweep(deliveries, queue, endpoints=endpoints)

    assert first == SweepDeliveriesResult(queued=MAX_PROBES, left=3 * MAX_PROBES, hanging=2 * MAX_PROBES)
    assert probed == sorted(names, key=rested.__getitem__)[:MAX_PROBES]
    assert sorted(message.endpoint_id for message in queue.messages) == sorted(names)


@pytest.mark.parametrize(
    "endpoint",
    [
        hanging(HOT, NOW + 60, disabled_at=NOW, disabled_reason="failing"),
        hanging(HOT, NOW + 60, active=False),
        hanging(HOT, NOW + 60, workspace=WorkspaceId("globex")),
    ],
    ids=["disabled", "inactive", "deleted"],
)
def test_deliveries_that_are_to_be_cancelled_are_queued(endpoint: WebhookEndpoint) -> None:
    queue = FakeDeliveryQueue()

    result = sweep(FakeWebhookDeliveries(*deliveries_to(HOT, 3)), queue, endpoints=FakeWebhookEndpoints(endpoint))

    assert result == SweepDeliveriesResult(queued=3)


def test_what_has_waited_for_three_days_is_queued_also_while_its_endpoint_rests() -> None:
    queue = FakeDeliveryQueue()
    old, young = deliveries_to(HOT, 1, due_at=NOW - LIFE_SECONDS), deliveries_to(HOT, 2, due_at=NOW - LIFE_SECONDS + 2)

    sweep(FakeWebhookDeliveries(*old, *young[1:]), queue, endpoints=FakeWebhookEndpoints(hanging(HOT, NOW + 60)))

    assert [message.delivery_id for message in queue.messages] == [each.delivery_id for each in old]


class EndpointsThatFail(FakeWebhookEndpoints):
    """Endpoints cannot be read."""

    async def find(self, workspace: WorkspaceId, endpoint_id: EndpointId) -> WebhookEndpoint | None:
        del workspace, endpoint_id
        raise StorageError


def test_the_deliveries_of_an_endpoint_that_cannot_be_read_are_queued() -> None:
    queue = FakeDeliveryQueue()

    assert sweep(FakeWebhookDeliveries(*deliveries_to(HOT, 3)), queue, endpoints=EndpointsThatFail()).queued == 3

    assert len(queue.messages) == 3


def test_a_run_without_time_left_still_sends_to_endpoints_that_hang() -> None:
    clock = FakeClock(NOW)
    queue = SlowQueue(clock)
    deliveries = FakeWebhookDeliveries(*deliveries_to(HOT, 2, due_at=NOW - 1), *deliveries_to(COLD, 90))

    result = sweep(deliveries, queue, clock, FakeWebhookEndpoints(hanging(HOT, NOW)))

    assert BUDGET_SECONDS <= result.queued < 90
    assert sum(message.endpoint_id == HOT for message in queue.messages) == 1
