"""A faulty path: what stands between the functions and the services that they ask, and does harm when it is told to.

It names every request in one word of its service and of its operation (`LiveKit CreateRoom`, `DynamoDB PutItem
sessions`), writes the names down in the order in which they came, and passes requests on unless a fault is in its way.
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
"""What a fault's answer says; no caller may ever read it."""

_MAX_BODY_BYTES: Final = 20 * 1024 * 1024
_OF_THE_CONNECTION: Final = {"host", "connection", "keep-alive", "transfer-encoding", "content-length"}
_SLOW_BYTES: Final = 400
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and how much harm is done to it on its way."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds_per_byte: float = 0.0
    is_cut: bool = False
    """Whether the connection is reset when half of it has passed."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request on its way."""

    name: str
    body: bytes
    forward: Callable[[bytes], Awaitable[Reply]]
    """Passes it on with this body, and returns its answer."""
    is_given_up: Callable[[], bool] = lambda: False
    """Tells whether nobody waits for the answer any more."""


Fault = Callable[[Exchange], Awaitable[Reply | None]]
"""Does something with a request and returns its answer; None closes the connection at once."""


@dataclass
class Plan:
    """Which requests a fault is for: all that are wanted, or the n-th of these, counted from 1."""

    wants: Callable[[str], bool]
    fault: Fault
    only: int | None = None
    met: int = 0
    """How many requests it wanted so far."""

    def takes(self, name: str) -> bool:
        """Tell whether a request is one of them, and count it."""
        if not self.wants(name):
            return False
        self.met += 1
        return self.only in (None, self.met)


@dataclass
class FaultyPaths:
    """The paths to all services; faults that come later stand before those that are there."""

    log: list[str] = field(default_factory=list)
    at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(100))
    """How many requests may pass side by side; the others wait, and go nowhere once nobody waits for them."""
    _plans: list[Plan] = field(default_factory=list)

    @contextmanager
    def faulty(self, wants: Callable[[str], bool], fault: Fault, only: int | None = None) -> Iterator[Plan]:
        """Do harm for as long as the block runs."""
        plan = Plan(wants, fault, only)
        self._plans.insert(0, plan)
        try:
            yield plan
        finally:
            self._plans.remove(plan)

    def always(self, wants: Callable[[str], bool], fault: Fault) -> None:
        """Stand behind all faults for good."""
        self._plans.append(Plan(wants, fault))

    def to(
        self,
        upstream: str,
        name_of: Callable[[web.Request, bytes], str],
        edit: Callable[[str, Reply], Reply] = lambda _, reply: reply,
    ) -> AbstractAsyncContextManager[str]:
        """Serve the path to one service and yield its address; `edit` changes answers that arrive unharmed."""
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
    """There is no answer."""


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
            await asyncio.sleep(0.05)  # so that what was written has arrived
            reset = struct.pack("ii", 1, 0)  # without lingering, the connection is reset and not closed
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            transport.abort()
    except ConnectionError:
        pass  # who asked is gone
    return response


def _passes(header: str) -> bool:
    return header.lower() not in _OF_THE_CONNECTION


# ---- Names ----


def aws_name(request: web.Request, body: bytes) -> str:
    """Name a request to DynamoDB or SQS, with the tables that it is about."""
    target, _, operation = request.headers.get("x-amz-target", "").partition(".")
    if not target.startswith("DynamoDB"):
        return f"SQS {operation}"
    order = json.loads(body)
    actions = [action for item in order.get("TransactItems", []) for action in item.values()]
    tables = {action["TableName"] for action in actions} or {*order.get("RequestItems", [order.get("TableName", "")])}
    return f"DynamoDB {operation} {'+'.join(sorted(table.rpartition('voice_')[2] for table in tables))}"


def livekit_name(request: web.Request, _: bytes) -> str:
    """Name a request to LiveKit by its Twirp method."""
    return f"LiveKit {request.path.rpartition('/')[2]}"


