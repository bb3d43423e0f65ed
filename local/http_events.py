"""HTTP for Lambda: requests become events of payload format 2.0, and answers become responses.

Where AWS's documentation is silent, recorded events decide: an HTTP API decodes `rawPath` and a function URL does not;
cookies are removed from the headers; a status code that is not an integer makes the answer invalid.
"""

import base64
import binascii
import json
import re
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from local.template import ACCOUNT, Route

Event = dict[str, Any]
Headers = tuple[tuple[str, str], ...]

_TEXT: Final = re.compile(r"(text/[^;]*|application/(json|javascript|xml))\s*(;.*)?", re.IGNORECASE)
_STATUSES: Final = range(200, 600)
_HOP_BY_HOP: Final = {
    "connection",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request; the target is the path and query, percent-encoded."""

    method: str
    target: str
    headers: Headers
    body: bytes
    client: str
    port: int
    protocol: str

    @property
    def path(self) -> str:
        """The path, percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The query without its question mark, percent-encoded."""
        return self.target.partition("?")[2]


@dataclass(frozen=True, slots=True)
class Response:
    """A response; cookies are ordinary headers."""

    status: int
    headers: Headers
    body: bytes


class InvalidAnswer(Exception):
    """A function's answer is not a valid HTTP response."""


def api_event(request: Request, route: Route, parameters: Mapping[str, str], request_id: str) -> Event:
    """Build the event of an HTTP API's route, with the decoded path parameters."""
    event = _event(request, route.key, unquote(request.path))
    event["requestContext"] |= {"accountId": ACCOUNT, "apiId": "local", "requestId": request_id}
    return event | ({"pathParameters": dict(parameters)} if parameters else {})


def url_event(request: Request) -> Event:
    """Build the event of a function URL, which has no routes."""
    event = _event(request, "$default", request.path)
    event["requestContext"] |= {"accountId": "anonymous", "apiId": "local", "requestId": str(uuid.uuid4())}
    return event


def _event(request: Request, route_key: str, path: str) -> Event:
    headers, cookies = _headers(request)
    now = datetime.now(UTC)
    event: Event = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": path,
        "rawQueryString": request.query,
        "headers": headers,
        "requestContext": {
            "domainName": headers.get("host", ""),
            "domainPrefix": headers.get("host", "").partition(".")[0],
            "http": {
                "method": request.method,
                "path": path,
                "protocol": request.protocol,
                "sourceIp": request.client,
                "userAgent": headers.get("user-agent", ""),
            },
            "routeKey": route_key,
            "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(now.timestamp() * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if query := _joined(parse_qsl(request.query, keep_blank_values=True)):
        event["queryStringParameters"] = query
    if request.body:
        # AWS documents no event for a compressed body. Only base64 passes its bytes on unchanged.
        is_text = "content-encoding" not in headers and _TEXT.fullmatch(headers.get("content-type", "")) is not None
        event["isBase64Encoded"] = not is_text
        event["body"] = request.body.decode(errors="replace") if is_text else _base64(request.body)
    return event


def _headers(request: Request) -> tuple[dict[str, str], list[str]]:
    """Return the event's headers, and the cookies, which an event holds separately."""
    cookies = [cookie for name, value in request.headers if name.lower() == "cookie" for cookie in value.split("; ")]
    passed = [(name.lower(), value) for name, value in request.headers if name.lower() not in {"cookie", *_HOP_BY_HOP}]
    headers = _joined([*passed, ("x-forwarded-for", request.client)])
    headers.setdefault("content-length", str(len(request.body)))
    headers.setdefault("x-amzn-trace-id", f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)}")
    return {**headers, "x-forwarded-port": str(request.port), "x-forwarded-proto": "http"}, cookies


def _joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return the pairs as a mapping, with the values of a repeated name joined by commas."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _base64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def response_of(answer: Any) -> Response:
    """Convert a function's answer to a response; raises InvalidAnswer."""
    match answer:
        case {"statusCode": int(status)} if status in _STATUSES:
            return Response(status, _response_headers(answer), _body(answer))
        case {"statusCode": _}:
            raise InvalidAnswer
        case str():
            body = answer
        case _:
            body = json.dumps(answer, ensure_ascii=False)
    return Response(200, (("content-type", "application/json"),), body.encode())


def _response_headers(answer: Mapping[str, Any]) -> Headers:
    headers, cookies = answer.get("headers", {}), answer.get("cookies", [])
    if not isinstance(headers, dict) or not isinstance(cookies, list):
        raise InvalidAnswer
    pairs = [*headers.items(), *(("set-cookie", cookie) for cookie in cookies)]
    if not any(name.lower() == "content-type" for name, _ in pairs):
        pairs.append(("content-type", "text/plain; charset=utf-8"))
    return tuple(
        (name.lower(), _header_value(value))
        for name, value in pairs
        if name.lower() not in {"content-length", *_HOP_BY_HOP}
    )


def _header_value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float() if not re.search(r"[\r\n\0]", str(value)):
            return str(value)
    raise InvalidAnswer


def _body(answer: Mapping[str, Any]) -> bytes:
    match answer.get("body"), answer.get("isBase64Encoded", False):
        case None, _:
            return b""
        case str(body), False:
            return body.encode()
        case str(body), True:
            try:
                return base64.b64decode(body, validate=True)
            except binascii.Error:
                pass
    raise InvalidAnswer
