"""JSON text: its limits, checked before it is parsed because parsed values take far more memory, and its lines."""

import json
import re
from typing import Final

from pi_voice.domain.errors import InvalidRequest, RequestTooLarge

BYTES_PER_VALUE: Final = 64
"""A body may have one value for each 64 bytes of its route's limit, twice what the longest valid transcript needs."""

_LINE_BREAKS: Final = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""Line separators that JSON does not escape."""

_MAX_NAME_CHARACTERS: Final = 60
"""Maximum length of what a message quotes of a name."""

_HIGH: Final = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE: Final = re.compile(_HIGH + rb"(?!" + _LOW + rb")|(?<!" + _HIGH + rb")" + _LOW)
_BACKSLASH: Final = rb"\\"
_PLACEHOLDER: Final = b"\x00\x00"
"""Stands for an escaped backslash, so that every other backslash begins an escape. JSON has no such characters."""


def check_values(text: bytes, most: int) -> None:
    """Raise RequestTooLarge if JSON text has more values than allowed: numbers, texts, arrays, objects and so on."""
    if len(text) > most and not _has_at_most(text, most):
        raise RequestTooLarge(most, "values")


def _has_at_most(text: bytes, most: int) -> bool:
    """Count quotes, then commas and brackets outside strings. Each step takes a few copies of the text at most."""
    unescaped = text.replace(_BACKSLASH, b"").replace(rb"\"", b"")
    if unescaped.count(b'"') > 4 * most:  # two for each text, and two for the name of a member
        return False
    outside = b"".join(unescaped.split(b'"')[::2])
    return outside.count(b",") + outside.count(b"[") + outside.count(b"{") < most


def check_names(text: bytes) -> None:
    """Raise InvalidRequest if an object in valid JSON has a name twice; parsers disagree on which value counts."""
    json.loads(text, object_pairs_hook=_check_pairs, parse_int=_ignored, parse_float=_ignored)


def _check_pairs(pairs: list[tuple[str, object]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            message = f"The body has {json.dumps(name[:_MAX_NAME_CHARACTERS])} twice in one object. Send each key once."
            raise InvalidRequest(message)
        names.add(name)


def _ignored(digits: str) -> None:
    del digits


def without_lone_surrogates(text: bytes) -> bytes:
    """Replace each escaped half of a surrogate pair by U+FFFD, as browsers do when they encode text."""
    if _PLACEHOLDER in text:
        return text
    marked = bytearray(text.replace(_BACKSLASH, _PLACEHOLDER))
    for half in _LONE_SURROGATE.finditer(marked):
        marked[half.start() : half.end()] = rb"\ufffd"  # of the same length
    return bytes(marked.replace(_PLACEHOLDER, _BACKSLASH))


def one_line(value: object) -> str:
    """Serialize a value as JSON without any line separator."""
    return json.dumps(value, ensure_ascii=False).translate(_LINE_BREAKS)
