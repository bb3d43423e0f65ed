"""Which hosts are this machine.

Web pages can reach servers on loopback: with requests across sites, which carry the page's Origin, and by DNS
rebinding, with the page's own name as Host. This module uses the standard library only.
"""

import ipaddress
from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Return whether a URL's host is a loopback address, localhost, or a name under localhost."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_local(host: str, origin: str | None) -> bool:
    """Return whether a request names this machine as its Host, and was not sent by a page of another site."""
    return is_loopback(f"//{host}") and (origin is None or is_loopback(origin))
