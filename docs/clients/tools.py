"""The functions of a call: runs what the agent calls, answers Gemini, and records it; see docs/tools.md.

Pass all messages of Gemini to `Tools.take`. A function gets its arguments as a dict and returns the answer as one. The
tools of your server are relayed to the API, which calls it.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from typing import Any

Json = dict[str, Any]
Function = Callable[[Json], Awaitable[Json]]
Outcome = tuple[Json, str]  # the answer of a function, and how it ended

HANG_UP = "hang_up"  # the built-in function with which the agent ends the call

log = logging.getLogger(__name__)


class Tools:
    """The tool calls of one call.

    A function may take `seconds`. For the tools `on_server` there is `relay`, with a time limit of its own. `answer`
    gets each function response for Gemini, and then `record` the whole call. Each call runs in a task of its own, so
    that `take` never waits.
    """

    def __init__(
        self,
        functions: Mapping[str, Function],
        seconds: float,
        on_server: Collection[str],
        relay: Callable[[Json], Coroutine[Any, Any, Outcome]],
        answer: Callable[[Json], Awaitable[None]],
        record: Callable[[Json], Awaitable[None]],
    ) -> None:
        self._functions = {**functions, HANG_UP: _agree}
        self._on_server = on_server
        self._relay = relay
        self._answer = answer
        self._record = record
        self._seconds = seconds
        self._running: dict[str, asyncio.Task[Outcome]] = {}  # the functions, by the id of the call
        self._calls: dict[str, asyncio.Task[None]] = {}  # until they are recorded
        self._awaited: set[str] = set()  # the calls whose answer Gemini still wants
        self.hang_up = ""  # the id of the call by which the agent wants to end the call

    def take(self, message: Json) -> None:
        """Start the functions that a message calls, and stop those that it cancels."""
        for call in (message.get("toolCall") or {}).get("functionCalls") or ():
            call_id, name, arguments = call.get("id"), call.get("name", ""), call.get("args") or {}
            if not call_id or call_id in self._calls:
                continue
            self._awaited.add(call_id)
            if name in self._on_server:
                request = {"call_id": call_id, "name": name, "arguments": arguments}
                self._running[call_id] = asyncio.create_task(self._relay(request))
            elif function := self._functions.get(name):
                self._running[call_id] = asyncio.create_task(_called(function, arguments))
            self._calls[call_id] = asyncio.create_task(self._run(call_id, name, arguments))
            if name == HANG_UP:
                self.hang_up = call_id
        canceled = (message.get("toolCallCancellation") or {}).get("ids") or ()
        for call_id in canceled:
            self._awaited.discard(call_id)
            if call_id in self._running:
                self._running[call_id].cancel()
        if self.hang_up in canceled or (message.get("serverContent") or {}).get("interrupted"):
            self.hang_up = ""  # the caller goes on talking

    def forget(self) -> None:
        """Send no answer to the calls so far, because the conversation has begun anew and does not know them."""
        self._awaited.clear()
        self.hang_up = ""

    async def recorded(self, seconds: float | None = None) -> None:
        """Wait for all functions and records, some seconds at most."""
        if self._calls:
            await asyncio.wait(self._calls.values(), timeout=seconds)

    def cancel(self) -> None:
        """Cancel all functions and records."""
        for task in [*self._running.values(), *self._calls.values()]:
            task.cancel()

    async def _run(self, call_id: str, name: str, arguments: Json) -> None:
        """Wait for a function, answer Gemini, and record the call."""
        began = time.monotonic()
        try:
            response, status = await self._outcome(call_id, name)
            milliseconds = round((time.monotonic() - began) * 1000)
            if call_id in self._awaited:
                self._awaited.discard(call_id)
                await self._answer({"id": call_id, "name": name, "response": response})
            record = {"call_id": call_id, "name": name, "arguments": arguments, "response": response, "status": status}
            await self._record({**record, "milliseconds": milliseconds})
        finally:
            del self._calls[call_id]

    async def _outcome(self, call_id: str, name: str) -> Outcome:
        """Return the answer of a function, and how it ended."""
        if (function := self._running.get(call_id)) is None:
            return {"error": f"This page has no function {name}."}, "failed"
        done, _ = await asyncio.wait({function}, timeout=None if name in self._on_server else self._seconds)
        del self._running[call_id]
        if not done:
            function.cancel()
            return {"error": "This takes too long."}, "timeout"
        if function.cancelled():
            return {"error": "The call was canceled."}, "failed"
        if error := function.exception():
            log.error("The function %s failed.", name, exc_info=error)  # Gemini does not get to know the reason
            return {"error": "This did not work."}, "failed"
        return function.result()


async def _called(function: Function, arguments: Json) -> Outcome:
    """Call a function, and check that its answer is an object of JSON, because Gemini hangs up on others."""
    answer: object = await function(arguments)
    if not isinstance(answer, dict):
        raise TypeError(f"The function returned {type(answer).__name__} and no dict.")
    json.dumps(answer, allow_nan=False)
    return answer, "succeeded"


async def _agree(_: Json) -> Json:
    return {"result": "The call ends after your sentence."}
