"""LiveKit's stand-in: the genuine SDK opens and closes rooms on it, and is refused as by a LiveKit server."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import jwt
import pytest
from livekit import api
from livekit.protocol.models import Room
from livekit.protocol.room import (
    CreateRoomRequest,
    DeleteRoomRequest,
    ListRoomsRequest,
    UpdateRoomMetadataRequest,
)

from local.services import LiveKit
from local.stand_ins.livekit import livekit_stand_in
from tests.local.conftest import Background, Site
from tests.local.processes import until

NOWHERE = "http://127.0.0.1:9"
SERVICE = "/twirp/livekit.RoomService"
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def livekit(background: Background) -> LiveKit:
    return background.enter(livekit_stand_in(NOWHERE, None))


@pytest.fixture(scope="module")
def site(livekit: LiveKit) -> Site:
    return Site(livekit.url.replace("ws://", "http://"))


def ask(livekit: LiveKit, question: Callable[[api.LiveKitAPI], Awaitable[Result]]) -> Result:
    """Ask with the SDK, as the product does."""

    async def asking() -> Result:
        async with api.LiveKitAPI(livekit.url, livekit.api_key, livekit.api_secret) as client:
            return await question(client)

    return asyncio.run(asking())


def create(livekit: LiveKit, name: str, **fields: Any) -> Room:
    return ask(livekit, lambda client: client.room.create_room(CreateRoomRequest(name=name, **fields)))


def names(livekit: LiveKit) -> set[str]:
    listed = ask(livekit, lambda client: client.room.list_rooms(ListRoomsRequest()))
    return {room.name for room in listed.rooms}


def token(livekit: LiveKit, **claims: Any) -> tuple[str, str]:
    now = int(time.time())
    payload = {"iss": livekit.api_key, "nbf": now, "exp": now + 60, "video": {"roomCreate": True}, **claims}
    signed = jwt.encode({k: v for k, v in payload.items() if v is not None}, livekit.api_secret)
    return "Authorization", f"Bearer {signed}"


# ---- Rooms ----


def test_a_room_is_opened_and_listed(livekit: LiveKit) -> None:
    room = create(livekit, "one", empty_timeout=600, departure_timeout=60, max_participants=3, metadata="told")

    assert room.sid.startswith("RM_")
    assert (room.name, room.empty_timeout, room.departure_timeout) == ("one", 600, 60)
    assert (room.max_participants, room.metadata) == (3, "told")
    assert abs(room.creation_time - time.time()) < 60
    assert room.turn_password
    assert ask(livekit, lambda client: client.room.list_rooms(ListRoomsRequest(names=["one", "none"]))).rooms == [room]


def test_timeouts_have_the_server_s_defaults(livekit: LiveKit) -> None:
    room = create(livekit, "plain")

    assert (room.empty_timeout, room.departure_timeout, room.max_participants) == (300, 20, 0)


def test_a_room_that_is_open_is_returned_as_it_is(livekit: LiveKit) -> None:
    first = create(livekit, "twice", metadata="first")

    assert create(livekit, "twice", metadata="second", max_participants=9) == first


def test_a_deleted_room_is_gone(livekit: LiveKit) -> None:
    create(livekit, "short-lived")
    ask(livekit, lambda client: client.room.delete_room(DeleteRoomRequest(room="short-lived")))

    assert "short-lived" not in names(livekit)


def test_an_empty_room_closes_after_its_timeout(livekit: LiveKit) -> None:
    create(livekit, "fleeting", empty_timeout=1)

    until(lambda: "fleeting" not in names(livekit))


def test_metadata_can_be_changed_by_the_room_s_admin(livekit: LiveKit) -> None:
    create(livekit, "described")
    order = UpdateRoomMetadataRequest(room="described", metadata="new")

    assert ask(livekit, lambda client: client.room.update_room_metadata(order)).metadata == "new"


@pytest.mark.parametrize("size", [256, 257])
def test_a_name_has_at_most_256_bytes(livekit: LiveKit, size: int) -> None:
    name = "é" * (size // 2) + "n" * (size % 2)
    if size == 256:
        assert create(livekit, name).name == name
        return

    with pytest.raises(api.ServerError) as caught:
        create(livekit, name)

    assert (caught.value.status, caught.value.code) == (400, "invalid_argument")
    assert "room name length exceeds limits: max length 256" in caught.value.message


def test_an_unknown_room_cannot_be_deleted(livekit: LiveKit) -> None:
    with pytest.raises(api.ServerError) as caught:
        ask(livekit, lambda client: client.room.delete_room(DeleteRoomRequest(room="nowhere")))

    assert (caught.value.status, caught.value.code) == (404, "not_found")


# ---- Tokens ----


def test_a_wrong_secret_is_refused_in_plain_text(livekit: LiveKit, site: Site) -> None:
    wrong = LiveKit(livekit.url, livekit.api_key, "another-secret-that-is-long-enough-for-it")

    answer = site.post(f"{SERVICE}/CreateRoom", {"name": "a"}, token(wrong))

    assert (answer.status, answer.header("content-type")) == (401, "text/plain; charset=utf-8")
    assert answer.body.endswith(b"error: token signature is invalid: signature is invalid")


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iss": "nobody"}, "invalid API key: nobody"),
        ({"exp": 1}, "token has invalid claims: token is expired"),
        ({"nbf": 9_999_999_999, "exp": 9_999_999_999}, "token has invalid claims: token is not valid yet"),
        ({"exp": None}, "token is missing required claim: exp"),
        ({"video": "everything"}, "token is malformed"),
    ],
)
def test_a_bad_token_is_refused_in_plain_text(livekit: LiveKit, site: Site, claims: dict[str, Any], said: str) -> None:
    answer = site.post(f"{SERVICE}/CreateRoom", {"name": "a"}, token(livekit, **claims))

    assert (answer.status, answer.header("content-type")) == (401, "text/plain; charset=utf-8")
    assert said in answer.body.decode()


def test_a_token_that_expired_within_the_last_minute_still_works(livekit: LiveKit, site: Site) -> None:
    late = token(livekit, exp=int(time.time()) - 20)

    assert site.post(f"{SERVICE}/CreateRoom", {"name": "late"}, late).status == 200


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Basic abc", "invalid authorization header. Must start with Bearer "),
        ("Bearer abc", "invalid authorization token"),
        ("Bearer a.b.c", "invalid authorization token"),
    ],
)
def test_what_is_no_token_is_refused_in_plain_text(site: Site, header: str, said: str) -> None:
    answer = site.post(f"{SERVICE}/CreateRoom", {"name": "a"}, ("Authorization", header))

    assert (answer.status, answer.body.decode()) == (401, said)


@pytest.mark.parametrize(
    ("method", "video"),
    [
        ("CreateRoom", {"roomList": True}),
        ("CreateRoom", {"roomCreate": False}),
        ("CreateRoom", {"roomCreate": "yes"}),
        ("CreateRoom", None),
        ("ListRooms", {"roomCreate": True}),
        ("DeleteRoom", {"roomAdmin": True, "room": "a"}),
        ("UpdateRoomMetadata", {"roomCreate": True}),
        ("UpdateRoomMetadata", {"roomAdmin": True, "room": "another"}),
    ],
)
def test_a_missing_grant_is_unauthenticated(
    livekit: LiveKit, site: Site, method: str, video: dict[str, Any] | None
) -> None:
    answer = site.post(f"{SERVICE}/{method}", {"room": "a", "name": "a"}, token(livekit, video=video))

    assert (answer.status, answer.header("content-type")) == (401, "application/json")
    assert answer.json == {"code": "unauthenticated", "msg": "permissions denied"}


def test_no_token_at_all_is_a_missing_grant(site: Site) -> None:
    assert site.post(f"{SERVICE}/CreateRoom", {"name": "a"}).json["code"] == "unauthenticated"


def test_the_sdk_sees_a_missing_grant_as_an_error(livekit: LiveKit) -> None:
    stranger = LiveKit(livekit.url, livekit.api_key, "another-secret-that-is-long-enough-for-it")

    with pytest.raises(api.ServerError) as caught:
        create(stranger, "a")

    assert caught.value.status == 401


# ---- Twirp ----


def test_json_is_answered_with_snake_case_and_large_numbers_as_text(livekit: LiveKit, site: Site) -> None:
    answer = site.post(f"{SERVICE}/CreateRoom", {"name": "in-json", "emptyTimeout": 9, "bogus": 1}, token(livekit))

    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.json["empty_timeout"] == 9
    assert answer.json["num_participants"] == 0
    assert int(answer.json["creation_time"]) > 0
    assert isinstance(answer.json["creation_time"], str)


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("application/json", b'{"name":', "the json request could not be decoded"),
        ("application/json", b'{"name": 1}', "the json request could not be decoded"),
        ("application/json", b"[]", "the json request could not be decoded"),
        ("application/protobuf", b"\xff\xff", "the protobuf request could not be decoded"),
    ],
)
def test_a_malformed_body_is_refused(livekit: LiveKit, site: Site, kind: str, body: bytes, said: str) -> None:
    answer = site.call("POST", f"{SERVICE}/CreateRoom", body, [("Content-Type", kind), token(livekit)])

    assert (answer.status, answer.json) == (400, {"code": "malformed", "msg": said})


@pytest.mark.parametrize(
    ("method", "path", "kind", "said"),
    [
        ("POST", "CreateRoom", "text/plain", 'unexpected Content-Type: "text/plain"'),
        ("GET", "CreateRoom", "application/json", 'unsupported method "GET" (only POST is allowed)'),
        ("POST", "Nothing", "application/json", f'no handler for path "{SERVICE}/Nothing"'),
    ],
)
def test_a_bad_route_is_refused(livekit: LiveKit, site: Site, method: str, path: str, kind: str, said: str) -> None:
    answer = site.call(method, f"{SERVICE}/{path}", b"{}", [("Content-Type", kind), token(livekit)])

    assert (answer.status, answer.json["code"], answer.json["msg"]) == (404, "bad_route", said)
    assert answer.json["meta"] == {"twirp_invalid_route": f"{method} {SERVICE}/{path}"}


def test_the_root_tells_that_the_server_is_well_and_the_rest_is_not_there(site: Site) -> None:
    assert (site.get("/").status, site.get("/").body) == (200, b"OK")
    assert (site.get("/nothing").status, site.get("/nothing").body) == (404, b"404 page not found\n")
