"""An event loop whose clock can be put forward: no test has to wait for a time limit, or to hurry before one."""

import asyncio


class MovableLoop(asyncio.SelectorEventLoop):
    """A loop for which time passes as on the wall, and at once where it is told to."""

    _ahead = 0.0

    def time(self) -> float:
        return super().time() + self._ahead

    def let_pass(self, seconds: float) -> None:
        """Put the clock forward; whatever is due then comes next."""
        self._ahead += seconds
