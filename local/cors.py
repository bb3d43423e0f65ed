"""Cross-origin requests, as an HTTP API answers them once it is told which pages may call it.

A preflight never reaches a function, and what a function says about origins itself is dropped.
"""

from collections.abc import Mapping
from typing import Final

from local.http_events import Headers, Request, Response
from local.template import Cors

_PREFIX: Final = "access-control-"


def preflight(cors: Cors, request: Request) -> Response | None:
    """Answer a browser's question whether it may call; None for any other request."""
    asks = _header(request, "origin") and _header(request, "access-control-request-method")
    if request.method != "OPTIONS" or not asks:
        return None
    terms = {"allow-methods": ",".join(cors.methods), "allow-headers": ",".join(cors.headers)}
    if cors.max_age is not None:
        terms["max-age"] = str(cors.max_age)
    return Response(204, _headers(cors, request, terms), b"")


def with_cors(cors: Cors, request: Request, response: Response) -> Response:
    """Return a response as the page that asked may read it."""
    own = tuple((name, value) for name, value in response.headers if not name.startswith(_PREFIX))
    headers = _headers(cors, request, {"expose-headers": ",".join(cors.exposed)})
    return Response(response.status, (*own, *headers), response.body)


def _headers(cors: Cors, request: Request, terms: Mapping[str, str]) -> Headers:
    """Return the headers for an allowed origin, none for another one."""
    origin = _header(request, "origin")
    allowed = {"*", f"{origin.partition('://')[0]}://*", origin}
    if not origin or allowed.isdisjoint(cors.origins):
        return ()
    told = {"allow-origin": "*" if "*" in cors.origins else origin, **terms}
    return tuple((_PREFIX + name, value) for name, value in told.items() if value)


def _header(request: Request, wanted: str) -> str:
    return next((value for name, value in request.headers if name.lower() == wanted), "")
