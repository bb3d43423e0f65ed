"""What tests of the senders of signed requests share: requests, lookups, and servers that write what they want."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from pi_voice.adapters.webhook_targets import Lookup
from pi_voice.domain.webhook_urls import UrlPolicy
from pi_voice.ports import SignedRequest
from tests.support.moving_clock import MovableLoop

LOCAL: Final = UrlPolicy(allows_loopback=True)
ANY_PORT: Final = UrlPolicy(allows_loopback=True, ports=frozenset(range(1, 65_536)))
"""Permits loopback addresses for hosts that are not local by their names, too."""

BODY: Final = json.dumps({"type": "endpoint.test", "timestamp": 1_800_000_000, "data": {"said": "für 4 ☎"}}).encode()
EVENT_ID: Final = "019a0000-0000-7000-8000-0000000000f1"
SECRET: Final = "whsec_" + "c2VjcmV0" * 5
PREVIOUS: Final = "whsec_" + "b2xkb2xk" * 5

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawServers(Protocol):
    """Starts a server on loopback that does this with each connection, and returns its URL."""

    def __call__(self, serve: Serve, tls: ssl.SSLContext | None = None) -> str: ...


Action = bytes | Callable[[asyncio.StreamWriter], None]
"""What a server does when it has read a request: write this, or do something else with the connection."""


def request_to(url: str, *secrets: str) -> SignedRequest:
    return SignedRequest(url, EVENT_ID, BODY, secrets or (SECRET,))


def finding(*answers: str) -> tuple[Lookup, list[str]]:
    """Make a lookup that finds a list of addresses each time, and record what it was asked for."""
    left, asked = list(answers), []

    async def lookup(host: str, _: int) -> list[str]:
        asked.append(host)
        return left.pop(0).split() if len(left) > 1 else left[0].split()

    return lookup, asked


def let_pass(seconds: float) -> None:
    """Advance the clock of the running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MovableLoop)
    loop.let_pass(seconds)


class Scripted:
    """A server that does one thing for each request of a connection; the last connection's script is repeated."""

    def __init__(self, *scripts: Sequence[Action]) -> None:
        self.requests: list[tuple[int, bytes]] = []
        """The number of its connection, and the head of each request."""
        self.open: set[int] = set()
        """The numbers of the connections that the client has not closed."""
        self._scripts = scripts
        self._connections = 0

    @property
    def used(self) -> list[int]:
        """The connection of each request."""
        return [number for number, _ in self.requests]

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self._connections
        self._connections += 1
        self.open.add(number)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            for action in self._scripts[min(number, len(self._scripts) - 1)]:
                self.requests.append((number, await reader.readuntil(BODY)))
                if isinstance(action, bytes):
                    writer.write(action)
                    await writer.drain()
                else:
                    action(writer)
            await reader.read()
        self.open.discard(number)


class RawServing:
    """Servers on loopback that write what they want."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self, serve: Serve, tls: ssl.SSLContext | None = None) -> str:
        """Start a server, and return its URL."""

        async def safely(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._serving.add(task)
            try:
                with suppress(ConnectionError, asyncio.CancelledError):
                    await serve(reader, writer)
            finally:
                if writer.transport.get_write_buffer_size():
                    writer.transport.abort()
                writer.close()

        server = await asyncio.start_server(safely, "127.0.0.1", 0, ssl=tls)
        self._servers.append(server)
        return f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving)
