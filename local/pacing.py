"""Pacing: audio passes as fast as it sounds, or a number of times faster."""

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pacer:
    """Holds back one stream of audio, from its first piece on."""

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
        """Wait until so many seconds of audio may have passed; others run meanwhile, even if there is no wait."""
        if self._began is None:
            self._began = self._clock()
        await self._sleep(max(0.0, self._began + seconds / self._pace - self._clock()))
