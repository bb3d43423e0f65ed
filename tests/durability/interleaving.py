"""Execute requests one at a time in an order that a test draws: interleavings that can be repeated and shrunk.

Adapters send their requests through `asyncio.to_thread`. Here the event loop's executor has no threads: a request
waits in it until its turn, and then gets one of a few fates.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import count
from typing import Any, Final

from pi_voice.adapters.dynamodb.sessions import BY_DUE

_QUIET_TURNS: Final = 15
"""The number of iterations of the event loop without a request after which no more will come."""

_MOST_REQUESTS: Final = 2_000
_END_SECONDS: Final = 60

_operation: Final[ContextVar[int | None]] = ContextVar("operation", default=None)


class Fate(Enum):
    """The fate of a request."""

    DONE = "done"
    REPEATED = "repeated"
    """It is executed, its response is lost, and later it is sent again, as botocore does."""
    REFUSED = "refused"
    """It never arrives, on any try."""
    UNHEARD = "unheard"
    """It is executed, and no response arrives."""
    CRASH_BEFORE = "crash before"
    """The caller dies, and the request is not executed."""
    CRASH_AFTER = "crash after"
    """It is executed, and the caller dies before the response."""


Turn = tuple[int, Fate]
"""The index of the next waiting request, modulo their number, and its fate."""


class Crashed(BaseException):
    """The caller is dead, so its request is not executed."""


@dataclass
class Outcome:
    """The end of an operation: a value, an error, or neither."""

    value: Any = None
    error: Exception | None = None
    is_crashed: bool = False
    fates: set[Fate] = field(default_factory=set)

    @property
    def is_acknowledged(self) -> bool:
        """Whether its caller got a success."""
        return not self.is_crashed and self.error is None

    @property
    def is_spared(self) -> bool:
        """Whether no request of it had a fate that it cannot recover from."""
        return self.fates <= {Fate.DONE, Fate.REPEATED}


@dataclass
class _Waiting:
    operation: int
    request: Callable[[], Any]
    answer: Future[Any] = field(default_factory=Future)


def _index(fn: Callable[..., Any]) -> object:
    """Return the index that a request reads; its parameters are those of asyncio's call."""
    return fn.keywords.get("IndexName") if isinstance(fn, partial) else None


class Gate(ThreadPoolExecutor):
    """An executor that holds every request until its turn; requests of the test itself run at once."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self.log: list[str] = []
        self._waiting: list[_Waiting] = []
        self._dead: set[int] = set()
        self._asked = 0
        self._numbers = count()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a request until its turn. An index read runs at once, because each row is read again anyway."""
        operation = _operation.get()
        if operation in self._dead:
            raise Crashed
        self._asked += 1
        waiting = _Waiting(-1 if operation is None else operation, lambda: fn(*args, **kwargs))
        waiting.answer.set_running_or_notify_cancel()  # as with a thread, a cancelled wait does not cancel the request
        if operation is None or _index(fn) == BY_DUE:
            _carry_out(waiting)
        else:
            self._waiting.append(waiting)
        return waiting.answer

    async def race(self, work: Sequence[Coroutine[Any, Any, Any]], turns: Sequence[Turn]) -> list[Outcome]:
        """Run operations concurrently; after the drawn turns, requests run in order of arrival."""
        numbers = [next(self._numbers) for _ in work]
        outcomes = {number: Outcome() for number in numbers}
        tasks = {
            number: asyncio.create_task(self._run(number, each)) for number, each in zip(numbers, work, strict=True)
        }
        left = list(turns)
        for _ in range(_MOST_REQUESTS):
            await self._quiet()
            if not self._waiting:
                if all(task.done() for task in tasks.values()):
                    break
                continue  # a task with much work between two of its requests
            place, fate = left.pop(0) if left else (0, Fate.DONE)
            waiting = self._waiting.pop(place % len(self._waiting))
            outcome = outcomes[waiting.operation]
            outcome.fates.add(fate)
            self._befall(waiting, fate, tasks[waiting.operation])
            outcome.is_crashed = waiting.operation in self._dead
        done = await asyncio.wait_for(asyncio.gather(*tasks.values(), return_exceptions=True), timeout=_END_SECONDS)
        for outcome, ended in zip(outcomes.values(), done, strict=True):
            if isinstance(ended, Exception):
                outcome.error = ended
            elif not outcome.is_crashed:
                outcome.value = ended
        return list(outcomes.values())

    async def _run(self, number: int, work: Coroutine[Any, Any, Any]) -> Any:
        _operation.set(number)
        return await work

    async def _quiet(self) -> None:
        """Wait until every operation waits."""
        asked, turns = self._asked, 0
        while turns < _QUIET_TURNS:
            await asyncio.sleep(0)
            asked, turns = self._asked, turns + 1 if asked == self._asked else 0

    def _befall(self, waiting: _Waiting, fate: Fate, task: "asyncio.Task[Any]") -> None:
        match fate:
            case Fate.DONE:
                _carry_out(waiting)
            case Fate.REPEATED:
                _carry_out(_Waiting(waiting.operation, waiting.request))
                self._waiting.append(waiting)
            case Fate.REFUSED | Fate.UNHEARD:
                if fate is Fate.UNHEARD:
                    _carry_out(_Waiting(waiting.operation, waiting.request))
                waiting.answer.set_exception(TimeoutError())
            case Fate.CRASH_BEFORE | Fate.CRASH_AFTER:
                if fate is Fate.CRASH_AFTER:
                    _carry_out(_Waiting(waiting.operation, waiting.request))
                self._dead.add(waiting.operation)
                self._waiting = [each for each in self._waiting if each.operation != waiting.operation]
                task.cancel()


def _carry_out(waiting: _Waiting) -> None:
    try:
        waiting.answer.set_result(waiting.request())
    except Exception as error:  # noqa: BLE001 (passed to the caller)
        waiting.answer.set_exception(error)
