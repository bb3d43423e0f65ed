"""The LiveKit stand-in: the Twirp service RoomService over HTTP, which refuses what a LiveKit server refuses.

Statuses, codes and texts are those of livekit-server 1.13.5; tests/real/test_livekit_conformance.py compares both.
These rooms cannot be joined: they close when their empty timeout has passed, or when they are deleted.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp import web
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from livekit.protocol.models import Codec, Room
from livekit.protocol.room import (
    CreateRoomRequest,
    DeleteRoomRequest,
    DeleteRoomResponse,
    ListRoomsRequest,
    ListRoomsResponse,
    UpdateRoomMetadataRequest,
)

from local.http_server import loopback_host, serving
from local.services import LiveKit
from local.stand_ins.livekit_tokens import MAX_NAME_BYTES, Bearer, TokenRefused, bearer_of, check_join
from local.stand_ins.livekit_webhooks import Webhooks, new_id

API_KEY: Final = "local-stand-in"
API_SECRET: Final = "the-secret-of-the-stand-in-opens-nothing"  # noqa: S105 (the stand-in's secret is public)

EMPTY_TIMEOUT_SECONDS: Final = 300
DEPARTURE_TIMEOUT_SECONDS: Final = 20
_CODECS: Final = (
    "audio/PCMU",
    "audio/PCMA",
    "audio/opus",
    "audio/red",
    "video/VP8",
    "video/H264",
    "video/VP9",
    "video/AV1",
    "video/H265",
    "video/rtx",
)
_VALIDATE: Final = ("/rtc/validate", "/rtc/v1/validate")
_BEARER: Final = web.RequestKey("bearer", Bearer)


@asynccontextmanager
async def livekit_stand_in(webhook_url: str, webhook_key: tuple[str, str] | None) -> AsyncIterator[LiveKit]:
    """Serve the stand-in; webhooks are signed with `webhook_key`, or with the API key if it is None."""
    key = (API_KEY, API_SECRET)
    async with aiohttp.ClientSession() as client:
        webhooks = Webhooks(client, webhook_url, webhook_key or key)
        rooms = Rooms(webhooks)
        try:
            async with serving(livekit_app(rooms, key)) as url:
                yield LiveKit(url.replace("http://", "ws://", 1), *key)
        finally:
            rooms.stop()
            await webhooks.stop()


class Refusal(Exception):
    """An error in Twirp's format."""

    def __init__(self, status: int, code: str, message: str, **meta: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "msg": message, **({"meta": meta} if meta else {})}


class Rooms:
    """The open rooms."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self._open: dict[str, _OpenRoom] = {}

    def create(self, request: CreateRoomRequest) -> Room:
        """Open a room, or return the open room of this name unchanged."""
        if len(request.name.encode()) > MAX_NAME_BYTES:
            text = f"twirp error unknown: room name length exceeds limits: max length {MAX_NAME_BYTES}"
            raise Refusal(400, "invalid_argument", text)
        if request.name not in self._open:
            room = _new_room(request)
            end = asyncio.get_running_loop().call_later(room.empty_timeout, self._close, room.name)
            self._open[room.name] = _OpenRoom(room, end)
            self._webhooks.send("room_started", room)
        return self._open[request.name].room

    def list(self, request: ListRoomsRequest) -> ListRoomsResponse:
        """Return all rooms, or those with the requested names."""
        rooms = [entry.room for entry in self._open.values()]
        return ListRoomsResponse(rooms=[room for room in rooms if not request.names or room.name in request.names])

    def delete(self, request: DeleteRoomRequest) -> DeleteRoomResponse:
        """Close a room."""
        self._find(request.room)
        self._close(request.room)
        return DeleteRoomResponse()

    def update_metadata(self, request: UpdateRoomMetadataRequest) -> Room:
        """Set a room's metadata."""
        room = self._find(request.room)
        room.metadata = request.metadata
        return room

    def stop(self) -> None:
        """Remove all rooms without sending webhooks."""
        for entry in self._open.values():
            entry.end.cancel()
        self._open.clear()

    def _find(self, name: str) -> Room:
        if name not in self._open:
            raise Refusal(404, "not_found", "twirp error unknown: requested room does not exist")
        return self._open[name].room

    def _close(self, name: str) -> None:
        entry = self._open.pop(name)
        entry.end.cancel()
        self._webhooks.send("room_finished", entry.room)


@dataclass(frozen=True, slots=True)
class _OpenRoom:
    room: Room
    end: asyncio.TimerHandle


