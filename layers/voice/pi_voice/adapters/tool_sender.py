"""Requests to the endpoints of server tools, on connections that stay open between the requests of one container."""

import asyncio
import functools
import ssl
import time
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from pi_voice.adapters.webhook_requests import (
    RECEIVER_ERRORS,
    PermittedAddresses,
    code_of,
    error_of,
    session_on,
    signed_headers,
)
from pi_voice.adapters.webhook_targets import Lookup, system_lookup
from pi_voice.domain.errors import InvalidRequest
from pi_voice.domain.ids import Clock
from pi_voice.domain.tool_calls import MAX_RESPONSE_BYTES
from pi_voice.domain.webhook_urls import UrlPolicy, check_url
from pi_voice.ports import SendError, Sent, SignedRequest

IDLE_SECONDS: Final = 50.0
"""How long an idle connection may be used again. Many servers and NAT gateways drop one after 60 s."""

MAX_IDLE: Final = 8
"""Maximum number of idle connections."""


class _ResponseTooLarge(Exception):
    """The receiver sent more than MAX_RESPONSE_BYTES."""


@dataclass
class _Response:
    """What has been read of a response."""

    status: int | None = None
    body: bytes = b""
    """Empty until all of it was read."""


class ToolSender:
    """Sends signed requests to the endpoints of server tools.

    A connection stays open for the next request to the same scheme, host and port. Each new one looks the host up anew
    and is made to a permitted address only.
    """

    def __init__(
        self,
        policy: UrlPolicy,
        lookup: Lookup = system_lookup,
        *,
        tls: ssl.SSLContext | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._policy = policy
        self._resolver = PermittedAddresses(policy, lookup)
        self._tls = tls
        self._clock = clock
        self._idle: list[_Connection] = []
        """Idle connections, of which the last one was used last."""

    async def send(self, request: SignedRequest, seconds: float) -> Sent:
        """Send one request within `seconds`, and read its whole response, at most MAX_RESPONSE_BYTES.

        If an idle connection turns out to be closed before any byte of a response, the request is sent once more, on a
        new connection: receivers are idempotent by `webhook-id`. Redirects are not followed. Never raises because of
        the receiver.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        response = _Response()
        error: SendError | None
        try:
            check_url(request.url, self._policy)
            async with asyncio.timeout(seconds):
                status = await self._exchange(request, response)
            error = error_of(status)
        except InvalidRequest:
            error = "address_refused"
        except _ResponseTooLarge:
            error = "response_too_large"
        except RECEIVER_ERRORS as failure:
            error = code_of(failure)
        return Sent(response.status, round((loop.time() - started) * 1000), error, response.body)

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().close()

    async def _exchange(self, request: SignedRequest, response: _Response) -> int:
        """Send a request, and once more if its connection was closed while it was idle; return the status."""
        origin = URL(request.url).origin()
        await self._close_unusable()
        for connection in reversed(self._idle):
            if connection.origin == origin:
                self._idle.remove(connection)
                try:
                    return await self._send_on(connection, request, response)
                except aiohttp.ClientConnectionError:
                    if connection.has_received:
                        raise
                break
        return await self._send_on(_Connection(origin, self._resolver, self._tls), request, response)

    async def _send_on(self, connection: "_Connection", request: SignedRequest, response: _Response) -> int:
        """Send a request on a connection, which is idle afterwards if the whole response was read, else closed."""
        try:
            status = await connection.send(request, signed_headers(request, self._clock()), response)
        except BaseException:
            await connection.close()
            raise
        self._idle.append(connection)
        for surplus in self._idle[:-MAX_IDLE]:
            surplus.abort()
        return status

    async def _close_unusable(self) -> None:
        while unusable := next((each for each in self._idle if not each.is_usable), None):
            self._idle.remove(unusable)
            await unusable.close()


class _Connection:
    """A connection to one origin."""

    def __init__(self, origin: URL, resolver: PermittedAddresses, tls: ssl.SSLContext | None) -> None:
        self.origin = origin
        self._loop = asyncio.get_running_loop()
        self._connector = _Connector(resolver, tls)
        self._session = session_on(self._connector)
        self._used_at = self._loop.time()

    @property
    def is_usable(self) -> bool:
        """Whether it is open, nothing has arrived that was not asked for, and it was not idle for too long."""
        protocol = self._connector.protocol
        return (
            protocol is not None
            and protocol.is_connected()
            and not protocol.should_close
            and self._loop.time() - self._used_at <= IDLE_SECONDS
        )

    @property
    def has_received(self) -> bool:
        """Whether a byte has arrived since the last request."""
        return self._connector.protocol is not None and self._connector.protocol.has_received

    async def send(self, request: SignedRequest, headers: dict[str, str], response: _Response) -> int:
        """Send a request, read its whole response, and return its status."""
        if self._connector.protocol is not None:
            self._connector.protocol.has_received = False
        body = bytearray()
        async with self._session.post(request.url, data=request.body, headers=headers, allow_redirects=False) as answer:
            response.status = answer.status
            async for part in answer.content.iter_any():
                body += part
                if len(body) > MAX_RESPONSE_BYTES:
                    raise _ResponseTooLarge
        response.body = bytes(body)
        self._used_at = self._loop.time()
        return answer.status

    def abort(self) -> None:
        """Close at once, even if the receiver has not read the whole request."""
        if self._connector.protocol is not None:
            self._connector.protocol.abort()

    async def close(self) -> None:
        """Close at once, and free what belongs to the connection."""
        self.abort()
        await self._session.close()


class _Connector(aiohttp.TCPConnector):
    """Connector of one connection, with access to its protocol."""

    def __init__(self, resolver: PermittedAddresses, tls: ssl.SSLContext | None) -> None:
        super().__init__(resolver=resolver, use_dns_cache=False, limit=1, keepalive_timeout=None, ssl=tls or True)
        self.protocol: _Protocol | None = None
        self._factory = functools.partial(self._new_protocol)

    def _new_protocol(self) -> ResponseHandler:
        self.protocol = _Protocol(self._loop)
        return self.protocol


class _Protocol(ResponseHandler):
    """Protocol of a connection, with what aiohttp does not say about it."""

    has_received = False
    """Whether a byte has arrived since this was last set to False."""

    def data_received(self, data: bytes) -> None:
        self.has_received = self.has_received or bool(data)  # without data, aiohttp resumes its parser
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None and self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(exc)  # aiohttp takes a body without length for complete even then
        super().connection_lost(exc)
