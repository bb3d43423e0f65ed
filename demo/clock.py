"""The time of a call, which passes faster where a stand-in speaks faster than people do."""

import asyncio
import time


class CallClock:
    """Counts the seconds of a call from its start, so many a second of the wall's clock as the pace says."""

    def __init__(self, pace: float) -> None:
        self.pace = pace
        self._began = time.monotonic()

    def start(self) -> None:
        """Begin to count."""
        self._began = time.monotonic()

    def now(self) -> float:
        """Return the seconds since the call began."""
        return (time.monotonic() - self._began) * self.pace

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds of the call."""
        await asyncio.sleep(max(0.0, seconds) / self.pace)