def _new_room(request: CreateRoomRequest) -> Room:
    now_ms = int(time.time() * 1000)
    return Room(
        sid=new_id("RM_"),
        name=request.name,
        empty_timeout=request.empty_timeout or EMPTY_TIMEOUT_SECONDS,
        departure_timeout=request.departure_timeout or DEPARTURE_TIMEOUT_SECONDS,
        max_participants=request.max_participants,
        metadata=request.metadata,
        creation_time=now_ms // 1000,
        creation_time_ms=now_ms,
        turn_password=secrets.token_urlsafe(32),
        enabled_codecs=[Codec(mime=mime) for mime in _CODECS],
    )


# ---- HTTP ----


@dataclass(frozen=True, slots=True)
class _Method:
    """One method of RoomService: its request message, its grant check, and its implementation."""

    new_request: Callable[[], Message]
    is_granted: Callable[[Bearer, Any], bool]
    do: Callable[[Any], Message]


def livekit_app(rooms: Rooms, key: tuple[str, str]) -> web.Application:
    """Build the HTTP application of a LiveKit server with these rooms and one API key."""
    methods = {
        "CreateRoom": _Method(CreateRoomRequest, lambda bearer, _: bearer.may("roomCreate"), rooms.create),
        "ListRooms": _Method(ListRoomsRequest, lambda bearer, _: bearer.may("roomList"), rooms.list),
        "DeleteRoom": _Method(DeleteRoomRequest, lambda bearer, _: bearer.may("roomCreate"), rooms.delete),
        "UpdateRoomMetadata": _Method(
            UpdateRoomMetadataRequest,
            lambda bearer, request: bearer.may("roomAdmin", request.room),
            rooms.update_metadata,
        ),
    }

    @web.middleware
    async def check_token(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            request[_BEARER] = bearer_of(request, key)
            answer = await handler(request)
        except TokenRefused as refusal:
            answer = web.Response(status=refusal.status, text=refusal.text)
        if request.path in _VALIDATE:
            answer.headers["Access-Control-Allow-Origin"] = "*"
        return answer

    async def room_service(request: web.Request) -> web.Response:
        try:
            return await _answered(request, methods)
        except Refusal as refusal:
            return _json(json.dumps(refusal.body), refusal.status)

    async def validate(request: web.Request) -> web.Response:
        check_join(request, request[_BEARER], needs_join_request=request.path == _VALIDATE[1])
        return web.Response(text="success")

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="OK")

    async def nothing(_: web.Request) -> web.Response:
        return web.Response(status=404, text="404 page not found\n")

    app = web.Application(middlewares=[loopback_host, check_token])
    app.router.add_route("*", "/", health)
    app.router.add_route("*", "/twirp/livekit.RoomService/{method:.*}", room_service)
    for path in _VALIDATE:
        app.router.add_route("*", path, validate)
    app.router.add_route("*", "/{path:.*}", nothing)
    return app


async def _answered(request: web.Request, methods: dict[str, _Method]) -> web.Response:
    if request.method != "POST":
        raise _bad_route(request, f'unsupported method "{request.method}" (only POST is allowed)')
    method = methods.get(request.match_info["method"])
    if method is None:
        raise _bad_route(request, f'no handler for path "{request.path}"')
    form = request.headers.get("Content-Type", "")
    message = method.new_request()
    match form.partition(";")[0].strip().lower():
        case "application/json":
            _read_json(message, await request.read())
        case "application/protobuf":
            _read_protobuf(message, await request.read())
        case _:
            raise _bad_route(request, f'unexpected Content-Type: "{form}"')
    if not method.is_granted(request[_BEARER], message):
        raise Refusal(401, "unauthenticated", "permissions denied")
    answer = method.do(message)
    if form.startswith("application/protobuf"):
        return web.Response(body=answer.SerializeToString(), content_type="application/protobuf")
    return _json(json.dumps(_with_defaults(answer)), 200)


def _with_defaults(answer: Message) -> dict[str, Any]:
    """Return an answer with all its fields, as the server does: unset fields as zeros, unset messages as null."""
    written = MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    for room in (written, *written.get("rooms", ())):
        if "sid" in room:
            room.setdefault("version", None)
    return written


def _read_json(request: Message, body: bytes) -> None:
    with suppress(ParseError, ValueError):
        fields = json.loads(body)
        if isinstance(fields, dict):
            ParseDict(fields, request, ignore_unknown_fields=True)
            return
    raise Refusal(400, "malformed", "the json request could not be decoded")


def _read_protobuf(request: Message, body: bytes) -> None:
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise Refusal(400, "malformed", "the protobuf request could not be decoded") from None


def _json(text: str, status: int) -> web.Response:
    return web.Response(status=status, body=text.encode(), content_type="application/json")


def _bad_route(request: web.Request, message: str) -> Refusal:
    route = f"{request.method} {request.path}"
    return Refusal(404, "bad_route", message, twirp_invalid_route=route)
