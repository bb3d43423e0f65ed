"""An event loop whose clock can be advanced, so that tests neither wait for a time limit nor race against one."""

import asyncio


class MovableLoop(asyncio.SelectorEventLoop):
    """A loop on real time that a test can also advance."""

    _ahead = 0.0

    def time(self) -> float:
        return super().time() + self._ahead

    def let_pass(self, seconds: float) -> None:
        """Advance the clock; callbacks that are due then run next."""
        self._ahead += seconds
