"""The same requests to LiveKit's stand-in and to a real server, which answer both with the same text.

`make test` sends them to the stand-in, `make test-real` to the server.
"""

import asyncio
import base64
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import jwt
import pytest
from livekit import api
from livekit.protocol.models import ClientInfo
from livekit.protocol.rtc import JoinRequest, WrappedJoinRequest

from local.services import LiveKit
from local.stand_ins.livekit import API_KEY, livekit_stand_in
from pi_voice.adapters.http_client import HttpClient
from pi_voice.adapters.livekit import LiveKitRooms
from pi_voice.domain.sessions import Participant
from pi_voice.settings import LiveKitSettings
from tests.integration.samples import a_session
from tests.local.conftest import Answer, Background, Site
from tests.local.processes import until
from tests.real.livekit_server import Server

SERVICE: Final = "/twirp/livekit.RoomService"
NOWHERE: Final = "http://127.0.0.1:9"
OTHER_SECRET: Final = "another-secret-that-is-long-enough-for-it"
HOUR: Final = 3600

Header = tuple[str, str]


@dataclass(frozen=True)
class Rooms:
    """The HTTP API of either LiveKit."""

    livekit: LiveKit
    site: Site

    def token(self, secret: str | None = None, **claims: Any) -> str:
        """Sign claims; None leaves a claim out."""
        now = int(time.time())
        all_claims = {"iss": self.livekit.api_key, "nbf": now - HOUR, "exp": now + HOUR, **claims}
        given = {name: value for name, value in all_claims.items() if value is not None}
        return jwt.encode(given, secret or self.livekit.api_secret)

    def bearer(self, secret: str | None = None, **claims: Any) -> Header:
        return "Authorization", f"Bearer {self.token(secret, **claims)}"

    def ask(self, method: str, **order: Any) -> Answer:
        """Call a method of RoomService with all grants for this room."""
        name = order.get("room") or order.get("name")
        video = {"roomCreate": True, "roomList": True, "roomAdmin": True, "room": name}
        return self.site.post(f"{SERVICE}/{method}", order, self.bearer(video=video))

    def create(self, name: str, **fields: Any) -> Any:
        answer = self.ask("CreateRoom", name=name, **fields)
        assert answer.status == 200, answer.body
        return answer.json

    def listed(self, *names: str) -> Any:
        return self.ask("ListRooms", names=names).json["rooms"]


@pytest.fixture(scope="module", params=["stand-in", pytest.param("server", marks=pytest.mark.real)])
def rooms(request: pytest.FixtureRequest) -> Iterator[Rooms]:
    if request.param == "server":
        server: Server = request.getfixturevalue("livekit_server")
        yield Rooms(server.livekit, Site(server.http_url))
        return
    background = Background()
    livekit = background.enter(livekit_stand_in(NOWHERE, None))
    yield Rooms(livekit, Site(livekit.url.replace("ws://", "http://", 1)))
    background.stop()


@pytest.fixture
def name() -> str:
    """A unique room name."""
    return str(uuid.uuid4())


def is_plain(answer: Answer, status: int, text: str) -> bool:
    """Assert that a response is plain text, as before Twirp handles a request; return True."""
    shown = (answer.status, answer.header("content-type"), answer.body.decode())
    assert shown == (status, "text/plain; charset=utf-8", text)
    return True


def is_error(answer: Answer, status: int, code: str, message: str, **meta: str) -> bool:
    """Assert that a response is a Twirp error; return True."""
    assert (answer.status, answer.header("content-type")) == (status, "application/json")
    assert answer.json == {"code": code, "msg": message, **({"meta": meta} if meta else {})}
    return True


# ---- Rooms ------------------------------------------------------------------------------------------


