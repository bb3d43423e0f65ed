"""The clock of a call, which runs faster than real time if the stand-in speaks faster than people do."""

import asyncio
import time


class CallClock:
    """Counts the seconds of a call; `pace` is how many of them pass in one second of real time."""

    def __init__(self, pace: float) -> None:
        self.pace = pace
        self._began = time.monotonic()

    def start(self) -> None:
        """Set the clock to zero."""
        self._began = time.monotonic()

    def now(self) -> float:
        """Return the seconds since the call began."""
        return (time.monotonic() - self._began) * self.pace

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds of the call."""
        await asyncio.sleep(max(0.0, seconds) / self.pace)
