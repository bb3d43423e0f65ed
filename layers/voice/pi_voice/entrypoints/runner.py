"""The event loop of a container, to which the connections to the providers belong."""

import asyncio
import gc
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

THREADS: Final = 64
"""Number of threads for blocking requests. Threads that hang must not leave the next request without one."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Create an event loop with threads for blocking requests."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS))
    return loop


_runner: Final = asyncio.Runner(loop_factory=new_event_loop)


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on the container's event loop.

    The first call enables garbage collection, which `pi_voice/__init__.py` disables for the cold start
    (docs/adr/0019).
    """
    if not gc.isenabled():
        gc.freeze()  # objects of the cold start are never garbage
        gc.enable()
    return _runner.get_loop().run_until_complete(coroutine)  # Runner.run installs a signal handler each time
