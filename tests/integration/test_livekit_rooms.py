"""LiveKit rooms: requests, responses and errors."""

import asyncio
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import aiohttp
import jwt
import pytest
from livekit.api import DeleteRoomRequest, DeleteRoomResponse, ListRoomsRequest, TokenVerifier
from livekit.api.room_service import RoomService
from livekit.protocol.models import Room
from livekit.protocol.room import CreateRoomRequest

from local.stand_ins.livekit import livekit_stand_in
from pi_voice.adapters.http_client import HttpClient
from pi_voice.adapters.livekit import LiveKitRooms
from pi_voice.domain.errors import LiveKitError, LiveKitUnavailable, ProviderError, UpstreamTimeout
from pi_voice.domain.ids import SessionId
from pi_voice.ports import CreatedRoom
from pi_voice.settings import LiveKitSettings
from tests.integration.provider import (
    FLOOD_BYTES,
    Answer,
    Flood,
    Provider,
    breaks_off,
    hangs,
    hangs_up,
    redirects,
    resets,
    says,
    stalls,
)
from tests.integration.samples import NOW, a_session
from tests.support.patience import LONG

KEY, SECRET = "APIkey", "a-secret-of-livekit-that-is-long-enough"
PROVIDER_TEXT = "invalid token: eyJhbGciOi.what-the-provider-says"
SESSION = replace(a_session(), session_id=SessionId("01a1f31a-6f52-7c18-8a4e-5b7d9e1f3c60"))
PROTOBUF = "application/protobuf"

Exchange = Callable[[LiveKitRooms], Any]


def open_room(rooms: LiveKitRooms) -> Any:
    return rooms.open(SESSION)


def close_room(rooms: LiveKitRooms) -> Any:
    return rooms.close(SESSION.session_id)


def rooms_at(url: str, web: HttpClient, time_limit_seconds: float = LONG) -> LiveKitRooms:
    return LiveKitRooms(lambda: LiveKitSettings(url, KEY, SECRET), web, lambda: NOW, time_limit_seconds)


@pytest.fixture
def rooms(provider: Provider, web: HttpClient) -> LiveKitRooms:
    return rooms_at(f"ws://{provider.authority}", web)


def a_room(**changes: Any) -> Answer:
    room = Room(**{"sid": "RM_abc", "name": SESSION.session_id, "creation_time": NOW - 5, **changes})
    return says(room.SerializeToString(), content_type=PROTOBUF)


def twirp(status: int, code: str) -> Answer:
    return says(json.dumps({"code": code, "msg": PROVIDER_TEXT}), status)


DELETED = says(DeleteRoomResponse().SerializeToString(), content_type=PROTOBUF)


# ---- Requests ---------------------------------------------------------------------------------------


def test_a_room_is_created_with_the_session_id_both_timeouts_and_only_that_id_as_metadata(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms
) -> None:
    provider.answers(a_room())

    assert runner.run(open_room(rooms)) == CreatedRoom("RM_abc", NOW - 5)

    (sent,) = provider.received
    assert (sent.method, sent.path) == ("POST", "/twirp/livekit.RoomService/CreateRoom")
    request = CreateRoomRequest.FromString(sent.body)
    assert request == CreateRoomRequest(
        name=SESSION.session_id,
        empty_timeout=SESSION.ttl_seconds,
        departure_timeout=60,
        metadata=request.metadata,
    )
    assert json.loads(request.metadata) == {"session_id": SESSION.session_id}


def test_a_room_is_deleted_by_the_session_id(runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms) -> None:
    provider.answers(DELETED)

    runner.run(close_room(rooms))

    (sent,) = provider.received
    assert (sent.method, sent.path) == ("POST", "/twirp/livekit.RoomService/DeleteRoom")
    assert DeleteRoomRequest.FromString(sent.body) == DeleteRoomRequest(room=SESSION.session_id)


@pytest.mark.parametrize(("exchange", "answer"), [(open_room, a_room()), (close_room, DELETED)])
def test_each_request_is_signed_with_only_the_grant_it_needs(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms, exchange: Exchange, answer: Answer
) -> None:
    provider.answers(answer)

    runner.run(exchange(rooms))

    token = provider.received[0].headers["Authorization"].removeprefix("Bearer ")
    assert TokenVerifier(KEY, SECRET).verify(token).video is not None
    assert jwt.decode(token, SECRET, algorithms=["HS256"])["video"] == {
        "roomCreate": True,
        "canPublish": True,
        "canSubscribe": True,
        "canPublishData": True,
    }


def test_the_path_of_the_server_url_is_used(runner: asyncio.Runner, provider: Provider, web: HttpClient) -> None:
    provider.answers(a_room())

    runner.run(open_room(rooms_at(f"ws://{provider.authority}/livekit", web)))

    assert provider.received[0].path == "/livekit/twirp/livekit.RoomService/CreateRoom"


