"""The event loop of a container, to which the connections to the providers belong."""

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

_runner: Final = asyncio.Runner()


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on the container's event loop.

    The first call enables garbage collection, which `pi_voice/__init__.py` disables for the cold start
    (docs/adr/0019).
    """
    if not gc.isenabled():
        gc.freeze()  # objects of the cold start are never garbage
        gc.enable()
    return _runner.run(coroutine)
