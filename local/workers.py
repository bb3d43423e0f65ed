"""Workers: the processes that run the functions, each with one request at a time, as in Lambda.

A function's first worker starts with its first request. If all its workers are busy, another one starts, up to
MAX_WORKERS; further requests wait. A worker whose code has changed since it started is replaced before the next
request.
"""

import asyncio
import json
import os
import socket
import sys
import time
import uuid
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from local.template import Function
from local.worker_process import HEADER

MAX_WORKERS: Final = 4
"""Maximum number of workers per function."""

MAX_EVENT_BYTES: Final = 6 * 1024 * 1024
MAX_ANSWER_BYTES: Final = MAX_EVENT_BYTES + 100

_START_SECONDS: Final = 30
"""Lambda's limit is 10 s, but here the functions share the machine's cores."""

_END_SECONDS: Final = 2
_PROGRAM: Final = Path(__file__).with_name("worker_process.py")

Json = Any
Code = frozenset[tuple[str, int]]
"""The modules of a function and of its layers, each with its modification time in nanoseconds."""


class EventTooLarge(Exception):
    """An event is larger than Lambda's limit."""


class FunctionError(Exception):
    """A function raised, crashed, timed out or answered too much; `details` is Lambda's error document."""

    def __init__(self, details: dict[str, Json]) -> None:
        super().__init__(f"{details['errorType']}: {details['errorMessage']}")
        self.details = details


class Workers:
    """All workers of all functions."""

    def __init__(self, functions: Iterable[Function], environment: Mapping[str, str]) -> None:
        self._pools = {function.logical_id: _WorkerPool(function, environment) for function in functions}

    async def invoke(self, logical_id: str, event: Json, trace_id: str = "") -> Json:
        """Invoke a function with an event and return its answer; raises EventTooLarge and FunctionError."""
        payload = json.dumps(event, ensure_ascii=False).encode()
        if len(payload) > MAX_EVENT_BYTES:
            raise EventTooLarge
        return await self._pools[logical_id].invoke(payload, trace_id)

    async def stop(self) -> None:
        """Stop all workers, busy or not."""
        await asyncio.gather(*(pool.stop() for pool in self._pools.values()))


@dataclass
class _WorkerPool:
    """The workers of one function."""

    function: Function
    environment: Mapping[str, str]
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_WORKERS))
    _idle: list["_Worker"] = field(default_factory=list)
    _all: set["_Worker"] = field(default_factory=set)

    async def invoke(self, event: bytes, trace_id: str) -> Json:
        async with self._turns:
            worker = await self._take()
            try:
                return await worker.call(event, trace_id)
            finally:
                if worker.is_reusable:
                    self._idle.append(worker)
                else:
                    await self._discard(worker)

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._all))

    async def _take(self) -> "_Worker":
        """Return an idle worker with the current code, or start a new one."""
        code = _code_of(self.function)
        while self._idle:
            worker = self._idle.pop()
            if worker.is_reusable and worker.code == code:
                return worker
            await self._discard(worker)
        worker = _Worker(self.function, code)
        self._all.add(worker)
        try:
            await worker.start(self.environment)
        except BaseException:
            await self._discard(worker)
            raise
        return worker

    async def _discard(self, worker: "_Worker") -> None:
        self._all.discard(worker)
        await worker.stop()


class _Worker:
    """One process and the socket to it."""

    def __init__(self, function: Function, code: Code) -> None:
        self.code = code
        self._function = function
        self._free = False
        self._process: Process
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_reusable(self) -> bool:
        """Whether the worker can take a request: it is running, and no call is in progress or was abandoned."""
        return self._free and not self._reader.at_eof()

    async def start(self, environment: Mapping[str, str]) -> None:
        """Start the process and wait until the handler is imported; raises FunctionError if that fails."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # keep this folder off the function's module path
                str(_PROGRAM),
                str(theirs.fileno()),
                self._function.handler,
                pass_fds=[theirs.fileno()],
                stdin=DEVNULL,
                cwd=self._function.code,
                env={**environment, **_variables(self._function)},
                start_new_session=True,  # so Ctrl-C reaches the parent only, which stops the workers
            )
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        await self._receive(_START_SECONDS, "was not ready")

    async def call(self, event: bytes, trace_id: str) -> Json:
        """Send one event and return the answer; raises FunctionError."""
        self._free = False
        limit = self._function.timeout_seconds
        metadata = {
            "request_id": str(uuid.uuid4()),
            "arn": self._function.arn,
            "trace_id": trace_id,
            "deadline": time.time() + limit,
        }
        self._send(b"F", json.dumps(metadata).encode())
        self._send(b"E", event)
        answer = await self._receive(limit, "timed out")
        if len(answer) > MAX_ANSWER_BYTES:
            raise self._failure("Function.ResponseSizeTooLarge", f"answered {len(answer)} bytes")
        return json.loads(answer)

    async def stop(self) -> None:
        """Close the socket, which makes the process exit, and kill it if it does not."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _send(self, kind: bytes, payload: bytes) -> None:
        if self._writer is not None:
            self._writer.write(HEADER.pack(kind, len(payload)) + payload)

    async def _receive(self, seconds: int, problem: str) -> bytes:
        """Wait for one frame; raises FunctionError if it reports an error, or does not arrive within the time limit."""
        try:
            async with asyncio.timeout(seconds):
                kind, length = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                payload = await self._reader.readexactly(length)
                self._free = True
        except TimeoutError:
            self._process.kill()
            await self.stop()
            raise self._failure("Sandbox.Timedout", f"{problem} after {seconds} s and was ended") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.stop()
            status = self._process.returncode
            raise self._failure("Runtime.ExitError", f"ended with exit status {status}") from None
        if kind == b"X":
            raise FunctionError(json.loads(payload))
        return payload

    def _failure(self, kind: str, what: str) -> FunctionError:
        print(f"{self._function.logical_id}: its worker {what}.", file=sys.stderr)
        return FunctionError({"errorType": kind, "errorMessage": f"The function {what}."})


def _code_of(function: Function) -> Code:
    modules = (module for folder in (function.code, *function.layers) for module in folder.rglob("*.py"))
    return frozenset((str(module), _changed_at(module)) for module in modules)


def _changed_at(module: Path) -> int:
    try:
        return module.stat().st_mtime_ns
    except FileNotFoundError:  # an editor is replacing the file
        return 0


def _variables(function: Function) -> dict[str, str]:
    """Return the environment variables that Lambda sets for a function."""
    return {
        **function.environment,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"local/[$LATEST]{uuid.uuid4().hex}",
        "LAMBDA_TASK_ROOT": str(function.code),
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(map(str, (function.code, *function.layers))),
        "PYTHONUNBUFFERED": "1",
        "TZ": ":UTC",
        "_HANDLER": function.handler,
    }
