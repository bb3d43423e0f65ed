"""CORS, as an HTTP API with a CorsConfiguration handles it.

A preflight request never reaches a function, and a function's own CORS headers are dropped.
"""

from collections.abc import Mapping
from typing import Final

from local.http_events import Headers, Request, Response
from local.loopback import is_loopback
from local.template import Cors

_PREFIX: Final = "access-control-"


def preflight(cors: Cors, request: Request) -> Response | None:
    """Answer a preflight request; return None for any other request."""
    asks = _header(request, "origin") and _header(request, "access-control-request-method")
    if request.method != "OPTIONS" or not asks:
        return None
    terms = {"allow-methods": ",".join(cors.methods), "allow-headers": ",".join(cors.headers)}
    if cors.max_age is not None:
        terms["max-age"] = str(cors.max_age)
    return Response(204, _headers(cors, request, terms), b"")


def with_cors(cors: Cors, request: Request, response: Response) -> Response:
    """Return a response with the CORS headers for its request."""
    own = tuple((name, value) for name, value in response.headers if not name.startswith(_PREFIX))
    headers = _headers(cors, request, {"expose-headers": ",".join(cors.exposed)})
    return Response(response.status, (*own, *headers), response.body)


def _headers(cors: Cors, request: Request, terms: Mapping[str, str]) -> Headers:
    """Return the CORS headers, or none if the origin is not allowed."""
    origin = _header(request, "origin")
    if not origin or not _allows(cors, origin):
        return ()
    headers = {"allow-origin": "*" if "*" in cors.origins else origin, **terms}
    return tuple((_PREFIX + name, value) for name, value in headers.items() if value)


def _allows(cors: Cors, origin: str) -> bool:
    if cors.allows_loopback and is_loopback(origin):
        return True
    return not {"*", f"{origin.partition('://')[0]}://*", origin}.isdisjoint(cors.origins)


def _header(request: Request, wanted: str) -> str:
    return next((value for name, value in request.headers if name.lower() == wanted), "")
