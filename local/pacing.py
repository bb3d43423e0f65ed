"""Pacing: send audio in real time, or a number of times faster."""

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pacer:
    """Paces one audio stream, starting with its first piece."""

    def __init__(
        self,
        pace: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pace = pace
        self._clock = clock
        self._sleep = sleep
        self._began: float | None = None

    async def reach(self, seconds: float) -> None:
        """Wait until this position of the audio is due; yields to other tasks even if no wait is needed."""
        if self._began is None:
            self._began = self._clock()
        await self._sleep(max(0.0, self._began + seconds / self._pace - self._clock()))
