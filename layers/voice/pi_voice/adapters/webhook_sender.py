"""Requests that deliver events to webhook endpoints, each on a connection of its own."""

import asyncio
import io
import ssl
import time
from typing import Final

import aiohttp

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
from pi_voice.domain.webhook_deliveries import TRY_SECONDS
from pi_voice.domain.webhook_urls import UrlPolicy, check_url
from pi_voice.ports import SendError, Sent, SignedRequest

MAX_RESPONSE_BYTES: Final = 1_024
"""Maximum size of a response that is read."""


class WebhookSender:
    """Sends signed requests to webhook endpoints, each on a connection of its own."""

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

    async def send(self, request: SignedRequest) -> Sent:
        """Send one request within TRY_SECONDS, and read at most MAX_RESPONSE_BYTES of its response.

        Redirects are not followed. Never raises because of the receiver.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        status: int | None = None
        error: SendError | None
        response = bytearray()
        try:
            check_url(request.url, self._policy)
            async with (
                asyncio.timeout(TRY_SECONDS),
                self._session() as session,
                session.post(
                    request.url,
                    data=io.BytesIO(request.body),
                    headers=signed_headers(request, self._clock()),
                    allow_redirects=False,
                ) as answer,
            ):
                status = answer.status
                error = error_of(status)
                async for part in answer.content.iter_any():
                    response += part
                    if len(response) >= MAX_RESPONSE_BYTES:
                        break
                answer.close()  # the rest is not read, and the connection is not used again
        except InvalidRequest:
            error = "address_refused"
        except RECEIVER_ERRORS as failure:
            # A response is one from its status on, even if the receiver does not end it.
            error = error_of(status) if status is not None else code_of(failure)
        milliseconds = round((loop.time() - started) * 1000)
        return Sent(status, milliseconds, error, bytes(response[:MAX_RESPONSE_BYTES]))

    def _session(self) -> aiohttp.ClientSession:
        return session_on(
            aiohttp.TCPConnector(
                resolver=self._resolver, use_dns_cache=False, force_close=True, limit=1, ssl=self._tls or True
            )
        )
