"""A test server on loopback that simulates the failures of a provider."""

import asyncio
import gzip
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from aiohttp import web
from multidict import CIMultiDict

from tests.support.moving_clock import MovableLoop
from tests.support.patience import LONG

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

FLOOD_BYTES: Final = 2**28
_PART: Final = b" " * 2**16


@dataclass(frozen=True, slots=True)
class Received:
    """One received request."""

    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes


class Provider:
    """Sends the prepared responses in order, then repeats the last one."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._peers: set[object] = set()
        self._answers: list[Answer] = []
        self._base = ""
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return self._base

    @property
    def authority(self) -> str:
        """Host and port."""
        return self._base.removeprefix("http://")

    @property
    def connections(self) -> int:
        """Number of connections used by the requests."""
        return len(self._peers)

    def answers(self, *answers: Answer) -> None:
        """Set the responses to the next requests."""
        self._answers = list(answers)

    def forget(self) -> None:
        """Clear the recorded requests and connections."""
        self.received.clear()
        self._peers.clear()

    async def start(self) -> None:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._receive)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._base = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        self._peers.add(_transport(request).get_extra_info("peername"))
        self.received.append(
            Received(request.method, request.path_qs, CIMultiDict(request.headers), await request.read())
        )
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return await answer(request)


def says(body: bytes | str, status: int = 200, content_type: str = "application/json") -> Answer:
    """Respond with these bytes."""
    content = body.encode() if isinstance(body, str) else body

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=content, content_type=content_type)

    answer.__name__ = f"{status} {content_type} {content[:30]!r}"  # pytest shows it as the id of the case
    return answer


def redirects(url: str) -> Answer:
    """Redirect to another path of a server, with the same method and body."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{url}/elsewhere"})

    return answer


class Flood:
    """Sends a response of 256 MB, with its length or in chunks, and counts what it could send."""

    def __init__(self, *, chunked: bool) -> None:
        self.sent = 0
        self._chunked = chunked

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        headers = {} if self._chunked else {"Content-Length": str(FLOOD_BYTES)}
        response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
        await response.prepare(request)
        with suppress(ConnectionError):  # the client has read enough
            for _ in range(FLOOD_BYTES // len(_PART)):
                await response.write(_PART)
                self.sent += len(_PART)
        return response


def compresses(body: bytes | str) -> Answer:
    """Respond with these bytes, compressed, although no client asks for that."""

    async def answer(_: web.Request) -> web.StreamResponse:
        content = gzip.compress(body.encode() if isinstance(body, str) else body)
        return web.Response(body=content, content_type="application/json", headers={"Content-Encoding": "gzip"})

    return answer


async def hangs(_: web.Request) -> NoReturn:
    """Read the request and never respond."""
    await _silence()


async def stalls(request: web.Request) -> NoReturn:
    """Begin a response and never end it."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"{")
    for _ in range(100):  # until the client reads it
        await asyncio.sleep(0)
    await _silence()


async def _silence() -> NoReturn:
    """Stay silent, and move the clock beyond every time limit on the same loop, so that tests need not wait."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, MovableLoop):
        loop.let_pass(LONG + 1)
    await asyncio.Event().wait()
    raise AssertionError


async def hangs_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without a response."""
    _transport(request).abort()
    return web.Response()


async def breaks_off(request: web.Request) -> web.StreamResponse:
    """Close the connection in the middle of a response."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"{")
    _transport(request).abort()
    return response


async def resets(request: web.Request) -> web.StreamResponse:
    """Send a TCP reset, as a NAT gateway does for an expired connection."""
    transport = _transport(request)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    return web.Response()


def _transport(request: web.Request) -> asyncio.Transport:
    assert isinstance(request.transport, asyncio.Transport)
    return request.transport