def test_a_room_is_created_as_requested_and_returned_in_full(rooms: Rooms, name: str) -> None:
    room = rooms.create(name, empty_timeout=600, departureTimeout="60", max_participants=3, metadata="a note", bogus=1)

    assert int(room["creation_time"]) == int(room["creation_time_ms"]) // 1000
    assert abs(int(room["creation_time"]) - time.time()) < 60
    assert room["sid"].startswith("RM_")
    assert len(room["sid"]) == 15
    assert room["turn_password"]
    assert [codec["fmtp_line"] for codec in room["enabled_codecs"]] == [""] * 10
    assert room == {
        "sid": room["sid"],
        "name": name,
        "empty_timeout": 600,
        "departure_timeout": 60,
        "max_participants": 3,
        "creation_time": str(int(room["creation_time"])),
        "creation_time_ms": str(int(room["creation_time_ms"])),
        "turn_password": room["turn_password"],
        "enabled_codecs": [
            {"mime": mime, "fmtp_line": ""}
            for mime in (
                *("audio/PCMU", "audio/PCMA", "audio/opus", "audio/red"),
                *("video/VP8", "video/H264", "video/VP9", "video/AV1", "video/H265", "video/rtx"),
            )
        ],
        "metadata": "a note",
        "num_participants": 0,
        "num_publishers": 0,
        "active_recording": False,
        "version": None,
    }
    assert rooms.listed(name, "no-such-room") == [room]
    assert room in rooms.listed()


def test_timeouts_have_defaults(rooms: Rooms, name: str) -> None:
    room = rooms.create(name)

    assert (room["empty_timeout"], room["departure_timeout"], room["max_participants"]) == (300, 20, 0)


def test_creating_an_open_room_returns_it_unchanged(rooms: Rooms, name: str) -> None:
    first = rooms.create(name, metadata="first", empty_timeout=600)

    assert rooms.create(name, metadata="second", empty_timeout=60, max_participants=9) == first
    assert rooms.listed(name) == [first]


def test_a_deleted_room_is_gone_and_its_name_is_free(rooms: Rooms, name: str) -> None:
    first = rooms.create(name, metadata="first")
    answer = rooms.ask("DeleteRoom", room=name)

    assert (answer.status, answer.json) == (200, {})
    assert rooms.listed(name) == []
    second = rooms.create(name)
    assert second["sid"] != first["sid"]
    assert second["metadata"] == ""


@pytest.mark.parametrize("order", [("DeleteRoom", {}), ("UpdateRoomMetadata", {"metadata": "new"})])
def test_an_unknown_room_is_not_found(rooms: Rooms, name: str, order: tuple[str, dict[str, str]]) -> None:
    method, fields = order
    answer = rooms.ask(method, room=name, **fields)

    assert is_error(answer, 404, "not_found", "twirp error unknown: requested room does not exist")


def test_metadata_can_be_changed(rooms: Rooms, name: str) -> None:
    room = rooms.create(name, metadata="old")

    changed = {**room, "metadata": "new"}
    assert rooms.ask("UpdateRoomMetadata", room=name, metadata="new").json == changed
    # The server lists rooms from its store, and stores a change shortly after its response.
    until(lambda: rooms.listed(name) == [changed])


def test_an_empty_room_closes_after_its_timeout(rooms: Rooms, name: str) -> None:
    rooms.create(name, empty_timeout=1)

    until(lambda: rooms.listed(name) == [])


