"""A proxy between the functions and their services that injects faults.

It names every request by its service and operation (`LiveKit CreateRoom`, `DynamoDB PutItem sessions`), records the
names in order of arrival, and forwards requests unless a fault applies.
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import aiohttp
from aiohttp import web

from local.http_server import serving

SECRET: Final = "do-not-tell-4711"
"""The text of injected error responses; no caller may ever receive it."""

_MAX_BODY_BYTES: Final = 20 * 1024 * 1024
_OF_THE_CONNECTION: Final = {"host", "connection", "keep-alive", "transfer-encoding", "content-length"}
_SLOW_BYTES: Final = 400
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """A response, and the damage done to it on its way."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds_per_byte: float = 0.0
    is_cut: bool = False
    """Whether the connection is reset after half of the response."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request in the proxy."""

    name: str
    body: bytes
    forward: Callable[[bytes], Awaitable[Reply]]
    """Forwards the request with this body and returns the response."""
    is_given_up: Callable[[], bool] = lambda: False
    """Returns whether the client has disconnected."""


Fault = Callable[[Exchange], Awaitable[Reply | None]]
"""Handles a request and returns a response; None closes the connection at once."""


@dataclass
class Plan:
    """Selects requests for a fault: all that match, or only the n-th match, counted from 1."""

    wants: Callable[[str], bool]
    fault: Fault
    only: int | None = None
    met: int = 0
    """The number of matches so far."""

    def takes(self, name: str) -> bool:
        """Return whether a request is selected, and count a match."""
        if not self.wants(name):
            return False
        self.met += 1
        return self.only in (None, self.met)


@dataclass
class FaultyPaths:
    """The proxies of all services; a later fault takes precedence over earlier ones."""

    log: list[str] = field(default_factory=list)
    at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(100))
    """The number of concurrent requests; others wait, and are dropped once their client disconnects."""
    _plans: list[Plan] = field(default_factory=list)

    @contextmanager
    def faulty(self, wants: Callable[[str], bool], fault: Fault, only: int | None = None) -> Iterator[Plan]:
        """Apply a fault for the duration of the block."""
        plan = Plan(wants, fault, only)
        self._plans.insert(0, plan)
        try:
            yield plan
        finally:
            self._plans.remove(plan)

    def always(self, wants: Callable[[str], bool], fault: Fault) -> None:
        """Apply a fault permanently, with the lowest precedence."""
        self._plans.append(Plan(wants, fault))

    def to(
        self,
        upstream: str,
        name_of: Callable[[web.Request, bytes], str],
        edit: Callable[[str, Reply], Reply] = lambda _, reply: reply,
    ) -> AbstractAsyncContextManager[str]:
        """Serve the proxy of one service and yield its URL; `edit` changes responses without a fault."""
        return self._serving(upstream.replace("ws://", "http://", 1), name_of, edit)

    @asynccontextmanager
    async def _serving(
        self, upstream: str, name_of: Callable[[web.Request, bytes], str], edit: Callable[[str, Reply], Reply]
    ) -> AsyncIterator[str]:
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as client:

            async def handle(request: web.Request) -> web.StreamResponse:
                body = await request.read()
                name = name_of(request, body)
                self.log.append(name)

                def is_given_up() -> bool:
                    return request.transport is None or request.transport.is_closing()

                async def forward(body: bytes) -> Reply:
                    headers = {key: value for key, value in request.headers.items() if _passes(key)}
                    url = upstream + request.raw_path
                    async with self.at_once:
                        if is_given_up():
                            raise _ClosedAtOnce
                        async with client.request(request.method, url, data=body, headers=headers) as answer:
                            passed = {key: value for key, value in answer.headers.items() if _passes(key)}
                            return edit(name, Reply(answer.status, passed, await answer.read()))

                exchange = Exchange(name, body, forward, is_given_up)
                for plan in reversed([plan for plan in self._plans if plan.takes(name)]):
                    exchange = _behind(exchange, plan.fault)
                return await _answer(request, await _harmed(exchange))

            app = web.Application(client_max_size=_MAX_BODY_BYTES)
            app.router.add_route("*", "/{path:.*}", handle)
            async with serving(app) as url:
                yield url