def test_the_connection_is_reused_by_the_next_request(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms
) -> None:
    provider.answers(a_room(), DELETED)

    runner.run(open_room(rooms))
    runner.run(close_room(rooms))

    assert provider.connections == 1


def test_a_room_without_a_creation_time_starts_now(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms
) -> None:
    provider.answers(a_room(creation_time=0))

    assert runner.run(open_room(rooms)) == CreatedRoom("RM_abc", NOW)


def test_closing_a_room_that_does_not_exist_succeeds(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms, logged: io.StringIO
) -> None:
    provider.answers(twirp(404, "not_found"))

    runner.run(close_room(rooms))

    assert logged.getvalue() == ""


# ---- Errors -----------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("exchange", [open_room, close_room])


def failure(runner: asyncio.Runner, rooms: LiveKitRooms, exchange: Exchange) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        runner.run(exchange(rooms))
    assert raised.value.__context__ is None or raised.value.__suppress_context__
    assert PROVIDER_TEXT not in repr(raised.value)
    return raised.value


@BOTH
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (says(PROVIDER_TEXT, 401, "text/plain"), LiveKitError),
        (twirp(401, "unauthenticated"), LiveKitError),
        (twirp(403, "permission_denied"), LiveKitError),
        (twirp(400, "invalid_argument"), LiveKitError),
        (twirp(404, "bad_route"), LiveKitError),
        (says("404 page not found", 404, "text/plain"), LiveKitError),
        (twirp(408, "deadline_exceeded"), LiveKitUnavailable),
        (twirp(429, "resource_exhausted"), LiveKitUnavailable),
        (says(PROVIDER_TEXT, 429, "text/html"), LiveKitUnavailable),
        (twirp(500, "internal"), LiveKitUnavailable),
        (says("", 500, "text/plain"), LiveKitUnavailable),
        (says("<html>", 502, "text/html"), LiveKitUnavailable),
        (twirp(503, "unavailable"), LiveKitUnavailable),
        (says(f'["{PROVIDER_TEXT}"]', 403), LiveKitError),
        (says("null", 400), LiveKitError),
        (says("", 500), LiveKitError),
        (says(f'{{"code": "{PROVIDER_TEXT}"}}', 400), LiveKitError),
        (hangs_up, LiveKitUnavailable),
        (resets, LiveKitUnavailable),
        (breaks_off, LiveKitUnavailable),
    ],
)
def test_refusals_and_outages_raise_different_errors_without_livekits_text(
    runner: asyncio.Runner,
    provider: Provider,
    rooms: LiveKitRooms,
    logged: io.StringIO,
    exchange: Exchange,
    answer: Answer,
    error: type[ProviderError],
) -> None:
    provider.answers(answer)

    assert type(failure(runner, rooms, exchange)) is error
    assert "livekit" in logged.getvalue()
    assert PROVIDER_TEXT not in logged.getvalue()
    assert SECRET not in logged.getvalue()


@BOTH
def test_a_response_that_is_not_protobuf_is_a_livekit_error(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms, exchange: Exchange
) -> None:
    provider.answers(says(b"<html>captive portal</html>", content_type="text/html"))

    assert type(failure(runner, rooms, exchange)) is LiveKitError


@BOTH
def test_a_redirect_is_not_followed(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms, exchange: Exchange
) -> None:
    provider.answers(redirects(provider.url), a_room())

    assert type(failure(runner, rooms, exchange)) is LiveKitError
    assert len(provider.received) == 1


@BOTH
@pytest.mark.parametrize("chunked", [True, False])
def test_a_response_without_end_is_not_read_to_its_end(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms, exchange: Exchange, *, chunked: bool
) -> None:
    flood = Flood(chunked=chunked)
    provider.answers(flood)

    assert type(failure(runner, rooms, exchange)) is LiveKitError
    assert flood.sent < FLOOD_BYTES


@pytest.mark.parametrize("answer", [says(b"", content_type=PROTOBUF), a_room(sid="")])
def test_a_created_room_without_an_id_is_a_livekit_error(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms, answer: Answer
) -> None:
    provider.answers(answer)

    assert type(failure(runner, rooms, open_room)) is LiveKitError


def test_not_found_in_response_to_create_room_is_a_livekit_error(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms
) -> None:
    provider.answers(twirp(404, "not_found"))

    assert type(failure(runner, rooms, open_room)) is LiveKitError


@BOTH
def test_a_refused_connection_is_unavailable(
    runner: asyncio.Runner, web: HttpClient, closed_port: int, exchange: Exchange
) -> None:
    rooms = rooms_at(f"ws://127.0.0.1:{closed_port}", web)

    assert type(failure(runner, rooms, exchange)) is LiveKitUnavailable


