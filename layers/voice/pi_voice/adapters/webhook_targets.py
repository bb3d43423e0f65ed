"""The lookup of the hosts of webhooks, which returns only addresses that a request may be sent to.

It is the system's own resolver. Without aiohttp, because the functions that store URLs do not send anything.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn
from urllib.parse import urlsplit

from pi_voice.domain.errors import ErrorDetail, InvalidRequest
from pi_voice.domain.webhook_urls import UrlPolicy, check_url

LOOKUP_SECONDS: Final = 3.0
"""Time limit of a lookup."""

MAX_ADDRESSES: Final = 8
"""Maximum number of addresses of a host that are used."""

Lookup = Callable[[str, int], Awaitable[list[str]]]
"""Returns the addresses of a host and port; raises OSError."""


class AddressRefused(OSError):
    """A host has addresses, but none that a request may be sent to."""


async def system_lookup(host: str, port: int) -> list[str]:
    """Return the addresses of a host by the system's resolver; raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def permitted_addresses(host: str, port: int, policy: UrlPolicy, lookup: Lookup) -> list[str]:
    """Return the addresses of a host that a request may be sent to, at least one, without repetitions.

    Raises AddressRefused if there are others only, OSError if there are none, and TimeoutError.
    """
    async with asyncio.timeout(LOOKUP_SECONDS):
        found = list(dict.fromkeys(await lookup(host, port)))
    if not found:
        raise OSError
    permitted = [address for address in found if policy.permits(address)][:MAX_ADDRESSES]
    if not permitted:
        raise AddressRefused
    return permitted


class WebhookTargets:
    """The check of a webhook's URL before it is stored. The sender checks again, each time it connects."""

    def __init__(self, policy: UrlPolicy, lookup: Lookup = system_lookup) -> None:
        self._policy = policy
        self._lookup = lookup

    async def check(self, url: str) -> None:
        """Check a URL and the addresses of its host, within 3 s; raises InvalidRequest."""
        check_url(url, self._policy)
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        if self._policy.permits(host):  # a literal address, which `check_url` has checked
            return
        try:
            await permitted_addresses(host, port, self._policy, self._lookup)
        except AddressRefused:
            _refuse("Names a host whose address is not public.")
        except TimeoutError:
            _refuse("Names a host that was not found in time. Check its name and try again.")
        except (OSError, UnicodeError):
            _refuse("Names a host that is not found. Check its name.")


def _refuse(message: str) -> NoReturn:
    raise InvalidRequest(details=[ErrorDetail("url", message)]) from None