class _ClosedAtOnce(Exception):
    """There is no response."""


def _behind(exchange: Exchange, fault: Fault) -> Exchange:
    async def forward(body: bytes) -> Reply:
        reply = await fault(replace(exchange, body=body))
        if reply is None:
            raise _ClosedAtOnce
        return reply

    return replace(exchange, forward=forward)


async def _harmed(exchange: Exchange) -> Reply | None:
    try:
        return await exchange.forward(exchange.body)
    except _ClosedAtOnce:
        return None


async def _answer(request: web.Request, reply: Reply | None) -> web.StreamResponse:
    transport = request.transport
    if reply is None or transport is None:
        if transport is not None:
            transport.abort()
        return web.Response()
    response = web.StreamResponse(status=reply.status, headers=dict(reply.headers))
    body = reply.body[: len(reply.body) // 2] if reply.is_cut else reply.body
    response.content_length = max(len(reply.body), 1) if reply.is_cut else len(reply.body)
    try:
        await response.prepare(request)
        if reply.seconds_per_byte:
            for byte in body:
                await response.write(bytes([byte]))
                await asyncio.sleep(reply.seconds_per_byte)
        else:
            await response.write(body)
        if reply.is_cut:
            await asyncio.sleep(0.05)  # wait until the written bytes have arrived
            reset = struct.pack("ii", 1, 0)  # a linger time of 0 resets the connection instead of closing it
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            transport.abort()
    except ConnectionError:
        pass  # the client has disconnected
    return response


def _passes(header: str) -> bool:
    return header.lower() not in _OF_THE_CONNECTION


# ---- Names ----


def aws_name(request: web.Request, body: bytes) -> str:
    """Return the name of a request to DynamoDB or SQS, with its tables."""
    target, _, operation = request.headers.get("x-amz-target", "").partition(".")
    if not target.startswith("DynamoDB"):
        return f"SQS {operation}"
    order = json.loads(body)
    actions = [action for item in order.get("TransactItems", []) for action in item.values()]
    tables = {action["TableName"] for action in actions} or {*order.get("RequestItems", [order.get("TableName", "")])}
    return f"DynamoDB {operation} {'+'.join(sorted(table.rpartition('voice_')[2] for table in tables))}"


def livekit_name(request: web.Request, _: bytes) -> str:
    """Return the name of a request to LiveKit: its Twirp method."""
    return f"LiveKit {request.path.rpartition('/')[2]}"


def gemini_name(request: web.Request, _: bytes) -> str:
    """Return the name of a request to Gemini: its method."""
    return f"Gemini {request.path.rpartition('/')[2].rpartition(':')[2]}"


def changes_something(name: str) -> bool:
    """Return whether a request does more than read a table."""
    return not name.startswith(
        ("DynamoDB GetItem", "DynamoDB Query", "DynamoDB BatchGetItem", "SQS ReceiveMessage", "SQS GetQueue")
    )


# ---- Faults ----


async def refuse(_: Exchange) -> None:
    """Close the connection without a response."""


async def hang(exchange: Exchange) -> None:
    """Never respond."""
    while not exchange.is_given_up():  # noqa: ASYNC110 (aiohttp does not report a disconnected client)
        await asyncio.sleep(0.1)


async def reset_half_way(exchange: Exchange) -> Reply:
    """Forward the request, and reset the connection in the middle of the response."""
    return replace(await exchange.forward(exchange.body), is_cut=True)


async def slow_by_byte(exchange: Exchange) -> Reply:
    """Forward the request, and send the response byte by byte, for longer than any time limit."""
    reply = await exchange.forward(exchange.body)
    return replace(reply, body=reply.body.ljust(_SLOW_BYTES), seconds_per_byte=0.1)


async def garbage(_: Exchange) -> Reply:
    """Respond with an HTML page, as a third-party proxy may do."""
    return Reply(200, {"Content-Type": "text/html"}, f"<!DOCTYPE html><title>{SECRET}</title>".encode())


async def truncated(exchange: Exchange) -> Reply:
    """Forward the request, and send only the first half of the response."""
    reply = await exchange.forward(exchange.body)
    return replace(reply, body=reply.body[: len(reply.body) // 2])


async def blocked(_: Exchange) -> Reply:
    """Respond as Gemini does to a blocked prompt."""
    return _json(200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": SECRET}})


def by_token() -> Fault:
    """Respond to a retried transaction as DynamoDB does, by its token; moto would execute it again."""
    done: dict[str, Reply] = {}

    async def once(exchange: Exchange) -> Reply:
        token = json.loads(exchange.body)["ClientRequestToken"]
        if token in done:
            return done[token]
        reply = await exchange.forward(exchange.body)
        return done.setdefault(token, reply) if reply.status == _OK else reply

    return once


def failing(status: int) -> Fault:
    """Respond with a status and an error in the format of both Twirp and Google."""

    async def fail(_: Exchange) -> Reply:
        return _json(status, {"code": "internal", "msg": SECRET, "error": {"code": status, "message": SECRET}})

    return fail


def busy(seconds: float) -> Fault:
    """Respond with 429 and a retry delay, in the header and in Google's format."""

    async def refuse_for_now(_: Exchange) -> Reply:
        info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds}s"}
        error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": SECRET, "details": [info]}
        reply = _json(429, {"code": "resource_exhausted", "msg": SECRET, "error": error})
        return replace(reply, headers={**reply.headers, "Retry-After": str(round(seconds))})

    return refuse_for_now


def google_error(status: int, name: str, reason: str | None = None) -> Fault:
    """Respond with an error of Google, with a reason if it has one (google.rpc.ErrorInfo)."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}] if reason else []

    async def fail(_: Exchange) -> Reply:
        return _json(status, {"error": {"code": status, "status": name, "message": SECRET, "details": details}})

    return fail


async def empty_answer(exchange: Exchange) -> Reply:
    """Forward the request to Gemini, and remove the text of its answer."""
    reply = await exchange.forward(exchange.body)
    answer = json.loads(reply.body)
    answer["candidates"][0]["content"] = {"role": "model"}
    return _json(200, answer)


def delayed(seconds: float) -> Fault:
    """Wait, then forward the request."""

    async def wait(exchange: Exchange) -> Reply:
        await asyncio.sleep(seconds)
        return await exchange.forward(exchange.body)

    return wait


def dynamodb_error(status: int, code: str) -> Fault:
    """Respond with an error of DynamoDB."""

    async def fail(_: Exchange) -> Reply:
        body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": SECRET}
        return _json(status, body, "application/x-amz-json-1.0")

    return fail


async def partial_pages(exchange: Exchange) -> Reply:
    """Respond to a query with one row a page and to a batch without its last row, as DynamoDB does at a limit."""
    order = json.loads(exchange.body)
    if exchange.name.startswith("DynamoDB BatchWriteItem"):
        [(table, writes)] = order["RequestItems"].items()
        if len(writes) == 1:
            return await exchange.forward(exchange.body)
        await exchange.forward(json.dumps({**order, "RequestItems": {table: writes[:-1]}}).encode())
        return _json(200, {"UnprocessedItems": {table: writes[-1:]}}, "application/x-amz-json-1.0")
    if exchange.name.startswith("DynamoDB Query"):
        return await exchange.forward(json.dumps({**order, "Limit": 1}).encode())
    reply = await exchange.forward(exchange.body)
    if not exchange.name.startswith("DynamoDB BatchGetItem"):
        return reply
    page = json.loads(reply.body)
    [(table, wanted)] = order["RequestItems"].items()
    if len(rows := page["Responses"][table]) > 1:
        left = {name: rows.pop()[name] for name in wanted["Keys"][0]}
        page["UnprocessedKeys"] = {table: {**wanted, "Keys": [left]}}
    return _json(200, page, "application/x-amz-json-1.0")


def killing(kill: Callable[[], None], *, afterwards: bool) -> Fault:
    """Kill the calling worker before the request is forwarded or after; there is no response either way."""

    async def crash(exchange: Exchange) -> None:
        if afterwards:
            await exchange.forward(exchange.body)
        kill()

    return crash


def _json(status: int, body: object, content_type: str = "application/json") -> Reply:
    return Reply(status, {"Content-Type": content_type}, json.dumps(body).encode())
