"""The wire between the functions and their services: written down once, and answered from the record afterwards.

Three servers stand before DynamoDB, LiveKit and Gemini. While they record they pass every request on and keep the
answer. While they replay they give the kept answer after a fixed delay, so that what is measured is not the work of a
stand-in. What a function sends is counted in both.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from bench.capacity import Keeper, Units
from local.http_server import address, listen

DYNAMODB: Final = "DynamoDB"
LIVEKIT: Final = "LiveKit"
GEMINI: Final = "Gemini"
SERVICES: Final = frozenset((DYNAMODB, LIVEKIT, GEMINI))

_TIMER_SECONDS: Final = 0.002
"""Longer than a timer of the event loop may be late, which rounds up to whole milliseconds."""

_LEFT_OUT: Final = {"connection", "content-length", "host", "transfer-encoding", "accept-encoding"}
_SIGNED_BY: Final = ("TableName", "IndexName", "Key", "UpdateExpression")
"""What tells two requests of one function apart that differ in their answer."""

Json = Any


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def operation(self) -> str:
        """What is asked for: DynamoDB's action, or the last word of a provider's path."""
        target = self.headers.get("x-amz-target", "")
        return target.partition(".")[2] or self.path.partition("?")[0].replace(":", "/").rpartition("/")[2]

    @property
    def signature(self) -> str:
        """What the kept answer is found by: ids that are new with each request are not in it, and no minute is."""
        if "x-amz-target" not in self.headers:
            return self.path
        asked = json.loads(self.body)
        told = json.dumps([self.operation, *(asked.get(name) for name in _SIGNED_BY)], sort_keys=True)
        return re.sub(r"(rate#[^#]+#)\d+", r"\1", told)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what it cost: bytes of both bodies, and of DynamoDB the capacity and the rows."""

    service: str
    operation: str
    table: str
    bytes_out: int
    bytes_in: int
    units: Units
    rows: int


@dataclass
class Tape:
    """What was heard and what is answered, for all services together. A chapter is what one function does."""

    recording: frozenset[str] = SERVICES
    """The services whose answers are recorded; the others' are replayed."""

    chapter: str = ""
    delays: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SERVICES, 0.0))
    heard: list[Exchange] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    """Requests that were passed on while replaying, because nothing like them had been recorded."""

    kept: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def begin(self, chapter: str) -> None:
        """Turn to a chapter; what was heard before is forgotten."""
        self.chapter = chapter
        self.heard.clear()
        self.missed.clear()


@dataclass
class _Server:
    """One service's place on the tape."""

    service: str
    origin: str
    tape: Tape
    http: aiohttp.ClientSession
    keeper: Keeper | None

    async def pass_on(self, request: Request) -> bytes:
        """Ask the service itself, and keep its answer."""
        url = self.origin + request.path
        headers = {name: value for name, value in request.headers.items() if name not in _LEFT_OUT}
        before = await self.keeper.look(request.operation, request.body) if self.keeper else []
        async with self.http.request(request.method, url, data=request.body, headers=headers) as answer:
            body = await answer.read()
            told = {name: value for name, value in answer.headers.items() if name.lower() not in _LEFT_OUT}
            status = f"HTTP/1.1 {answer.status} {answer.reason}\r\n"
        lines = [f"{name}: {value}\r\n" for name, value in told.items()]
        raw = "".join([status, *lines, f"content-length: {len(body)}\r\n\r\n"]).encode() + body
        units, rows = Units(), 0
        if self.keeper:
            units, rows = await self.keeper.cost(request.operation, request.body, body, before)
        self._note(request, body, units, rows)
        self.tape.kept[self.tape.chapter, request.signature] = raw
        return raw

    def kept(self, request: Request) -> bytes | None:
        """Return the kept answer to a request of this kind."""
        raw = self.tape.kept.get((self.tape.chapter, request.signature))
        if raw is not None:
            self.tape.heard.append(Exchange(self.service, request.operation, "", len(request.body), 0, Units(), 0))
        return raw

    def _note(self, request: Request, answer: bytes, units: Units, rows: int) -> None:
        table = json.loads(request.body).get("TableName", "") if self.service == DYNAMODB else ""
        sizes = len(request.body), len(answer)
        self.tape.heard.append(Exchange(self.service, request.operation, table, *sizes, units, rows))


class _Connection(asyncio.Protocol):
    """As little HTTP/1.1 as the clients need: aiohttp's own server would be the largest part of a short answer."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.Transport
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (a TCP server's transport is one)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        received = asyncio.get_running_loop().time()
        self._buffer += data
        while (request := self._next()) is not None:
            self._answer(request, received)

    def _next(self) -> Request | None:
        head, complete, rest = self._buffer.partition(b"\r\n\r\n")
        if not complete:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines if ": " in line)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            if headers.get("expect"):
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        self._buffer = rest[length:]
        return Request(method, path, headers, rest[:length])

    def _answer(self, request: Request, received: float) -> None:
        loop, server = asyncio.get_running_loop(), self._server
        recording = server.service in server.tape.recording
        raw = None if recording else server.kept(request)
        if raw is None:
            if not recording:
                server.tape.missed.append(f"{server.service} {request.signature}")
            task = loop.create_task(self._pass_on(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif delay := server.tape.delays[server.service]:
            loop.call_later(delay - _TIMER_SECONDS, self._write_at, received + delay, raw)
        else:
            self._write(raw)

    async def _pass_on(self, request: Request) -> None:
        self._write(await self._server.pass_on(request))

    def _write_at(self, moment: float, raw: bytes) -> None:
        """Write at a moment, however late the loop's own timers are."""
        loop = asyncio.get_running_loop()
        if loop.time() < moment:
            loop.call_soon(self._write_at, moment, raw)
        else:
            self._write(raw)

    def _write(self, raw: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(raw)


@asynccontextmanager
async def taped(tape: Tape, service: str, origin: str, keeper: Keeper | None = None) -> AsyncIterator[str]:
    """Serve one service's place on the tape, and yield its address."""
    scheme = {"ws": "http", "wss": "https"}.get(urlsplit(origin).scheme)
    origin = urlsplit(origin)._replace(**({"scheme": scheme} if scheme else {})).geturl()
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        server = _Server(service, origin.rstrip("/"), tape, http, keeper)
        listener = listen(0)
        serving = await asyncio.get_running_loop().create_server(lambda: _Connection(server), sock=listener)
        try:
            yield address(listener)
        finally:
            serving.close()
