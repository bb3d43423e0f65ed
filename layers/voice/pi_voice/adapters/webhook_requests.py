"""What all requests to webhook endpoints have in common: permitted addresses, signatures and codes of failures.

The address that is checked is the one that is connected to: the resolver returns only permitted addresses, and a
literal address is checked with its URL, because aiohttp does not ask the resolver for it (docs/adr/0040).
"""

import socket
import ssl
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook

from pi_voice.adapters.webhook_targets import AddressRefused, Lookup, permitted_addresses
from pi_voice.domain.webhook_urls import UrlPolicy
from pi_voice.ports import SendError, SignedRequest

RECEIVER_ERRORS: Final = (aiohttp.ClientError, OSError, ValueError)
"""What a request raises because of its receiver; `code_of` names it."""

_USER_AGENT: Final = "pi-voice/1"


class PermittedAddresses(AbstractResolver):
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


def session_on(connector: aiohttp.TCPConnector, *traces: aiohttp.TraceConfig) -> aiohttp.ClientSession:
    """Create a session that uses no cookies, proxies, credentials or compression. The senders set time limits."""
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),  # the time limit includes lookup and closing
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,  # no proxy and no netrc
        auto_decompress=False,
        trace_configs=[*traces],
    )


def signed_headers(request: SignedRequest, now: float) -> dict[str, str]:
    """Return the headers of a request that is sent now, with a signature by each secret."""
    sent_at = datetime.fromtimestamp(int(now), UTC)
    signatures = [Webhook(secret).sign(request.event_id, sent_at, request.body.decode()) for secret in request.secrets]
    return {
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": _USER_AGENT,
        "webhook-id": request.event_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(signatures),
    }


def error_of(status: int) -> SendError | None:
    """Return the error of a response by its status."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    return "redirected" if status < HTTPStatus.BAD_REQUEST and status >= HTTPStatus.MULTIPLE_CHOICES else "http_error"


def code_of(failure: Exception) -> SendError:
    """Return the code of a failure that is one of RECEIVER_ERRORS."""
    cause = failure.os_error if isinstance(failure, aiohttp.ClientConnectorError) else failure
    match cause:
        case AddressRefused():
            return "address_refused"
        case TimeoutError():
            return "timeout"
        case ssl.SSLError() | ssl.CertificateError() | aiohttp.ClientSSLError():
            return "tls_failed"
    return "tls_failed" if isinstance(failure, aiohttp.ClientSSLError) else "connection_failed"
