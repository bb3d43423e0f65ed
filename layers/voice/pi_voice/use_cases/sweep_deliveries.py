"""Scheduled job: queue the deliveries whose next try is due."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Final

from pi_voice.domain.delivery_sweeps import SweepDeliveriesResult
from pi_voice.domain.errors import StorageError
from pi_voice.domain.ids import Clock, EndpointId
from pi_voice.domain.webhook_deliveries import LIFE_SECONDS
from pi_voice.logs import logger
from pi_voice.ports import DeliveryQueue, DueDelivery, WebhookDeliveries, WebhookEndpoints

BUDGET_SECONDS: Final = 30.0
"""Time after which a run starts nothing more, so that what it started ends in time. The next run does the rest."""

QUEUED_SECONDS: Final = 3_600
"""When a queued delivery is due again, because its message was lost: not before the queue deletes the message."""

PUT_BACK_SECONDS: Final = 60
"""When a delivery is due again that could not be queued."""

MAX_PER_ENDPOINT: Final = 100
"""Maximum number of deliveries of one endpoint that a run queues, so that none fills the queue."""

MAX_PROBES: Final = 30
"""Maximum number of endpoints that hang to which a run sends an event, so that most workers are left to the others."""

_CONCURRENT: Final = 16


class _Run:
    """One run of the job."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_at = clock()
        self._taken: Counter[EndpointId] = Counter()
        self._known: set[EndpointId] = set()
        self._hanging: dict[EndpointId, tuple[int, DueDelivery]] = {}
        """Until when each endpoint rests that hangs, and the first delivery that was found due to it."""
        self.counts: Counter[str] = Counter()

    @property
    def is_over(self) -> bool:
        """Whether nothing more may start."""
        return self._clock() >= self._started_at + BUDGET_SECONDS

    def firsts(self, page: Sequence[DueDelivery]) -> list[DueDelivery]:
        """Return the first delivery to each endpoint that was not met before."""
        first = {due.endpoint_id: due for due in reversed(page) if due.endpoint_id not in self._known}
        self._known |= first.keys()
        return list(first.values())

    def hangs(self, due: DueDelivery, resting_until: int) -> None:
        """Note that the endpoint of a delivery hangs."""
        self._hanging[due.endpoint_id] = (resting_until, due)
        self.counts["hanging"] += 1

    def takes(self, due: DueDelivery) -> bool:
        """Count a delivery, and return whether it is to be queued.

        One that has been due for too long is queued also if its endpoint hangs, so that it fails.
        """
        if due.endpoint_id in self._hanging and due.due_at > self._started_at - LIFE_SECONDS:
            return False
        self._taken[due.endpoint_id] += 1
        return self._taken[due.endpoint_id] <= MAX_PER_ENDPOINT

    def probes(self) -> list[DueDelivery]:
        """Return a delivery for each endpoint that hangs and whose rest is over, the longest rested first."""
        rested = [each for each in self._hanging.values() if each[0] <= self._started_at]
        return [due for _, due in sorted(rested, key=itemgetter(0))[:MAX_PROBES]]


class SweepDeliveries:
    """Queues due deliveries. Of runs that find one in the same second, one moves its due time and queues it.

    An endpoint that hangs gets at most one delivery in a run, and none while it rests. The others stay due.
    """

    def __init__(
        self,
        deliveries: WebhookDeliveries,
        endpoints: WebhookEndpoints,
        queue: DeliveryQueue,
        clock: Clock = time.time,
    ) -> None:
        self._deliveries = deliveries
        self._endpoints = endpoints
        self._queue = queue
        self._clock = clock

    async def __call__(self) -> SweepDeliveriesResult:
        """Queue the due deliveries within the time limit; raises StorageError if their index cannot be read."""
        run = _Run(self._clock)
        async for page in self._deliveries.due(int(self._clock())):
            await _each(run, run.firsts(page), self._look_up)
            wanted = [due for due in page if run.takes(due)]
            run.counts["left"] += len(page) - len(wanted)
            await _each(run, wanted, self._queue_one)
            if run.is_over:
                logger.warning("delivery_sweep_out_of_time")
                break
        probes = run.probes()
        run.counts["left"] -= len(probes)
        await _each(run, probes, self._queue_one)
        result = SweepDeliveriesResult(**{name: number for name, number in run.counts.items() if number})
        log = logger.info if any(run.counts.values()) else logger.debug
        log("delivery_sweep", **result.model_dump())
        return result

    async def _look_up(self, run: _Run, due: DueDelivery) -> None:
        """Note whether the endpoint of a delivery hangs. If that cannot be read, its deliveries are queued."""
        try:
            delivery = await self._deliveries.find(due.endpoint_id, due.delivery_id)
            endpoint = await self._endpoints.find(delivery.workspace, due.endpoint_id) if delivery is not None else None
        except StorageError as error:
            logger.error("webhook_endpoint_not_read", endpoint_id=due.endpoint_id, error=type(error).__name__)
            return
        if endpoint is not None and endpoint.receives and endpoint.resting_until is not None:
            run.hangs(due, endpoint.resting_until)

    async def _queue_one(self, run: _Run, due: DueDelivery) -> None:
        """Move the due time of a delivery, and queue it. If that fails, it is due again soon."""
        until = int(self._clock()) + QUEUED_SECONDS
        try:
            delivery = await self._deliveries.put_off(due, until)
            if delivery is None:  # it was tried, cancelled or delivered again meanwhile
                return
            try:
                await self._queue.put(delivery)
            except StorageError:
                soon = int(self._clock()) + PUT_BACK_SECONDS
                await self._deliveries.put_off(due._replace(due_at=until), soon)
                raise
        except StorageError as error:  # one delivery must not stop the others
            logger.error("delivery_not_queued", delivery_id=due.delivery_id, error=type(error).__name__)
            run.counts["errors"] += 1
        else:
            run.counts["queued"] += 1


async def _each(
    run: _Run, deliveries: Sequence[DueDelivery], work: Callable[[_Run, DueDelivery], Awaitable[None]]
) -> None:
    """Do some work for each delivery, _CONCURRENT at a time, until the run is over."""
    for start in range(0, len(deliveries), _CONCURRENT):
        await asyncio.gather(*(work(run, due) for due in deliveries[start : start + _CONCURRENT]))
        if run.is_over:
            break