def test_a_name_has_at_most_256_bytes(rooms: Rooms, name: str) -> None:
    longest = name + "é" * ((256 - len(name)) // 2)
    assert len(longest.encode()) == 256
    assert rooms.create(longest)["name"] == longest

    message = "twirp error unknown: room name length exceeds limits: max length 256"
    assert is_error(rooms.ask("CreateRoom", name=f"{longest}x"), 400, "invalid_argument", message)


def test_the_sdk_gets_the_same_room_by_protobuf(rooms: Rooms, name: str) -> None:
    async def ask() -> tuple[api.Room, list[api.Room], str]:
        livekit = rooms.livekit
        async with api.LiveKitAPI(livekit.url, livekit.api_key, livekit.api_secret) as client:
            order = api.CreateRoomRequest(name=name, metadata="a note", empty_timeout=700)
            room = await client.room.create_room(order)
            listed = await client.room.list_rooms(api.ListRoomsRequest(names=[name]))
            await client.room.delete_room(api.DeleteRoomRequest(room=name))
            with pytest.raises(api.TwirpError) as refusal:
                await client.room.delete_room(api.DeleteRoomRequest(room=name))
            return room, list(listed.rooms), refusal.value.code

    room, listed, code = asyncio.run(ask())
    assert (room.name, room.metadata, room.empty_timeout) == (name, "a note", 700)
    assert listed == [room]
    assert not room.HasField("version")
    assert code == "not_found"


# ---- Authorization ----------------------------------------------------------------------------------


def test_a_wrong_secret_is_refused(rooms: Rooms, name: str) -> None:
    header = rooms.bearer(OTHER_SECRET, video={"roomCreate": True})
    token = header[1].removeprefix("Bearer ")
    answer = rooms.site.post(f"{SERVICE}/CreateRoom", {"name": name}, header)

    assert is_plain(answer, 401, f"invalid token: {token}, error: token signature is invalid: signature is invalid")
    assert rooms.listed(name) == []


def test_a_wrong_key_is_refused(rooms: Rooms, name: str) -> None:
    header = rooms.bearer(iss="unknown", video={"roomCreate": True})

    assert is_plain(rooms.site.post(f"{SERVICE}/CreateRoom", {"name": name}, header), 401, "invalid API key: unknown")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1}, "token has invalid claims: token is expired"),
        ({"nbf": 9_999_999_999, "exp": 9_999_999_999}, "token has invalid claims: token is not valid yet"),
    ],
)
@pytest.mark.parametrize("path", [f"{SERVICE}/CreateRoom", "/rtc/validate", "/rtc/v1/validate", "/", "/nothing"])
def test_an_expired_or_future_token_is_refused_everywhere(
    rooms: Rooms, path: str, claims: dict[str, Any], reason: str
) -> None:
    token = rooms.token(sub="ana", video={"roomCreate": True, "roomJoin": True, "room": "a"}, **claims)
    answer = rooms.site.post(path, {"name": "a"}, ("Authorization", f"Bearer {token}"))

    assert is_plain(answer, 401, f"invalid token: {token}, error: {reason}")


def test_a_token_that_expired_within_the_last_minute_still_works(rooms: Rooms, name: str) -> None:
    late = rooms.bearer(exp=int(time.time()) - 20, video={"roomCreate": True})

    assert rooms.site.post(f"{SERVICE}/CreateRoom", {"name": name}, late).status == 200


def test_a_token_with_another_algorithm_is_refused(rooms: Rooms) -> None:
    claims = {"iss": rooms.livekit.api_key, "exp": int(time.time()) + HOUR, "video": {"roomCreate": True}}
    token = jwt.encode(claims, OTHER_SECRET * 2, algorithm="HS384")
    answer = rooms.site.post(f"{SERVICE}/CreateRoom", {"name": "a"}, ("Authorization", f"Bearer {token}"))

    reason = "token signature is invalid: signing method HS384 is invalid"
    assert is_plain(answer, 401, f"invalid token: {token}, error: {reason}")


def test_a_token_without_expiry_is_accepted_by_the_server_and_refused_by_the_stand_in(rooms: Rooms, name: str) -> None:
    """The only deliberate difference: later servers refuse such a token, as the stand-in does."""
    answer = rooms.site.post(
        f"{SERVICE}/CreateRoom", {"name": name}, rooms.bearer(exp=None, video={"roomCreate": True})
    )

    assert answer.status == (401 if rooms.livekit.api_key == API_KEY else 200)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("Basic abc", "invalid authorization header. Must start with Bearer "),
        ("Bearer abc", "invalid authorization token"),
        ("Bearer a.b.c", "invalid authorization token"),
    ],
)
def test_a_malformed_token_is_refused(rooms: Rooms, header: str, text: str) -> None:
    answer = rooms.site.post(f"{SERVICE}/CreateRoom", {"name": "a"}, ("Authorization", header))

    assert is_plain(answer, 401, text)


