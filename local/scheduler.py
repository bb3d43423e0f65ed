"""The scheduler: invoke a function at a fixed rate, as EventBridge does."""

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
    """Return SCHEDULE_SECONDS, or None to use the template's rates; raises CannotStart."""
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
    """Invokes one function at a fixed interval, which is counted from the end of the previous run."""

    schedule: Schedule
    seconds: float
    function: str
    invoke: Invoke

    async def run(self) -> Never:
        """Run until canceled; a failed run is reported, and the schedule continues."""
        while True:
            await asyncio.sleep(self.seconds)
            try:
                await self.invoke(self.function, self._event())
            except Exception as error:  # noqa: BLE001 (the next run may succeed)
                print(f"{self.function}: scheduled run failed: {error}.", file=sys.stderr, flush=True)

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
