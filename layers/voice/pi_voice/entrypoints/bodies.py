"""Bodies of requests: their size before they are read, and their JSON."""

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import from_json

from pi_voice.domain.errors import ErrorDetail, InvalidRequest, RequestTooLarge, UnsupportedMediaType
from pi_voice.domain.json_text import BYTES_PER_VALUE, check_names, check_values, without_lone_surrogates

JSON: Final = "application/json"
MAX_UNAUTHENTICATED_BYTES: Final = 65_536
"""Maximum size of a body that is read before the caller is authenticated."""
_MAX_NO_BODY_BYTES: Final = 64
"""Maximum size of an empty body: `{}` with spaces around it."""

Event = dict[str, Any]


def is_larger(event: Event, size: int) -> bool:
    """Return whether the body of an event has more bytes than a size, without reading a larger one."""
    body = event.get("body") or ""
    if event.get("isBase64Encoded"):
        return len(body) * 3 // 4 - body[-2:].count("=") > size
    return len(body) > size or (not body.isascii() and len(_encoded(body)) > size)


def raw_body(event: Event, max_bytes: int) -> bytes:
    """Return the body of an event, decoded if API Gateway sent it as base64; raises RequestTooLarge, InvalidRequest."""
    if is_larger(event, max_bytes):
        raise RequestTooLarge(max_bytes)
    body = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return _encoded(body)
    try:
        return base64.b64decode(body, validate=True)
    except ValueError:
        raise InvalidRequest("The body is not valid base64.") from None


def bounded_body(event: Event, max_bytes: int) -> bytes:
    """Return the body of an event that is to be parsed as JSON; raises RequestTooLarge, InvalidRequest."""
    body = raw_body(event, max_bytes)
    check_values(body, max_bytes // BYTES_PER_VALUE)
    return body


def json_body(event: Event, headers: Mapping[str, str], max_bytes: int) -> bytes:
    """Return a body that is JSON in UTF-8, by its Content-Type or without one; an empty body reads as `{}`.

    The Content-Type of an empty body is ignored, because some clients set their own. Raises UnsupportedMediaType,
    RequestTooLarge, InvalidRequest.
    """
    if not event.get("body"):
        return b"{}"
    media_type, _, parameters = headers.get("content-type", JSON).lower().partition(";")
    charset = dict(pair.strip().partition("=")[::2] for pair in parameters.split(";")).get("charset", "utf-8")
    if not re.fullmatch(r"application/([\w.-]+\+)?json", media_type.strip()):
        raise UnsupportedMediaType
    if charset.strip('"') not in ("utf-8", "utf8"):
        raise UnsupportedMediaType
    body = bounded_body(event, max_bytes)
    if not _is_utf_8(body, headers):
        raise InvalidRequest("The body is not UTF-8. Encode its JSON in UTF-8.")
    message = ""
    for repair in (bytes, without_lone_surrogates):
        text = repair(body)
        try:
            from_json(text, allow_inf_nan=False)  # pydantic models accept NaN in fields of free JSON
        except ValueError as error:
            message = f"The body is not valid JSON: {error}."
        else:
            check_names(text)
            return text
    raise InvalidRequest(message)


def _is_utf_8(body: bytes, headers: Mapping[str, str]) -> bool:
    """Return whether a body was sent in UTF-8: API Gateway puts U+FFFD for other bytes, which changes the length."""
    try:
        text = body.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return False
    length = headers.get("content-length", "")
    return "\ufffd" not in text or not length.isdecimal() or int(length) == len(body)


def require_no_body(event: Event) -> None:
    """Raise InvalidRequest if an event has a body other than `{}`, for a route that takes none."""
    if is_larger(event, _MAX_NO_BODY_BYTES) or b"".join(raw_body(event, _MAX_NO_BODY_BYTES).split()) not in (
        b"",
        b"{}",
    ):
        raise InvalidRequest(details=[ErrorDetail("", "This route takes no body. Send none, or {}.")])


def _encoded(body: str) -> bytes:
    return body.encode(errors="surrogatepass")  # half a surrogate pair that is not escaped is reported as invalid JSON
