"""URLs that outgoing webhooks may be sent to: https, a public address, no credentials.

The pattern is stricter than any URL parser, so that no two parsers can read different hosts from one URL. Which
addresses are public does not depend on the version of Python.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NoReturn

from pi_voice.domain.errors import ErrorDetail, InvalidRequest

MAX_URL_CHARACTERS: Final = 2_048
DEFAULT_PORTS: Final = frozenset({443, 8443})
_HTTPS_PORT: Final = 443
_HTTP_PORT: Final = 80
_HIGHEST_PORT: Final = 65_535
_MAX_HOST_CHARACTERS: Final = 253

Address = IPv4Address | IPv6Address

_NOT_PUBLIC_V4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # "this" network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by the customers of a provider, and metadata of one cloud
            "127.0.0.0/8",  # loopback, where Lambda's runtime API listens
            "168.63.129.16/32",  # metadata of one cloud
            "169.254.0.0/16",  # link-local, and metadata of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)

_UNICAST_V6: Final = IPv6Network("2000::/3")
"""The only block that global unicast addresses are assigned from.

Outside of it are loopback, IPv4-mapped and IPv4-compatible addresses, NAT64, unique local, link-local, site-local and
multicast addresses.
"""

_NOT_PUBLIC_V6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which contains an IPv4 address
            "3ffe::/16",  # the former test network
            "3fff::/20",  # documentation
        ),
    )
)

_LOCAL_NAMES: Final = ("localhost", "localdomain", "local", "internal", "home.arpa")
"""Domains that are resolved by the machine or by its own network."""

_URL: Final = re.compile(
    r"""
    (?P<scheme>https?)://
    (?P<host>\[[0-9a-f:.]+\]|[0-9a-z.-]+)
    (?::(?P<port>[0-9]{1,5}))?
    (?:[/?][^\#\\]*)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_VISIBLE: Final = re.compile(r"[!-~]+")
_LABEL: Final = re.compile(r"[0-9a-z](?:[0-9a-z-]{0,61}[0-9a-z])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label that URL parsers and resolvers read as part of an IPv4 address, in decimal, octal or hexadecimal."""


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What a deployment accepts as the URL of a webhook."""

    ports: frozenset[int] = DEFAULT_PORTS
    """Ports that a URL may name."""
    hosts: tuple[str, ...] = ()
    """Hosts that a URL may name, in lowercase; `*.example.com` stands for all below example.com. Empty: any."""
    allows_loopback: bool = False
    """Whether loopback addresses are accepted, by http and on any port. Only for development on one machine."""

    def permits(self, address: str | Address) -> bool:
        """Return whether a request may be sent to an address."""
        return is_public(address) or (self.allows_loopback and _is_loopback(address))

    def lists(self, host: str) -> bool:
        """Return whether a host is one of those that a URL may name."""
        return not self.hosts or any(
            host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern for pattern in self.hosts
        )


def is_public(address: str | Address) -> bool:
    """Return whether an address is a unicast address of the public internet; False for a text that is no address."""
    match _parsed(address):
        case IPv4Address() as v4:
            return not any(v4 in network for network in _NOT_PUBLIC_V4)
        case IPv6Address(scope_id=None) as v6:
            return v6 in _UNICAST_V6 and not any(v6 in network for network in _NOT_PUBLIC_V6)
    return False


def check_url(url: str, policy: UrlPolicy) -> None:
    """Check the URL of a webhook as far as that takes no request; raises InvalidRequest with the path `url`."""
    if len(url) > MAX_URL_CHARACTERS:
        _refuse(f"Has more than {MAX_URL_CHARACTERS:,} characters.")
    if not _VISIBLE.fullmatch(url):
        _refuse(
            "Contains a space or a character outside of ASCII. Write a host with such letters as xn--, and encode "
            "others with %."
        )
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("https", "http"):
        _refuse("Should begin with https://.")
    if "#" in rest:
        _refuse("Has a fragment, which is never sent. Remove the # and what follows.")
    if "@" in re.split(r"[/?\\]", rest, maxsplit=1)[0]:
        _refuse("Contains a user name or password. Remove it: the signature proves who sends.")
    parts = _URL.fullmatch(url)
    if parts is None:
        _refuse("Is not a valid URL. Write https://, a host name, and a path.")
    host = parts["host"].lower()
    is_loopback = policy.allows_loopback and (host == "localhost" or _is_loopback(host.strip("[]")))
    if not is_loopback:
        if scheme.lower() != "https":
            _refuse("Should begin with https://.")
        _check_host(host)
    if not policy.lists(host):
        _refuse("Names a host that this deployment does not send to. Ask your operator to add it.")
    default_port = _HTTPS_PORT if scheme.lower() == "https" else _HTTP_PORT
    _check_port(int(parts["port"]) if parts["port"] else default_port, policy.ports, is_loopback=is_loopback)


def _check_host(host: str) -> None:
    """Check that a host is a name with a domain, or a public address in its usual notation."""
    if host.startswith("["):
        if not is_public(host[1:-1]):
            _refuse("Names an address that is not public.")
        return
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1] or labels[-2 if len(labels) > 1 else -1]):
        if _parsed(host) is None:
            _refuse("Names an IPv4 address in an unusual notation. Write four decimal numbers.")
        if not is_public(host):
            _refuse("Names an address that is not public.")
        return
    if len(host) > _MAX_HOST_CHARACTERS or not all(map(_LABEL.fullmatch, labels)):
        _refuse("Is not a valid URL: its host is no host name. Write it without a dot at its end.")
    if len(labels) == 1 or any(host == name or host.endswith(f".{name}") for name in _LOCAL_NAMES):
        _refuse("Names a host of a local network. Use one that is reachable from the internet.")


def _check_port(port: int, ports: frozenset[int], *, is_loopback: bool) -> None:
    """Check a port; on loopback addresses, any is accepted."""
    if is_loopback:
        if not 0 < port <= _HIGHEST_PORT:
            _refuse("Names a port that does not exist.")
    elif port not in ports:
        _refuse(f"Names a port that this deployment does not send to. It sends to {_listed(ports)}.")


def _listed(ports: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(ports)))


def _parsed(address: str | Address) -> Address | None:
    if not isinstance(address, str):
        return address
    try:
        return ip_address(address)
    except ValueError:
        return None


def _is_loopback(address: str | Address) -> bool:
    parsed = _parsed(address)
    return parsed is not None and (
        parsed in _LOOPBACK_V4 if isinstance(parsed, IPv4Address) else parsed == _LOOPBACK_V6
    )


_LOOPBACK_V4: Final = IPv4Network("127.0.0.0/8")
_LOOPBACK_V6: Final = IPv6Address("::1")


def _refuse(message: str) -> NoReturn:
    raise InvalidRequest(details=[ErrorDetail("url", message)])
