"""The clock of a schedule: calls a function every so often, as EventBridge does."""

import asyncio
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Never

from local.errors import CannotStart
from local.poller import Invoke
from local.template import ACCOUNT, REGION, Schedule

SCHEDULE_SECONDS: Final = "SCHEDULE_SECONDS"

_LONGEST: Final = 86_400


def seconds_between(environment: Mapping[str, str]) -> float | None:
    """Return how often schedules are to run here, None as often as they say themselves; raises CannotStart."""
    wanted = environment.get(SCHEDULE_SECONDS)
    if not wanted:
        return None
    try:
        if 0 < float(wanted) <= _LONGEST:
            return float(wanted)
    except ValueError:
        pass
    raise CannotStart(f"{SCHEDULE_SECONDS} is {wanted!r}: give a number above 0 and up to {_LONGEST}.")


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Calls one function; a run that takes longer than the time between two puts off the next."""

    schedule: Schedule
    seconds: float
    function: str
    invoke: Invoke

    async def run(self) -> Never:
        """Call until it is cancelled; a run that fails is told, and the next happens."""
        while True:
            await asyncio.sleep(self.seconds)
            try:
                await self.invoke(self.function, self._event())
            except Exception as error:  # noqa: BLE001 (whatever it was, the next run may work)
                print(f"{self.function}: its scheduled run failed: {error}.", file=sys.stderr, flush=True)

    def _event(self) -> dict[str, Any]:
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": ACCOUNT,
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": REGION,
            "resources": [self.schedule.arn],
            "detail": {},
        }
