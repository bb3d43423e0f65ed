"""Scheduled job: queue the deliveries whose next try is due."""

import asyncio
import time
from collections import Counter
from typing import Final

from pi_voice.domain.delivery_sweeps import SweepDeliveriesResult
from pi_voice.domain.errors import StorageError
from pi_voice.domain.ids import Clock, EndpointId
from pi_voice.logs import logger
from pi_voice.ports import DeliveryQueue, DueDelivery, WebhookDeliveries

BUDGET_SECONDS: Final = 30.0
"""Time after which a run starts nothing more, so that what it started ends in time. The next run does the rest."""

QUEUED_SECONDS: Final = 3_600
"""When a queued delivery is due again, because its message was lost: not before the queue deletes the message."""

PUT_BACK_SECONDS: Final = 60
"""When a delivery is due again that could not be queued."""

MAX_PER_ENDPOINT: Final = 100
"""Maximum number of deliveries of one endpoint that a run queues, so that none fills the queue."""

_CONCURRENT: Final = 16


class _Run:
    """One run of the job."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends_at = clock() + BUDGET_SECONDS
        self.by_endpoint: Counter[EndpointId] = Counter()
        self.counts: Counter[str] = Counter()

    @property
    def is_over(self) -> bool:
        """Whether nothing more may start."""
        return self._clock() >= self._ends_at

    def takes(self, due: DueDelivery) -> bool:
        """Count a delivery of an endpoint, and return whether it is to be queued."""
        self.by_endpoint[due.endpoint_id] += 1
        return self.by_endpoint[due.endpoint_id] <= MAX_PER_ENDPOINT


class SweepDeliveries:
    """Queues due deliveries. Of runs that find one in the same second, one moves its due time and queues it."""

    def __init__(self, deliveries: WebhookDeliveries, queue: DeliveryQueue, clock: Clock = time.time) -> None:
        self._deliveries = deliveries
        self._queue = queue
        self._clock = clock

    async def __call__(self) -> SweepDeliveriesResult:
        """Queue the due deliveries within the time limit; raises StorageError if their index cannot be read."""
        run = _Run(self._clock)
        async for page in self._deliveries.due(int(self._clock())):
            wanted = [due for due in page if run.takes(due)]
            run.counts["left"] += len(page) - len(wanted)
            for start in range(0, len(wanted), _CONCURRENT):
                await asyncio.gather(*(self._queue_one(run, due) for due in wanted[start : start + _CONCURRENT]))
                if run.is_over:
                    break
            if run.is_over:
                logger.warning("delivery_sweep_out_of_time")
                break
        result = SweepDeliveriesResult(**{name: number for name, number in run.counts.items() if number})
        log = logger.info if any(run.counts.values()) else logger.debug
        log("delivery_sweep", **result.model_dump())
        return result

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
