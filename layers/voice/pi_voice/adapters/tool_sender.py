"""Tool calls to webhook endpoints, on connections that stay open between the requests of one container."""

import asyncio
import ssl
import time
from typing import Any, Final

import aiohttp

from pi_voice.adapters.http_client import DEAD_CONNECTION
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
from pi_voice.ports import Sent, SignedRequest

IDLE_SECONDS: Final = 50.0
"""How long an idle connection is used again. Many servers and NAT gateways drop one after 60 s."""

MAX_CONNECTIONS: Final = 8
"""Maximum number of open connections."""


class _ResponseTooLarge(Exception):
    """The receiver sent more than MAX_RESPONSE_BYTES."""


class _Response:
    """What was read of a response."""

    status: int | None = None
    body: bytes = b""
    """Empty until all of it was read."""
    is_on_used_connection = False
    """Whether the connection had been idle."""


class ToolSender:
    """Sends tool calls. A connection stays open for the next call; each new one looks the host up again."""

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
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: SignedRequest, seconds: float) -> Sent:
        """Send one request, and read its whole response, at most MAX_RESPONSE_BYTES, within a time in seconds.

        If the connection had been idle and is closed before there is a status, the request is sent once more: receivers
        are idempotent by `webhook-id`. Redirects are not followed. Never raises because of the receiver.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        response = _Response()
        try:
            check_url(request.url, self._policy)
            async with asyncio.timeout(seconds):
                try:
                    await self._exchange(request, response)
                except DEAD_CONNECTION:
                    if response.status is not None or not response.is_on_used_connection:
                        raise
                    await self.close()  # the others are as old; a function sends one request at a time
                    await self._exchange(request, response)
            error = error_of(response.status or 0)
        except InvalidRequest:
            error = "address_refused"
        except _ResponseTooLarge:
            error = "response_too_large"
        except RECEIVER_ERRORS as failure:
            error = code_of(failure)
        return Sent(response.status, round((loop.time() - started) * 1000), error, response.body)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _exchange(self, request: SignedRequest, response: _Response) -> None:
        """Send a request and read its response; a connection whose response was not read to its end is closed."""
        if self._session is None:  # it needs a running event loop
            connector = aiohttp.TCPConnector(
                resolver=self._resolver,
                use_dns_cache=False,
                keepalive_timeout=IDLE_SECONDS,
                limit=MAX_CONNECTIONS,
                ssl=self._tls or True,
            )
            self._session = session_on(connector, _noting_used_connections())
        headers, body = signed_headers(request, self._clock()), bytearray()
        async with self._session.post(
            request.url, data=request.body, headers=headers, allow_redirects=False, trace_request_ctx=response
        ) as answer:
            response.status = answer.status
            async for part in answer.content.iter_any():
                body += part
                if len(body) > MAX_RESPONSE_BYTES:
                    answer.close()
                    raise _ResponseTooLarge
        response.body = bytes(body)


def _noting_used_connections() -> aiohttp.TraceConfig:
    """Note in the response of a request if its connection had been idle."""
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_used_connection)
    return trace


async def _note_used_connection(_session: object, context: Any, _parameters: object) -> None:
    context.trace_request_ctx.is_on_used_connection = True
