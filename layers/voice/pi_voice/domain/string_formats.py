"""Formats of JSON Schema that results are validated against, and how each is described to the model.

The patterns run on Python's `re`: none of them has a repetition inside a repetition that could match the same text.
"""

import re
from collections.abc import Callable
from datetime import date
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

_MINUTES_OF_DAY: Final = 1_440
_LAST_MINUTE: Final = 1_439
_LEAP_SECOND: Final = 60
_MAX_HOST_CHARACTERS: Final = 253
_MAX_MAILBOX_CHARACTERS: Final = 64

_TIME: Final = (
    r"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9]|60)(?:\.[0-9]+)?"
    r"(?:[zZ]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_QUOTED: Final = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_PERCENT: Final = "%[0-9A-Fa-f]{2}"
_POINTER: Final = r"(?:/(?:[^~/]|~[01])*)*"
_VARIABLE: Final = rf"(?:[A-Za-z0-9_]|{_PERCENT})(?:\.?(?:[A-Za-z0-9_]|{_PERCENT}))*(?::[1-9][0-9]{{0,3}}|\*)?"


def _uri(letters: str, *, scheme: str) -> str:
    """Return a pattern of RFC 3986 for the letters that are allowed unescaped."""
    plain = rf"{letters}\-._~!$&'()*+,;="
    segment = rf"(?:[{plain}:@]|{_PERCENT})"
    host = rf"(?:\[(?P<ip>[0-9A-Fa-f:.]+|v[0-9A-Fa-f]+\.[{plain}:]+)\]|(?:[{plain}]|{_PERCENT})*)"
    authority = rf"//(?:(?:[{plain}:]|{_PERCENT})*@)?{host}(?::[0-9]*)?(?:/{segment}*)*"
    first = "" if scheme else "(?![^/?#]*:)"  # the first segment of a relative reference has no colon
    path = rf"(?:{authority}|{first}(?!//){segment}*(?:/{segment}*)*)"
    return rf"{scheme}{path}(?:\?(?:{segment}|[/?])*)?(?:#(?:{segment}|[/?])*)?"


_SCHEME: Final = "[A-Za-z][A-Za-z0-9+.-]*:"
_ASCII: Final = "A-Za-z0-9"
_UNICODE: Final = "A-Za-z0-9\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef\U00010000-\U000efffd"
_PATTERNS: Final = {
    "date": "[0-9]{4}-[0-9]{2}-[0-9]{2}",
    "time": _TIME,
    "duration": (
        r"P(?!$)(?:[0-9]+W|(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)?"
        r"(?:T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S))?)"
    ),
    "hostname": rf"{_LABEL}(?:\.{_LABEL})*",
    "uuid": "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "json-pointer": _POINTER,
    "relative-json-pointer": rf"(?:0|[1-9][0-9]*)(?:#|{_POINTER})",
    "uri-template": (
        rf"(?:[^\x00-\x20\"'%<>\\^`{{|}}\x7f]|{_PERCENT}|"
        rf"\{{[+#./;?&=,!@|]?{_VARIABLE}(?:,{_VARIABLE})*\}})*"
    ),
}
_ADDRESSES: Final = {
    "uri": (_ASCII, _SCHEME),
    "uri-reference": (_ASCII, f"(?:{_SCHEME})?"),
    "iri": (_UNICODE, _SCHEME),
    "iri-reference": (_UNICODE, f"(?:{_SCHEME})?"),
}


@cache
def _pattern(schema_format: str) -> re.Pattern[str]:
    if schema_format not in _ADDRESSES:
        return re.compile(_PATTERNS[schema_format])
    letters, scheme = _ADDRESSES[schema_format]
    pattern = _uri(letters, scheme=_SCHEME)
    if scheme != _SCHEME:
        pattern = f"{pattern}|{_uri(letters, scheme='').replace('?P<ip>', '?P<ip2>')}"
    return re.compile(pattern)


def _is_date(text: str) -> bool:
    if not _pattern("date").fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_time(text: str) -> bool:
    if not (match := _pattern("time").fullmatch(text)):
        return False
    hour, minute, second, sign, offset_hour, offset_minute = match.groups()
    if int(second) < _LEAP_SECOND:
        return True
    offset = (int(offset_hour) * 60 + int(offset_minute)) * (1 if sign == "+" else -1) if sign else 0
    return (int(hour) * 60 + int(minute) - offset) % _MINUTES_OF_DAY == _LAST_MINUTE


def _is_date_time(text: str) -> bool:
    return text[10:11] in ("T", "t") and _is_date(text[:10]) and _is_time(text[11:])


def _is_hostname(text: str) -> bool:
    if len(text) > _MAX_HOST_CHARACTERS or not _pattern("hostname").fullmatch(text):
        return False
    labels = text.lower().split(".")
    return all(label.startswith("xn--") is (label[2:4] == "--") for label in labels) and (
        _is_idn_hostname(text) if any(label.startswith("xn--") for label in labels) else True
    )


def _is_idn_hostname(text: str) -> bool:
    import idna  # noqa: PLC0415 (only for hostnames in other scripts)

    try:
        idna.encode(text, strict=False)
    except (idna.IDNAError, UnicodeError):
        return False
    return not text.endswith(".")


def _is_email(text: str, letters: str = "", *, is_host: Callable[[str], bool] = _is_hostname) -> bool:
    local, at, host = text.rpartition("@")
    if not at or len(local) > _MAX_MAILBOX_CHARACTERS:
        return False
    atom = _ATOM.replace("-]+", f"{letters}-]+")
    quoted = _QUOTED.replace("[ !", f"[{letters} !")
    if not re.fullmatch(rf"{atom}(?:\.{atom})*|{quoted}", local):
        return False
    if host.startswith("[") and host.endswith("]"):
        inner = host[1:-1]
        return _is_ipv6(inner[5:]) if inner.lower().startswith("ipv6:") else _is_ipv4(inner)
    return is_host(host)


def _is_idn_email(text: str) -> bool:
    return _is_email(text, "\u0080-\U0010ffff", is_host=_is_idn_hostname)


def _is_ipv4(text: str) -> bool:
    return bool(re.fullmatch("[0-9.]+", text)) and _is_address(IPv4Address, text)


def _is_ipv6(text: str) -> bool:
    return "%" not in text and _is_address(IPv6Address, text)


def _is_address(address: type[IPv4Address | IPv6Address], text: str) -> bool:
    try:
        address(text)
    except ValueError:
        return False
    return True


def _matches(schema_format: str) -> Callable[[str], bool]:
    def is_match(text: str) -> bool:
        match = _pattern(schema_format).fullmatch(text)
        if match is None:
            return False
        address = match.groupdict().get("ip") or match.groupdict().get("ip2")
        return address is None or address[0] in "vV" or _is_ipv6(address)

    return is_match


CHECKS: Final[dict[str, Callable[[str], bool]]] = {
    "date-time": _is_date_time,
    "date": _is_date,
    "time": _is_time,
    "email": _is_email,
    "idn-email": _is_idn_email,
    "hostname": _is_hostname,
    "idn-hostname": _is_idn_hostname,
    "ipv4": _is_ipv4,
    "ipv6": _is_ipv6,
    **{
        name: _matches(name)
        for name in ("duration", "uuid", "json-pointer", "relative-json-pointer", "uri-template", *_ADDRESSES)
    },
}
"""Checks of the formats that are held. Any other format is described to the model and not held."""

WITH_OFFSET: Final = frozenset({"date-time", "time"})
"""Formats that a `pattern` beside them overrides: generators write these for local times, which have no offset."""

WORDS: Final = {
    "date-time": "a date and time with the offset, as in 2026-05-01T19:30:00+02:00",
    "date": "a date, as in 2026-05-01",
    "time": "a time with the offset, as in 19:30:00+02:00",
    "duration": "a duration, as in PT1H30M",
    "email": "an email address, as in ana@example.com",
    "idn-email": "an email address, as in ana@example.com",
    "hostname": "a host name, as in www.example.com",
    "idn-hostname": "a host name, as in www.example.com",
    "ipv4": "an IPv4 address, as in 192.0.2.1",
    "ipv6": "an IPv6 address, as in 2001:db8::1",
    "uri": "a URI, as in https://example.com/page",
    "iri": "a URI, as in https://example.com/page",
    "uuid": "a UUID, as in 0190a6b4-7d4e-7c3b-9f0e-2b6f4f6a1c3d",
}
"""Descriptions of formats, each with an example."""


def words_for(schema_format: str) -> str:
    """Describe a format for the model."""
    return WORDS.get(schema_format, f"format {schema_format}")


def lacks_offset(schema_format: str, text: str) -> bool:
    """Return whether a time would be in its format with an offset at its end."""
    return schema_format in WITH_OFFSET and CHECKS[schema_format](f"{text}Z")
