"""A provider of our own on loopback, which can fail in all the ways that a real one can."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn

from aiohttp import web
from multidict import CIMultiDict

from tests.moving_clock import MovableLoop
from tests.patience import LONG

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came over the wire."""

    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes


class Provider:
    """Answers each request with the next of its answers, and the last one for good."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._peers: set[object] = set()
        self._answers: list[Answer] = []
        self._base = ""
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where the provider is: scheme, host and port."""
        return self._base

    @property
    def authority(self) -> str:
        """Host and port."""
        return self._base.removeprefix("http://")

    @property
    def connections(self) -> int:
        """How many connections the requests came over."""
        return len(self._peers)

    def answers(self, *answers: Answer) -> None:
        """Say how to answer from now on."""
        self._answers = list(answers)

    def forget(self) -> None:
        """Forget what was sent until now."""
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
    """Answer with these bytes."""
    content = body.encode() if isinstance(body, str) else body

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=content, content_type=content_type)

    answer.__name__ = f"{status} {content_type} {content[:30]!r}"  # by which pytest names a case
    return answer


async def hangs(_: web.Request) -> NoReturn:
    """Take the request and never answer."""
    await _silence()


async def stalls(request: web.Request) -> NoReturn:
    """Begin an answer and never end it."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"{")
    for _ in range(100):  # so that it is being read
        await asyncio.sleep(0)
    await _silence()


async def _silence() -> NoReturn:
    """Let more time pass than anybody on the same loop has, and be silent for good: so no limit is over before."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, MovableLoop):
        loop.let_pass(LONG + 1)
    await asyncio.Event().wait()
    raise AssertionError


async def hangs_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without a word."""
    _transport(request).abort()
    return web.Response()


async def breaks_off(request: web.Request) -> web.StreamResponse:
    """Close the connection in the middle of an answer."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"{")
    _transport(request).abort()
    return response


async def resets(request: web.Request) -> web.StreamResponse:
    """Answer with a TCP reset, as a NAT gateway does on a connection that it has forgotten."""
    transport = _transport(request)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    return web.Response()


def _transport(request: web.Request) -> asyncio.Transport:
    assert isinstance(request.transport, asyncio.Transport)
    return request.transport