@pytest.mark.parametrize(
    ("method", "video"),
    [
        ("CreateRoom", {"roomList": True, "roomJoin": True, "roomAdmin": True, "room": "a"}),
        ("CreateRoom", {"roomCreate": False}),
        ("CreateRoom", None),
        ("ListRooms", {"roomCreate": True, "roomAdmin": True, "room": "a"}),
        ("DeleteRoom", {"roomAdmin": True, "room": "a", "roomList": True}),
        ("UpdateRoomMetadata", {"roomCreate": True}),
        ("UpdateRoomMetadata", {"roomAdmin": True, "room": "another"}),
    ],
)
def test_a_missing_grant_is_unauthenticated(rooms: Rooms, method: str, video: dict[str, Any] | None) -> None:
    answer = rooms.site.post(f"{SERVICE}/{method}", {"room": "a", "name": "a"}, rooms.bearer(video=video))

    assert is_error(answer, 401, "unauthenticated", "permissions denied")


@pytest.mark.parametrize(
    ("video", "text"),
    [
        ({"roomCreate": "yes"}, "string into Go struct field VideoGrant.ClaimGrants.video.roomCreate of type bool"),
        ({"canPublish": 1}, "number into Go struct field VideoGrant.ClaimGrants.video.canPublish of type bool"),
        ({"room": True}, "bool into Go struct field VideoGrant.ClaimGrants.video.room of type string"),
        (
            {"canPublishSources": "microphone"},
            "string into Go struct field VideoGrant.ClaimGrants.video.canPublishSources of type []string",
        ),
        ([], "array into Go struct field tokenClaims.ClaimGrants.video of type auth.VideoGrant"),
        ("everything", "string into Go struct field tokenClaims.ClaimGrants.video of type auth.VideoGrant"),
    ],
)
def test_a_grant_of_another_type_is_refused(rooms: Rooms, video: object, text: str) -> None:
    token = rooms.token(video=video)
    answer = rooms.site.post(f"{SERVICE}/CreateRoom", {"name": "a"}, ("Authorization", f"Bearer {token}"))

    reason = f"token is malformed: could not JSON decode claim: json: cannot unmarshal {text}"
    assert is_plain(answer, 401, f"invalid token: {token}, error: {reason}")


def test_an_unknown_grant_is_ignored(rooms: Rooms, name: str) -> None:
    header = rooms.bearer(video={"roomCreate": True, "somethingNew": 1})

    assert rooms.site.post(f"{SERVICE}/CreateRoom", {"name": name}, header).status == 200


def test_a_request_without_a_token_lacks_the_grant(rooms: Rooms) -> None:
    answer = rooms.site.post(f"{SERVICE}/CreateRoom", {"name": "a"})

    assert is_error(answer, 401, "unauthenticated", "permissions denied")


# ---- Twirp ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("application/json", b'{"name":', "the json request could not be decoded"),
        ("application/json", b'{"name": 1}', "the json request could not be decoded"),
        ("application/json", b'{"empty_timeout": -1}', "the json request could not be decoded"),
        ("application/json", b"[]", "the json request could not be decoded"),
        ("application/json", b"", "the json request could not be decoded"),
        ("application/protobuf", b"\xff\xff", "the protobuf request could not be decoded"),
    ],
)
def test_a_malformed_body_is_refused(rooms: Rooms, kind: str, body: bytes, text: str) -> None:
    headers = [("Content-Type", kind), rooms.bearer(video={"roomCreate": True})]

    assert is_error(rooms.site.call("POST", f"{SERVICE}/CreateRoom", body, headers), 400, "malformed", text)


@pytest.mark.parametrize(
    ("method", "path", "kind", "text"),
    [
        ("POST", "CreateRoom", "text/plain", 'unexpected Content-Type: "text/plain"'),
        ("GET", "CreateRoom", "application/json", 'unsupported method "GET" (only POST is allowed)'),
        ("POST", "Nothing", "application/json", f'no handler for path "{SERVICE}/Nothing"'),
    ],
)
def test_a_bad_route_is_refused(rooms: Rooms, method: str, path: str, kind: str, text: str) -> None:
    headers = [("Content-Type", kind), rooms.bearer(video={"roomCreate": True})]
    answer = rooms.site.call(method, f"{SERVICE}/{path}", b"{}", headers)

    assert is_error(answer, 404, "bad_route", text, twirp_invalid_route=f"{method} {SERVICE}/{path}")