@BOTH
@pytest.mark.parametrize("silence", [hangs, stalls])
def test_a_server_that_never_responds_times_out(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms, exchange: Exchange, silence: Answer
) -> None:
    provider.answers(silence)

    assert type(failure(runner, rooms, exchange)) is UpstreamTimeout
    assert len(provider.received) == 1


@BOTH
@pytest.mark.parametrize("end", [hangs_up, resets])
def test_a_request_on_a_dead_connection_is_repeated_once_without_an_error(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms, exchange: Exchange, end: Answer
) -> None:
    provider.answers(a_room(), end, a_room() if exchange is open_room else DELETED)
    runner.run(open_room(rooms))

    runner.run(exchange(rooms))

    assert len(provider.received) == 3


@BOTH
@pytest.mark.parametrize("end", [hangs_up, resets])
def test_a_request_is_repeated_at_most_once(
    runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms, exchange: Exchange, end: Answer
) -> None:
    provider.answers(end)

    assert type(failure(runner, rooms, exchange)) is LiveKitUnavailable
    assert len(provider.received) == 2


def test_the_time_limit_includes_the_repeat(runner: asyncio.Runner, provider: Provider, web: HttpClient) -> None:
    provider.answers(hangs_up, hangs)

    assert type(failure(runner, rooms_at(f"ws://{provider.authority}", web, 0.1), open_room)) is UpstreamTimeout


def test_the_request_after_a_failure_succeeds(runner: asyncio.Runner, provider: Provider, rooms: LiveKitRooms) -> None:
    provider.answers(hangs, a_room())
    failure(runner, rooms, open_room)

    assert runner.run(open_room(rooms)).room_sid == "RM_abc"


# ---- The stand-in -----------------------------------------------------------------------------------


@pytest.fixture
def stand_in(runner: asyncio.Runner, provider: Provider) -> Iterator[LiveKitSettings]:
    provider.answers(says(""))  # receives its webhooks
    stack = AsyncExitStack()
    livekit = runner.run(stack.enter_async_context(livekit_stand_in(provider.url, None)))
    yield LiveKitSettings(livekit.url, livekit.api_key, livekit.api_secret)
    runner.run(stack.aclose())


def rooms_on(runner: asyncio.Runner, settings: LiveKitSettings, web: HttpClient) -> list[Room]:
    async def ask() -> list[Room]:
        service = RoomService(web.session, settings.url, settings.api_key, settings.api_secret)
        return list((await service.list_rooms(ListRoomsRequest())).rooms)

    return runner.run(ask())


def test_a_room_is_created_as_requested_found_again_and_deleted(
    runner: asyncio.Runner, web: HttpClient, stand_in: LiveKitSettings
) -> None:
    rooms = LiveKitRooms(lambda: stand_in, web, time_limit_seconds=LONG)

    opened = runner.run(open_room(rooms))
    assert abs(opened.started_at - time.time()) < 60
    assert runner.run(open_room(rooms)).room_sid == opened.room_sid

    (room,) = rooms_on(runner, stand_in, web)
    assert (room.sid, room.name) == (opened.room_sid, SESSION.session_id)
    assert (room.empty_timeout, room.departure_timeout) == (SESSION.ttl_seconds, 60)
    assert json.loads(room.metadata) == {"session_id": SESSION.session_id}

    runner.run(close_room(rooms))
    assert rooms_on(runner, stand_in, web) == []
    runner.run(close_room(rooms))


@pytest.mark.parametrize(
    ("key", "secret"), [("another-key", SECRET), (None, "another-secret-that-is-just-as-long-as-it-should-be")]
)
def test_a_wrong_key_or_secret_is_an_error_and_is_not_logged(
    runner: asyncio.Runner,
    web: HttpClient,
    stand_in: LiveKitSettings,
    logged: io.StringIO,
    key: str | None,
    secret: str,
) -> None:
    rooms = LiveKitRooms(
        lambda: LiveKitSettings(stand_in.url, key or stand_in.api_key, secret), web, time_limit_seconds=LONG
    )

    assert type(failure(runner, rooms, open_room)) is LiveKitError
    assert secret not in logged.getvalue()
    assert "eyJ" not in logged.getvalue()
    assert rooms_on(runner, stand_in, web) == []


def test_the_http_session_is_created_at_its_first_use_and_again_after_a_close(
    runner: asyncio.Runner, provider: Provider
) -> None:
    web = HttpClient()
    rooms = rooms_at(f"ws://{provider.authority}", web)
    provider.answers(a_room())

    runner.run(open_room(rooms))
    first = web.session
    runner.run(web.close())
    runner.run(open_room(rooms))

    assert isinstance(first, aiohttp.ClientSession)
    assert first.closed
    assert web.session is not first
    runner.run(web.close())
    runner.run(web.close())
