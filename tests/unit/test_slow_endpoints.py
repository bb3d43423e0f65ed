"""Endpoints that hang do not delay the others: deliveries in virtual time, with the bounds of template.yaml."""

import logging
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from pi_voice.domain.ids import EventId
from pi_voice.domain.webhook_deliveries import MAX_TRIES, TRY_SECONDS
from pi_voice.logs import logger
from tests.support.delivery_simulation import Order, Simulation, bounds_of_template, percentile
from tests.support.virtual_time import simulate

HOUR: Final = 3_600
OWED: Final = 1_000
"""Events that one endpoint is owed at once: more than four hours of tries that time out."""

SECONDS_BETWEEN_EVENTS: Final = 6.0
"""Of each endpoint that works."""

WORKERS: Final = bounds_of_template().workers


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Log no line for each of a hundred thousand tries."""
    level = logger.log_level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


class Ran(NamedTuple):
    """What came of a simulation."""

    simulation: Simulation
    owed: list[EventId]
    """Events of the endpoints that hang."""
    normal: list[EventId]
    """Events of the endpoints that work."""

    @property
    def waits(self) -> list[float]:
        return self.simulation.waits(self.normal)


def ran(
    hanging: int,
    owed: int,
    working: int,
    order: Order = "oldest first",
    *,
    seconds: int = HOUR,
    recovers: bool = False,
) -> Ran:
    """Simulate a time; with `recovers`, all endpoints work from then on, and what is owed is worked off."""

    async def work() -> Ran:
        simulation = Simulation(hanging, working, order)
        events = [event for endpoint in simulation.hanging for event in simulation.happen(endpoint, owed)]
        normal = await simulation.keep_happening(simulation.working, SECONDS_BETWEEN_EVENTS, seconds)
        if recovers:
            simulation.receivers.hanging.clear()
        await simulation.run(2 * HOUR if recovers else 60)
        await simulation.stop()
        return Ran(simulation, events, normal)

    return simulate(work())


@pytest.mark.parametrize("order", ["oldest first", "hanging first"])
def test_an_endpoint_that_hangs_with_a_thousand_events_does_not_delay_another(order: Order) -> None:
    simulation, owed, normal = done = ran(1, OWED, 1, order)

    assert len(normal) == HOUR / SECONDS_BETWEEN_EVENTS
    assert percentile(done.waits, 0.95) < 5
    assert simulation.receivers.accepted == set(normal)
    assert simulation.receivers.most_at_once == 1
    assert {each.event_id for each in simulation.deliveries.stored.values()} == {*owed, *normal}
    waiting = [each for each in simulation.deliveries.stored.values() if each.event_id in set(owed)]
    assert {each.status for each in waiting} == {"pending"}
    assert max(each.tries for each in waiting) <= MAX_TRIES
    assert all(each.due_at is not None for each in waiting)


@pytest.mark.parametrize(("hanging", "order"), [(5, "oldest first"), (WORKERS - 1, "hanging first")])
def test_endpoints_that_hang_leave_a_worker_for_the_others(hanging: int, order: Order) -> None:
    simulation, _, normal = done = ran(hanging, 150, 3, order, seconds=HOUR // 2)

    assert percentile(done.waits, 0.95) < 5
    assert simulation.receivers.accepted == set(normal)
    assert simulation.receivers.most_at_once == 1


# docs/operations.md says what operators do about it.
def test_when_as_many_endpoints_hang_as_there_are_workers_the_others_wait_and_lose_nothing() -> None:
    simulation, owed, normal = done = ran(WORKERS, 150, 3, seconds=HOUR // 2, recovers=True)

    assert percentile(done.waits, 0.5) > TRY_SECONDS
    assert simulation.receivers.accepted == {*owed, *normal}
    assert {each.status for each in simulation.deliveries.stored.values()} == {"succeeded"}
    assert max(each.tries for each in simulation.deliveries.stored.values()) <= MAX_TRIES
