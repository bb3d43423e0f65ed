import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from pi_voice.domain.delivery_sweeps import SweepDeliveriesResult
from pi_voice.domain.errors import StorageError, UnreadableRow
from pi_voice.domain.ids import DeliveryId, EndpointId
from pi_voice.domain.webhook_deliveries import Delivery
from pi_voice.ports import DueDelivery
from pi_voice.use_cases.sweep_deliveries import (
    BUDGET_SECONDS,
    MAX_PER_ENDPOINT,
    PUT_BACK_SECONDS,
    QUEUED_SECONDS,
    SweepDeliveries,
)
from tests.support.fakes import BrokenDeliveryQueue, FakeClock, FakeDeliveryQueue, FakeWebhookDeliveries
from tests.unit.examples import NOW, delivery

HOT, COLD = EndpointId("hot"), EndpointId("cold")


def deliveries_to(endpoint_id: EndpointId, count: int, due_at: int = NOW) -> list[Delivery]:
    return [
        delivery(endpoint_id=endpoint_id, delivery_id=DeliveryId(f"{number:04}.{endpoint_id}"), due_at=due_at)
        for number in range(count)
    ]


def sweep(
    deliveries: FakeWebhookDeliveries, queue: FakeDeliveryQueue, clock: FakeClock | None = None
) -> SweepDeliveriesResult:
    return asyncio.run(SweepDeliveries(deliveries, queue, clock or FakeClock(NOW + 0.5))())


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
    job = SweepDeliveries(deliveries, queue, FakeClock(NOW))

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