def gemini_name(request: web.Request, _: bytes) -> str:
    """Name a request to Gemini by its method."""
    return f"Gemini {request.path.rpartition('/')[2].rpartition(':')[2]}"


def changes_something(name: str) -> bool:
    """Tell whether a request does more than read a table."""
    return not name.startswith(
        ("DynamoDB GetItem", "DynamoDB Query", "DynamoDB BatchGetItem", "SQS ReceiveMessage", "SQS GetQueue")
    )


# ---- Faults ----


async def refuse(_: Exchange) -> None:
    """Close the connection before anything is said."""


async def hang(exchange: Exchange) -> None:
    """Never answer."""
    while not exchange.is_given_up():  # noqa: ASYNC110 (aiohttp tells nobody that a client has gone)
        await asyncio.sleep(0.1)


async def reset_half_way(exchange: Exchange) -> Reply:
    """Do what is asked, and break the connection in the middle of the answer."""
    return replace(await exchange.forward(exchange.body), is_cut=True)


async def slow_by_byte(exchange: Exchange) -> Reply:
    """Do what is asked, and answer byte by byte, for longer than anybody waits."""
    reply = await exchange.forward(exchange.body)
    return replace(reply, body=reply.body.ljust(_SLOW_BYTES), seconds_per_byte=0.1)


async def garbage(_: Exchange) -> Reply:
    """Answer with a page, as a proxy of somebody else's would."""
    return Reply(200, {"Content-Type": "text/html"}, f"<!DOCTYPE html><title>{SECRET}</title>".encode())


async def truncated(exchange: Exchange) -> Reply:
    """Do what is asked, and answer with the first half."""
    reply = await exchange.forward(exchange.body)
    return replace(reply, body=reply.body[: len(reply.body) // 2])


async def blocked(_: Exchange) -> Reply:
    """Answer as Gemini does to a prompt that it will not read."""
    return _json(200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": SECRET}})


def by_token() -> Fault:
    """Answer a transaction that botocore repeats as DynamoDB does, which knows it by its token; moto does it again."""
    done: dict[str, Reply] = {}

    async def once(exchange: Exchange) -> Reply:
        token = json.loads(exchange.body)["ClientRequestToken"]
        if token in done:
            return done[token]
        reply = await exchange.forward(exchange.body)
        return done.setdefault(token, reply) if reply.status == _OK else reply

    return once


def failing(status: int) -> Fault:
    """Answer with a status and an error that fits both Twirp and Google."""

    async def fail(_: Exchange) -> Reply:
        return _json(status, {"code": "internal", "msg": SECRET, "error": {"code": status, "message": SECRET}})

    return fail


def busy(seconds: float) -> Fault:
    """Answer 429 with the pause that is wanted, in the header and in Google's words."""

    async def refuse_for_now(_: Exchange) -> Reply:
        info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds}s"}
        error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": SECRET, "details": [info]}
        reply = _json(429, {"code": "resource_exhausted", "msg": SECRET, "error": error})
        return replace(reply, headers={**reply.headers, "Retry-After": str(round(seconds))})

    return refuse_for_now


def dynamodb_error(status: int, code: str) -> Fault:
    """Answer with an error of DynamoDB's."""

    async def fail(_: Exchange) -> Reply:
        body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": SECRET}
        return _json(status, body, "application/x-amz-json-1.0")

    return fail


async def partial_pages(exchange: Exchange) -> Reply:
    """Answer a query with one row a page, and a batch without its last row, as DynamoDB does where it is too much."""
    order = json.loads(exchange.body)
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
    """Kill who asks, before the request goes on or when it is done; in either case there is no answer."""

    async def crash(exchange: Exchange) -> None:
        if afterwards:
            await exchange.forward(exchange.body)
        kill()

    return crash


def _json(status: int, body: object, content_type: str = "application/json") -> Reply:
    return Reply(status, {"Content-Type": content_type}, json.dumps(body).encode())
