"""When the current request has to be answered, which bounds every call out that it makes."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_answer_by: Final[ContextVar[float]] = ContextVar("answer_by", default=math.inf)


@contextmanager
def answer_within(seconds: float) -> Iterator[None]:
    """Process a request that has to be answered within a time, in seconds from now."""
    token = _answer_by.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _answer_by.reset(token)


def seconds_left() -> float:
    """Return the seconds until the current request has to be answered; infinite if there is no such time."""
    return _answer_by.get() - time.monotonic()