def test_the_root_answers_ok_and_unknown_paths_404(rooms: Rooms) -> None:
    assert is_plain(rooms.site.get("/"), 200, "OK")
    assert is_plain(rooms.site.get("/nothing"), 404, "404 page not found\n")
    assert (rooms.site.get("/rtc").status, rooms.site.get("/rtc/v1").status) == (404, 404)


# ---- Validation of join tokens ----------------------------------------------------------------------

JOIN_REQUEST: Final = base64.urlsafe_b64encode(
    WrappedJoinRequest(
        join_request=JoinRequest(client_info=ClientInfo(sdk=ClientInfo.SDK.PYTHON)).SerializeToString()
    ).SerializeToString()
).decode()
VALIDATE: Final = pytest.mark.parametrize(
    "path",
    ["/rtc/validate", f"/rtc/validate?join_request={JOIN_REQUEST}", f"/rtc/v1/validate?join_request={JOIN_REQUEST}"],
)


@VALIDATE
def test_a_token_of_the_product_may_join_the_room(rooms: Rooms, path: str) -> None:
    livekit = rooms.livekit
    now = int(time.time())
    session = a_session(ttl_seconds=600, created_at=now, expires_at=now + 600)
    settings = LiveKitSettings(livekit.url, livekit.api_key, livekit.api_secret)
    connection = LiveKitRooms(lambda: settings, HttpClient()).issue_token(
        session, Participant(identity="é 🙂"), ["microphone"]
    )

    assert is_plain(rooms.site.get(path, ("Authorization", f"Bearer {connection.token}")), 200, "success")
    joint = "&" if "?" in path else "?"
    assert is_plain(rooms.site.get(f"{path}{joint}access_token={connection.token}"), 200, "success")
    assert is_plain(rooms.site.get(f"{path}{joint}room=another&access_token={connection.token}"), 200, "success")


@VALIDATE
@pytest.mark.parametrize(
    ("claims", "status", "text"),
    [
        ({"video": {"room": "a"}}, 401, "permissions denied"),
        ({"video": {"roomJoin": False, "room": "a"}}, 401, "permissions denied"),
        ({"video": None}, 401, "no permissions to access the room"),
        ({"sub": None}, 400, "identity cannot be empty"),
        ({"sub": "i" * 257}, 400, "participant identity length exceeds limits: max length 256"),
        ({"video": {"roomJoin": True}}, 400, "no room name"),
        ({"video": {"roomJoin": True, "room": "r" * 257}}, 400, "room name length exceeds limits: max length 256"),
    ],
)
def test_a_token_that_cannot_join_a_room_is_refused(
    rooms: Rooms, path: str, claims: dict[str, Any], status: int, text: str
) -> None:
    header = rooms.bearer(**{"sub": "ana", "video": {"roomJoin": True, "room": "a"}, **claims})

    assert is_plain(rooms.site.get(path, header), status, text)


@VALIDATE
def test_a_foreign_token_cannot_join_a_room(rooms: Rooms, path: str) -> None:
    grant = {"roomJoin": True, "room": "a"}
    foreign = rooms.token(OTHER_SECRET, sub="ana", video=grant)
    answer = rooms.site.get(path, ("Authorization", f"Bearer {foreign}"))
    assert is_plain(answer, 401, f"invalid token: {foreign}, error: token signature is invalid: signature is invalid")
    answer = rooms.site.get(path, rooms.bearer(iss="unknown", sub="ana", video=grant))
    assert is_plain(answer, 401, "invalid API key: unknown")


@VALIDATE
def test_joining_without_a_token_is_refused(rooms: Rooms, path: str) -> None:
    answer = rooms.site.get(path)

    assert is_plain(answer, 401, "no permissions to access the room")
    assert answer.header("access-control-allow-origin") == "*"


def test_the_newer_path_requires_a_join_request(rooms: Rooms) -> None:
    header = rooms.bearer(sub="ana", video={"roomJoin": True, "room": "a"})

    assert is_plain(rooms.site.get("/rtc/v1/validate", header), 400, "join_request is required")
    answer = rooms.site.get("/rtc/v1/validate?join_request=%21", header)
    assert is_plain(answer, 400, "cannot base64 decode wrapped join request")
