"""The gateway: serve the template's HTTP API and its function URL as AWS does, with AWS's errors and limits."""

import asyncio
import base64
import json
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol
from urllib.parse import unquote

from aiohttp import web

from local.cors import preflight, with_cors
from local.http_events import Event, InvalidAnswer, Request, Response, api_event, response_of, url_event
from local.template import Cors, Function, Route
from local.workers import EventTooLarge, FunctionError

MAX_BODY_BYTES: Final = 10 * 1024 * 1024
API_SECONDS: Final = 30.0

Answering = Callable[[Request], Awaitable[Response]]


class Functions(Protocol):
    """The part of the workers that the gateway uses."""

    async def invoke(self, logical_id: str, event: Event, trace_id: str) -> Any:
        """Invoke a function with an event and return its answer; raises EventTooLarge and FunctionError."""


def http_api(
    template_functions: Iterable[Function],
    functions: Functions,
    cors: Cors | None = None,
    seconds: float = API_SECONDS,
    pages: Iterable[web.RouteDef] = (),
) -> web.Application:
    """Serve the routes of all functions, and `pages` beside them; `seconds` is the integration timeout.

    Without `cors` the gateway adds no CORS headers.
    """
    routes = _Routes(template_functions)

    async def answer(request: Request) -> Response:
        request_id = base64.b64encode(secrets.token_bytes(11)).decode()
        if cors is None:
            response = await answer_route(request, request_id)
        else:
            response = preflight(cors, request) or with_cors(cors, request, await answer_route(request, request_id))
        return Response(response.status, (*response.headers, ("apigw-requestid", request_id)), response.body)

    async def answer_route(request: Request, request_id: str) -> Response:
        found = routes.find(request.method, unquote(request.path))
        if found is None:
            return _message(404, "Not Found")
        logical_id, route, parameters = found
        event = api_event(request, route, parameters, request_id)
        # As on AWS, the function continues after the gateway's timeout.
        call = asyncio.ensure_future(functions.invoke(logical_id, event, event["headers"]["x-amzn-trace-id"]))
        call.add_done_callback(_retrieve_exception)
        try:
            async with asyncio.timeout(seconds):
                return response_of(await asyncio.shield(call))
        except EventTooLarge:
            return _message(413, "Request Entity Too Large")
        except TimeoutError:
            return _message(503, "Service Unavailable")
        except (FunctionError, InvalidAnswer):
            return _message(500, "Internal Server Error")

    return _application(answer, pages)


def function_url(function: Function, functions: Functions) -> web.Application:
    """Serve a function URL, which accepts every path and method."""

    async def answer(request: Request) -> Response:
        event = url_event(request)
        try:
            return response_of(await functions.invoke(function.logical_id, event, event["headers"]["x-amzn-trace-id"]))
        except EventTooLarge:
            return _message(413, "Request Entity Too Large")
        except (FunctionError, InvalidAnswer):
            return Response(502, (("content-type", "text/plain"),), b"Internal Server Error")

    return _application(answer)


class _Routes:
    """All routes, most specific first: a literal segment, then a parameter, then {proxy+}."""

    def __init__(self, functions: Iterable[Function]) -> None:
        routes = [(function.logical_id, route) for function in functions for route in function.routes]
        self._routes = [
            (logical_id, route, _pattern(route.path))
            for logical_id, route in sorted(routes, key=lambda entry: _generality(entry[1]))
        ]

    def find(self, method: str, path: str) -> tuple[str, Route, dict[str, str]] | None:
        for logical_id, route, pattern in self._routes:
            match = pattern.fullmatch(path)
            if match and route.method in {method, "ANY"}:
                return logical_id, route, match.groupdict()
        return None


def _generality(route: Route) -> tuple[list[int], bool]:
    segments = route.path.split("/")
    return [segment.startswith("{") + segment.endswith("+}") for segment in segments], route.method == "ANY"


def _pattern(path: str) -> re.Pattern[str]:
    literal_or_parameter = re.split(r"\{(\w+\+?)\}", path)
    return re.compile(
        "".join(
            re.escape(part)
            if number % 2 == 0
            else f"(?P<{part.removesuffix('+')}>{'.+' if part.endswith('+') else '[^/]+'})"
            for number, part in enumerate(literal_or_parameter)
        ),
        re.DOTALL,
    )


def _application(answer: Answering, pages: Iterable[web.RouteDef] = ()) -> web.Application:
    async def handle(received: web.Request) -> web.Response:
        started = time.monotonic()
        try:
            response = await answer(await _request(received))
        except web.HTTPRequestEntityTooLarge:
            response = _message(413, "Request Entity Too Large")
        path, took = _readable(received.raw_path).partition("?")[0], (time.monotonic() - started) * 1000
        print(f"{received.method} {path} {response.status} {took:.0f} ms", file=sys.stderr, flush=True)
        return _web_response(response)

    app = web.Application(client_max_size=MAX_BODY_BYTES + 1)  # aiohttp's limit is exclusive
    app.router.add_routes(pages)
    app.router.add_route("*", "/{path:(?s:.*)}", handle)
    app.on_response_prepare.append(_without_server_header)
    return app


async def _request(received: web.Request) -> Request:
    body = await received.read()
    _, port = received.get_extra_info("sockname")
    return Request(
        method=received.method,
        target=_readable(received.raw_path),
        headers=tuple((_readable(name), _readable(value)) for name, value in received.headers.items()),
        body=body,
        client=received.remote or "",
        port=port,
        protocol=f"HTTP/{received.version.major}.{received.version.minor}",
    )


def _readable(text: str) -> str:
    """Replace the surrogate escapes that aiohttp uses for bytes that are not UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _web_response(response: Response) -> web.Response:
    answer = web.Response(status=response.status, body=response.body)
    for name, value in response.headers:
        answer.headers.add(name, value)
    return answer


async def _without_server_header(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)


def _message(status: int, message: str) -> Response:
    body = json.dumps({"message": message}, separators=(",", ":"))
    return Response(status, (("content-type", "application/json"),), body.encode())


def _retrieve_exception(call: "asyncio.Future[Any]") -> None:
    """Retrieve the exception of an abandoned call, so that asyncio does not log it as unretrieved."""
    if not call.cancelled():
        call.exception()
