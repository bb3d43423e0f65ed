"""Endpoints that hang do not delay the others: deliveries in virtual time, with the bounds of template.yaml."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Final, NamedTuple

import pytest

from pi_voice.domain.ids import EventId
from pi_voice.domain.webhook_deliveries import MAX_TRIES, PAUSES
from pi_voice.logs import logger
from pi_voice.use_cases.deliver_event import FAILING_SECONDS
from pi_voice.use_cases.sweep_deliveries import MAX_PROBES
from tests.support.delivery_simulation import Order, Simulation, bounds_of_template, percentile
from tests.support.virtual_time import simulate

HOUR: Final = 3_600
OWED: Final = 1_000
"""Events that one endpoint is owed at once: more than four hours of tries that time out."""

SECONDS_BETWEEN_EVENTS: Final = 6.0
"""Of each endpoint that works."""

SECONDS_BETWEEN_EVENTS_OF_HANGING: Final = 300.0
"""Of each endpoint that hangs, after the events that it is owed at first."""

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
    recovery: int | None
    """Minutes in which all that was owed was delivered, once no endpoint hung any more."""

    def waits(self, since: float = 0) -> list[float]:
        """Return the seconds to the first try of events of endpoints that work."""
        return self.simulation.waits(each for each in self.normal if self.simulation.happened[each] >= since)


def ran(hanging: int, owed: int, working: int, order: Order, *, seconds: int = HOUR, recovers: bool = False) -> Ran:
    """Simulate a time in which all endpoints go on to get events; with `recovers`, all work from then on."""

    async def work() -> Ran:
        simulation = Simulation(hanging, working, order)
        events = [event for endpoint in simulation.hanging for event in simulation.happen(endpoint, owed)]
        more, normal = await asyncio.gather(
            simulation.keep_happening(simulation.hanging, SECONDS_BETWEEN_EVENTS_OF_HANGING, seconds),
            simulation.keep_happening(simulation.working, SECONDS_BETWEEN_EVENTS, seconds),
        )
        recovery = await recover(simulation) if recovers else None
        await simulation.run(0 if recovers else 60)
        await simulation.stop()
        return Ran(simulation, events + more, normal, recovery)

    return simulate(work())


async def recover(simulation: Simulation) -> int:
    """Let all endpoints work, and return the minutes until all that is owed has been delivered."""
    simulation.receivers.hanging.clear()
    for minute in count(1):
        await simulation.run(60)
        if not simulation.pending:
            return minute
        assert minute < HOUR / 60, simulation.pending
    raise AssertionError


@pytest.mark.parametrize("order", ["oldest first", "hanging first"])
def test_an_endpoint_that_hangs_with_a_thousand_events_does_not_delay_another(order: Order) -> None:
    simulation, owed, normal, _ = done = ran(1, OWED, 1, order)

    assert len(normal) == HOUR / SECONDS_BETWEEN_EVENTS
    assert percentile(done.waits(), 0.95) < 5
    assert simulation.receivers.accepted == set(normal)
    assert simulation.receivers.most_at_once == 1
    assert {each.event_id for each in simulation.deliveries.stored.values()} == {*owed, *normal}
    waiting = [each for each in simulation.deliveries.stored.values() if each.event_id in set(owed)]
    assert {each.status for each in waiting} == {"pending"}
    assert max(each.tries for each in waiting) <= MAX_TRIES
    assert [each.delivery_id for each in waiting if each.due_at is None] == []


# docs/operations.md has these times.
@pytest.mark.parametrize(
    ("hanging", "owed", "order", "rested_after", "recovered_within"),
    [
        (20, 150, "oldest first", 60, 10),
        (20, 150, "hanging first", 60, 10),
        (WORKERS - 1, 50, "hanging first", 60, 10),
        (100, 50, "hanging first", 180, 12),
        (500, 20, "hanging first", 600, 25),
    ],
)
def test_endpoints_that_hang_delay_the_others_only_until_they_rest(
    hanging: int, owed: int, order: Order, rested_after: int, recovered_within: int
) -> None:
    seconds = max(20 * 60, rested_after + 10 * 60)
    simulation, events, normal, recovery = done = ran(hanging, owed, 3, order, seconds=seconds, recovers=True)

    assert percentile(done.waits(rested_after), 0.95) < 5
    assert done.waits(rested_after)[-1] < 5
    assert done.waits()[-1] < rested_after
    assert recovery is not None
    assert recovery <= recovered_within
    assert simulation.receivers.accepted == {*events, *normal}
    assert {each.status for each in simulation.deliveries.stored.values()} == {"succeeded"}
    assert max(each.tries for each in simulation.deliveries.stored.values()) <= MAX_TRIES
    probes = Counter(at // 60 for at in simulation.receivers.timed_out if at >= rested_after)
    assert max(probes.values()) <= MAX_PROBES
    assert simulation.receivers.most_at_once == 1
    assert simulation.queue.expired == 0


def test_an_endpoint_that_hangs_for_three_days_is_disabled_and_nothing_stays_pending() -> None:
    async def work() -> Simulation:
        simulation = Simulation(1, 0)
        await simulation.keep_happening(simulation.hanging, HOUR, FAILING_SECONDS + 2 * HOUR)
        await simulation.run(PAUSES[-1] + HOUR)
        await simulation.stop()
        return simulation

    simulation = simulate(work())

    [endpoint] = simulation.endpoints.stored.values()
    assert endpoint.disabled_reason == "failing"
    assert endpoint.failing_since is not None
    assert endpoint.disabled_at is not None
    assert FAILING_SECONDS <= endpoint.disabled_at - endpoint.failing_since < FAILING_SECONDS + 10 * 60
    log = simulation.deliveries.stored.values()
    assert Counter(each.status for each in log).keys() == {"failed", "cancelled"}
    assert {each.tries for each in log if each.status == "failed"} == {MAX_TRIES}
