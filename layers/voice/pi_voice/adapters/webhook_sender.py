"""Requests to webhook endpoints: signed as Standard Webhooks say, and only to addresses that are permitted.

The address that is checked is the one that is connected to: the resolver returns only permitted addresses, and a
literal address is checked with its URL, because aiohttp does not ask the resolver for it (docs/adr/0040).
"""

import asyncio
import io
import socket
import ssl
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook

from pi_voice.adapters.webhook_targets import AddressRefused, Lookup, permitted_addresses, system_lookup
from pi_voice.domain.errors import InvalidRequest
from pi_voice.domain.ids import Clock
from pi_voice.domain.webhook_deliveries import TRY_SECONDS
from pi_voice.domain.webhook_urls import UrlPolicy, check_url
from pi_voice.ports import SendError, Sent, SignedRequest

MAX_RESPONSE_BYTES: Final = 1_024
"""Maximum size of a response that is read."""

_USER_AGENT: Final = "pi-voice/1"


class _PermittedAddresses(AbstractResolver):
    """Resolver that returns only addresses that a request may be sent to."""

    def __init__(self, policy: UrlPolicy, lookup: Lookup) -> None:
        self._policy = policy
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the permitted addresses of a host; raises AddressRefused, OSError and TimeoutError."""
        del family  # both
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await permitted_addresses(host, port, self._policy, self._lookup)
        ]

    async def close(self) -> None:
        """Do nothing: a lookup leaves nothing open."""


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
        self._resolver = _PermittedAddresses(policy, lookup)
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
                    request.url, data=io.BytesIO(request.body), headers=self._headers(request), allow_redirects=False
                ) as answer,
            ):
                status = answer.status
                error = _error_of(status)
                async for part in answer.content.iter_any():
                    response += part
                    if len(response) >= MAX_RESPONSE_BYTES:
                        break
                answer.close()  # the rest is not read, and the connection is not used again
        except InvalidRequest:
            error = "address_refused"
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            # A response is one from its status on, even if the receiver does not end it.
            error = _error_of(status) if status is not None else _code_of(failure)
        milliseconds = round((loop.time() - started) * 1000)
        return Sent(status, milliseconds, error, bytes(response[:MAX_RESPONSE_BYTES]))

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,
            force_close=True,
            limit=1,
            ssl=self._tls or True,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),  # the time limit includes lookup and closing
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # no proxy and no netrc
            auto_decompress=False,
        )

    def _headers(self, request: SignedRequest) -> dict[str, str]:
        """Return the headers, with a signature by each secret."""
        sent_at = datetime.fromtimestamp(int(self._clock()), UTC)
        signatures = [
            Webhook(secret).sign(request.event_id, sent_at, request.body.decode()) for secret in request.secrets
        ]
        return {
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
            "webhook-id": request.event_id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": " ".join(signatures),
        }


def _error_of(status: int) -> SendError | None:
    """Return the error of a response by its status."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    return "redirected" if status < HTTPStatus.BAD_REQUEST and status >= HTTPStatus.MULTIPLE_CHOICES else "http_error"


def _code_of(failure: Exception) -> SendError:
    """Return the code of a failure without a response."""
    cause = failure.os_error if isinstance(failure, aiohttp.ClientConnectorError) else failure
    match cause:
        case AddressRefused():
            return "address_refused"
        case TimeoutError():
            return "timeout"
        case ssl.SSLError() | ssl.CertificateError() | aiohttp.ClientSSLError():
            return "tls_failed"
    return "tls_failed" if isinstance(failure, aiohttp.ClientSSLError) else "connection_failed"
