"""Record the responses of services to functions once, and replay them afterwards.

Five servers are in front of DynamoDB, SQS, LiveKit, Gemini and a webhook endpoint. While recording, they forward every
request and store the response. While replaying, they send the stored response after a fixed delay, so that no figure
includes a stand-in. Requests are counted in both modes.
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

from bench.capacity import CapacityMeter, Units
from local.http_server import address, listen

DYNAMODB: Final = "DynamoDB"
LIVEKIT: Final = "LiveKit"
GEMINI: Final = "Gemini"
SQS: Final = "SQS"
RECEIVER: Final = "the endpoint"
SERVICES: Final = frozenset((DYNAMODB, LIVEKIT, GEMINI, SQS, RECEIVER))

_TIMER_SECONDS: Final = 0.002
"""Longer than the possible delay of an event loop's timer, which rounds up to whole milliseconds."""

_LEFT_OUT: Final = {"connection", "content-length", "host", "transfer-encoding", "accept-encoding"}
_SIGNED_BY: Final = ("TableName", "IndexName", "Key", "KeyConditionExpression", "UpdateExpression", "QueueUrl")
"""The part of a request that distinguishes requests of one function with different responses."""

Json = Any


@dataclass(frozen=True, slots=True)
class Request:
    """One received request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def operation(self) -> str:
        """The operation: the action of DynamoDB or SQS, or the last word of a provider's path."""
        target = self.headers.get("x-amz-target", "")
        return target.partition(".")[2] or self.path.partition("?")[0].replace(":", "/").rpartition("/")[2]

    @property
    def signature(self) -> str:
        """The key of the stored response.

        It omits ids that are new with each request, the current minute, and the time of the last change of a webhook
        endpoint, which is only written in another second than that of the one before.
        """
        if "x-amz-target" not in self.headers:
            return self.path
        asked = json.loads(self.body)
        key = json.dumps([self.operation, *(asked.get(name) for name in _SIGNED_BY)], sort_keys=True)
        return re.sub(r"(rate#[^#]+#[^#]+#)\d+|, #updated_at = :updated_at", r"\1", key)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request with the bytes of both bodies, and for DynamoDB the capacity and the rows."""

    service: str
    operation: str
    table: str
    """DynamoDB's table, or the queue of SQS."""
    bytes_out: int
    bytes_in: int
    units: Units
    rows: int


@dataclass
class Tape:
    """The recorded requests and responses of all services. A chapter is the work of one function."""

    recording: frozenset[str] = SERVICES
    """The services whose responses are recorded; those of the others are replayed."""

    chapter: str = ""
    delays: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SERVICES, 0.0))
    exchanges: list[Exchange] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    """Requests that were forwarded while replaying, because no response was recorded for them."""

    responses: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def begin(self, chapter: str) -> None:
        """Begin a chapter and discard the requests received before."""
        self.chapter = chapter
        self.exchanges.clear()
        self.missed.clear()


@dataclass
class _Server:
    """The recorder of one service."""

    service: str
    origin: str
    tape: Tape
    http: aiohttp.ClientSession
    meter: CapacityMeter | None

    async def pass_on(self, request: Request) -> bytes:
        """Forward the request to the service and store its response."""
        url = self.origin + request.path
        headers = {name: value for name, value in request.headers.items() if name not in _LEFT_OUT}
        before = await self.meter.look(request.operation, request.body) if self.meter else []
        async with self.http.request(request.method, url, data=request.body, headers=headers) as answer:
            body = await answer.read()
            received = {name: value for name, value in answer.headers.items() if name.lower() not in _LEFT_OUT}
            status = f"HTTP/1.1 {answer.status} {answer.reason}\r\n"
        lines = [f"{name}: {value}\r\n" for name, value in received.items()]
        raw = "".join([status, *lines, f"content-length: {len(body)}\r\n\r\n"]).encode() + body
        units, rows = Units(), 0
        if self.meter:
            units, rows = await self.meter.cost(request.operation, request.body, body, before)
        self._record(request, body, units, rows)
        self.tape.responses[self.tape.chapter, request.signature] = raw
        return raw

    def stored(self, request: Request) -> bytes | None:
        """Return the stored response to a request of this kind."""
        raw = self.tape.responses.get((self.tape.chapter, request.signature))
        if raw is not None:
            self.tape.exchanges.append(Exchange(self.service, request.operation, "", len(request.body), 0, Units(), 0))
        return raw

    def _record(self, request: Request, answer: bytes, units: Units, rows: int) -> None:
        asked = json.loads(request.body) if self.service in (DYNAMODB, SQS) else {}
        table = asked.get("TableName") or asked.get("QueueUrl", "").rpartition("/")[2]
        sizes = len(request.body), len(answer)
        self.tape.exchanges.append(Exchange(self.service, request.operation, table, *sizes, units, rows))


class _Connection(asyncio.Protocol):
    """A minimal HTTP/1.1 server: aiohttp's would be the largest part of a short response time."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.Transport
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (a TCP server's transport is one)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
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
        raw = None if recording else server.stored(request)
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
        """Write at an exact time, even though the loop's timers may be late."""
        loop = asyncio.get_running_loop()
        if loop.time() < moment:
            loop.call_soon(self._write_at, moment, raw)
        else:
            self._write(raw)

    def _write(self, raw: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(raw)


@asynccontextmanager
async def taped(tape: Tape, service: str, origin: str, meter: CapacityMeter | None = None) -> AsyncIterator[str]:
    """Serve the recorder of one service and yield its URL."""
    scheme = {"ws": "http", "wss": "https"}.get(urlsplit(origin).scheme)
    origin = urlsplit(origin)._replace(**({"scheme": scheme} if scheme else {})).geturl()
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        server = _Server(service, origin.rstrip("/"), tape, http, meter)
        listener = listen(0)
        serving = await asyncio.get_running_loop().create_server(lambda: _Connection(server), sock=listener)
        try:
            yield address(listener)
        finally:
            serving.close()
