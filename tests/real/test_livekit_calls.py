"""Calls on a real LiveKit server: the permissions of a session's tokens, and the server's webhooks."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import jwt
import pytest
from livekit import api, rtc
from livekit.protocol.models import Room, TrackSource
from livekit.protocol.rtc import SignalResponse
from livekit.rtc.participant import PublishTrackError

from local.running import LocalApi
from pi_voice.adapters.http_client import HttpClient
from pi_voice.adapters.livekit import LiveKitRooms
from pi_voice.domain.errors import LiveKitError
from pi_voice.settings import LiveKitSettings
from tests.integration.samples import a_session
from tests.real.livekit_server import Server, sockets_of
from tests.real.participants import PATIENCE_SECONDS, joined, until

pytestmark = [pytest.mark.real, pytest.mark.anyio]

TTL: Final = 900
DEPARTURE_SECONDS: Final = 60
OTHER_SECRET: Final = "another-secret-that-is-long-enough-for-it"
REFUSED: Final = "401 Unauthorized"
_TRIES: Final = 5

Json = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Calls:
    """A backend with an API key of Pi Voice and the admin rights of the LiveKit server."""

    def __init__(self, client: aiohttp.ClientSession, stack: LocalApi, livekit: api.LiveKitAPI) -> None:
        self._client = client
        self._stack = stack
        self._livekit = livekit

    async def get(self, path: str) -> Json:
        return await self._call("GET", path)

    async def post(self, path: str, **fields: Any) -> Json:
        return await self._call("POST", path, fields)

    async def start(self, **fields: Any) -> Json:
        """Create a session for Ana."""
        agent = await self.post("/agents", name="Mia", instructions="Take the call.")
        ana = {"identity": "ana", "name": "Ana"}
        return await self.post("/sessions", agent_id=agent["agent_id"], participant=ana, ttl_seconds=TTL, **fields)

    async def facts(self, session: Json) -> Json:
        """Return the webhook data of a session, and assert that it is active."""
        state = await self.get(f"/sessions/{session['session_id']}")
        assert state["status"] == "active"
        return dict(state["livekit"])

    async def delete(self, session: Json) -> None:
        await self._call("DELETE", f"/sessions/{session['session_id']}")

    async def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        """Call a route; repeat if the server exceeded its time limit, because the machine is slow."""
        url, header = f"{self._stack.base_url}/api/v1/voice{path}", f"Bearer {self._stack.api_key}"
        for _ in range(_TRIES):
            async with self._client.request(method, url, json=body, headers={"Authorization": header}) as answer:
                document: Json = {} if answer.status == HTTPStatus.NO_CONTENT else await answer.json()
                if answer.status != HTTPStatus.GATEWAY_TIMEOUT:
                    break
        assert answer.status in (200, 201, 204), document
        return dict(document.get("data", document))  # complete has no envelope

    async def room(self, session: Json) -> Room | None:
        """Return the server's room of a session."""
        listed = await self._livekit.room.list_rooms(api.ListRoomsRequest(names=[session["session_id"]]))
        assert len(listed.rooms) <= 1
        return listed.rooms[0] if listed.rooms else None

    async def people(self, session: Json) -> dict[str, api.ParticipantInfo]:
        """Return the participants of a session's room."""
        order = api.ListParticipantsRequest(room=session["session_id"])
        return {person.identity: person for person in (await self._livekit.room.list_participants(order)).participants}

    async def hang_up(self, session: Json) -> None:
        await self._livekit.room.delete_room(api.DeleteRoomRequest(room=session["session_id"]))


@pytest.fixture
async def calls(livekit_stack: LocalApi, livekit_server: Server) -> AsyncIterator[Calls]:
    livekit = livekit_server.livekit
    async with (
        aiohttp.ClientSession() as client,
        api.LiveKitAPI(livekit.url, livekit.api_key, livekit.api_secret) as owner,
    ):
        yield Calls(client, livekit_stack, owner)


def connection_of(session: Json) -> dict[str, str]:
    return dict(session["connection"]["livekit"])


# ---- The room ---------------------------------------------------------------------------------------


async def test_a_session_s_room_has_both_timeouts_and_only_its_id_as_metadata(calls: Calls) -> None:
    session = await calls.start()

    room = await calls.room(session)
    assert room
    assert (room.empty_timeout, room.departure_timeout) == (TTL, DEPARTURE_SECONDS)
    assert room.metadata == f'{{"session_id":"{session["session_id"]}"}}'
    facts = await calls.facts(session)
    assert (facts["room_sid"], facts["started_at"]) == (room.sid, room.creation_time)


async def test_the_server_uses_loopback_only_even_during_a_call(calls: Calls, livekit_server: Server) -> None:
    session = await calls.start()
    async with joined(connection_of(session)) as ana:
        await ana.speak(440)
        ends = sockets_of(livekit_server)

    assert f"127.0.0.1:{livekit_server.udp_port}" in ends
    assert [end for end in ends if not end.startswith("127.0.0.1:")] == []


# ---- Permissions ------------------------------------------------------------------------------------


async def test_two_people_hear_each_other(calls: Calls) -> None:
    session = await calls.start()
    order = {"identity": "ben", "name": "Ben"}
    bens = (await calls.post(f"/sessions/{session['session_id']}/participants", **order))["connection"]["livekit"]

    async with joined(connection_of(session)) as ana, joined(bens) as ben:
        assert ana.room.name == ben.room.name == session["session_id"]
        await asyncio.gather(ana.speak(440), ben.speak(1_000))
        await asyncio.gather(ana.hears("ben", 1_000), ben.hears("ana", 440))
        people = await calls.people(session)

    assert {identity: person.name for identity, person in people.items()} == {"ana": "Ana", "ben": "Ben"}


@pytest.mark.parametrize(
    ("media", "sources"),
    [
        (["microphone"], [TrackSource.MICROPHONE]),
        (["microphone", "camera"], [TrackSource.MICROPHONE, TrackSource.CAMERA]),
    ],
)
async def test_participants_publish_only_their_allowed_media(
    calls: Calls, media: Sequence[str], sources: Sequence[int]
) -> None:
    session = await calls.start(media=media)

    async with joined(connection_of(session)) as ana:
        await ana.speak(440)
        if "camera" in media:
            await ana.show()
        else:
            with pytest.raises(PublishTrackError):
                await ana.show()

        async def all_are_there() -> bool:  # in whichever order: the server keeps them in none
            return sorted(track.source for track in (await calls.people(session))["ana"].tracks) == sorted(sources)

        await until(all_are_there)
        assert list((await calls.people(session))["ana"].permission.can_publish_sources) == sources


async def test_participants_cannot_change_their_name_or_metadata(calls: Calls) -> None:
    session = await calls.start()
    order = {"identity": "ben", "name": "Ben"}
    bens = (await calls.post(f"/sessions/{session['session_id']}/participants", **order))["connection"]["livekit"]

    async with joined(connection_of(session)) as ana, joined(bens) as ben:
        myself = ana.room.local_participant
        await myself.set_name("The agent")
        await myself.set_metadata('{"role": "agent"}')
        await myself.set_attributes({"role": "agent"})
        # The client gets no error. The later message has arrived, so the server has processed the earlier requests.
        await ana.speak(440)
        await ben.hears("ana", 440)
        person, seen = (await calls.people(session))["ana"], ben.room.remote_participants["ana"]

    assert (person.name, person.metadata, dict(person.attributes)) == ("Ana", "", {})
    assert (seen.name, seen.metadata, dict(seen.attributes)) == ("Ana", "", {})


async def test_a_token_opens_no_room_but_its_session_s(calls: Calls) -> None:
    mine, another = await calls.start(), await calls.start()
    connection = connection_of(mine)
    query = {"access_token": connection["token"], "room": another["session_id"], "protocol": "9"}

    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"{connection['url']}/rtc", params=query) as signals,
    ):
        answer = SignalResponse.FromString(await signals.receive_bytes())

    assert answer.join.room.name == mine["session_id"]
    assert await calls.people(another) == {}


async def refusal_of(url: str, token: str) -> str:
    with pytest.raises(rtc.ConnectError) as refusal:
        async with joined({"url": url, "token": token}):
            pass
    return str(refusal.value)


async def test_expired_and_foreign_tokens_are_refused(calls: Calls, livekit_server: Server) -> None:
    session = await calls.start()
    url, token = connection_of(session)["url"], connection_of(session)["token"]
    secret = livekit_server.livekit.api_secret
    claims = jwt.decode(token, secret, algorithms=["HS256"])
    now = int(time.time())

    expired = jwt.encode({**claims, "nbf": now - 900, "exp": now - 300}, secret)
    assert REFUSED in await refusal_of(url, expired)
    assert REFUSED in await refusal_of(url, jwt.encode(claims, OTHER_SECRET))
    assert REFUSED in await refusal_of(url, jwt.encode({**claims, "iss": "another"}, secret))
    head, _, signature = token.split(".")
    widened = jwt.encode({**claims, "video": {"roomJoin": True, "roomAdmin": True}}, OTHER_SECRET).split(".")[1]
    assert REFUSED in await refusal_of(url, f"{head}.{widened}.{signature}")
    assert await calls.people(session) == {}


async def test_a_participant_s_token_cannot_call_the_server_s_api(calls: Calls) -> None:
    session = await calls.start()
    connection = connection_of(session)
    url = connection["url"].replace("ws://", "http://", 1)

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {connection['token']}"}) as client:
        for method in ("CreateRoom", "ListRooms", "DeleteRoom", "ListParticipants", "UpdateRoomMetadata", "SendData"):
            order = {"room": session["session_id"], "name": session["session_id"]}
            async with client.post(f"{url}/twirp/livekit.RoomService/{method}", json=order) as answer:
                assert (answer.status, (await answer.json())["code"]) == (401, "unauthenticated"), method
    assert await calls.room(session)


@pytest.mark.parametrize("wrong", [{"api_key": "another"}, {"api_secret": OTHER_SECRET}])
async def test_a_wrong_key_or_secret_in_our_settings_is_a_livekit_error(
    livekit_server: Server, wrong: dict[str, str]
) -> None:
    livekit = livekit_server.livekit
    given = {"url": livekit.url, "api_key": livekit.api_key, "api_secret": livekit.api_secret, **wrong}
    web = HttpClient()
    rooms = LiveKitRooms(lambda: LiveKitSettings(**given), web, time_limit_seconds=PATIENCE_SECONDS)
    try:
        with pytest.raises(LiveKitError):
            await rooms.open(a_session())
        with pytest.raises(LiveKitError):
            await rooms.close(a_session().session_id)
    finally:
        await web.close()


# ---- Webhooks ---------------------------------------------------------------------------------------


async def test_the_server_s_webhooks_are_verified_and_merged(calls: Calls, livekit_stack: LocalApi) -> None:
    before = len(webhooks(livekit_stack))
    session = await calls.start()
    async with joined(connection_of(session)) as ana:
        await ana.speak(440)
        await until(lambda: has_fact(calls, session, "first_joined_at"))
        room = await calls.room(session)
    assert room
    await until(lambda: is_empty(calls, session))
    await calls.hang_up(session)
    await until(lambda: has_fact(calls, session, "finished_at"))

    facts = await calls.facts(session)
    assert room.creation_time <= facts["first_joined_at"] <= facts["finished_at"] <= time.time()
    assert facts == {
        "room_name": session["session_id"],
        "room_sid": room.sid,
        "started_at": room.creation_time,
        "first_joined_at": facts["first_joined_at"],
        "finished_at": facts["finished_at"],
        "metadata": {"session_id": session["session_id"]},
        "other_rooms": [],
    }

    # room_started, participant_joined, track_published, track_unpublished, participant_left, room_finished
    async def all_arrived() -> bool:
        return len(webhooks(livekit_stack)) - before >= 6

    await until(all_arrived)
    assert set(webhooks(livekit_stack)[before:]) == {"200"}


def webhooks(stack: LocalApi) -> list[str]:
    """Return the statuses of the function URL so far."""
    return [line.split()[2] for line in stack.output.splitlines() if line.startswith("POST / ")]


async def has_fact(calls: Calls, session: Json, fact: str) -> bool:
    return (await calls.facts(session))[fact] is not None


async def is_empty(calls: Calls, session: Json) -> bool:
    return not await calls.people(session)


def program(server: Server, session: Json, kind: Any, *, hidden: bool) -> dict[str, str]:
    """Return the connection of a program that LiveKit or the owner of the server adds to a room."""
    owner = api.AccessToken(server.livekit.api_key, server.livekit.api_secret).with_identity(f"program-{kind}")
    rights = api.VideoGrants(room_join=True, room=session["session_id"], hidden=hidden, recorder=kind == "egress")
    return {"url": server.livekit.url, "token": owner.with_kind(kind).with_grants(rights).to_jwt()}


async def test_recorders_agents_and_hidden_participants_are_not_the_first_to_join(
    calls: Calls, livekit_server: Server
) -> None:
    session = await calls.start()
    recorder = program(livekit_server, session, "egress", hidden=True)
    agent = program(livekit_server, session, "agent", hidden=False)
    hidden = program(livekit_server, session, "standard", hidden=True)

    async with joined(recorder), joined(agent), joined(hidden):
        await asyncio.sleep(2)  # times are in whole seconds
        ana_comes_at = int(time.time())
        async with joined(connection_of(session)):
            await until(lambda: has_fact(calls, session, "first_joined_at"))

    assert (await calls.facts(session))["first_joined_at"] >= ana_comes_at


async def test_deleting_the_room_disconnects_all_participants(calls: Calls) -> None:
    session = await calls.start()
    bens = (await calls.post(f"/sessions/{session['session_id']}/participants", identity="ben"))["connection"]

    async with joined(connection_of(session)) as ana, joined(bens["livekit"]) as ben:
        await calls.hang_up(session)
        assert await ana.hung_up() == "ROOM_DELETED"
        assert await ben.hung_up() == "ROOM_DELETED"

    assert await calls.room(session) is None


async def test_people_go_on_talking_in_a_room_that_the_completion_kept(calls: Calls) -> None:
    """Ben takes over from the agent. Cleo joins after the completion: her webhook must not close the room."""
    session = await calls.start(max_duration_seconds=60)
    path = f"/sessions/{session['session_id']}"
    bens, cleos = [
        (await calls.post(f"{path}/participants", identity=name))["connection"]["livekit"] for name in ("ben", "cleo")
    ]

    async with joined(connection_of(session)) as ana, joined(bens) as ben:
        await until(lambda: has_fact(calls, session, "first_joined_at"))
        completed = await calls.post(f"{path}/complete", transcript=[], keep_room=True)
        assert completed["status"] == "completed"
        async with joined(cleos) as cleo:
            await asyncio.gather(ana.speak(440), ben.speak(1_000))
            await asyncio.gather(ana.hears("ben", 1_000), ben.hears("ana", 440), cleo.hears("ana", 440))

        await calls.delete(session)
        assert {await ana.hung_up(), await ben.hung_up()} == {"ROOM_DELETED"}


async def test_a_second_room_after_a_stop_overwrites_nothing(calls: Calls) -> None:
    """The token outlives the room and creates it again, with the same timeouts and without metadata."""
    session = await calls.start()
    async with joined(connection_of(session)):
        await until(lambda: has_fact(calls, session, "first_joined_at"))
        await calls.hang_up(session)
    await until(lambda: has_fact(calls, session, "finished_at"))
    first = await calls.facts(session)

    async with joined(connection_of(session)):
        second = await calls.room(session)
        await until(lambda: told_of_others(calls, session, "first_joined_at"))
        await calls.hang_up(session)
    await until(lambda: told_of_others(calls, session, "finished_at"))

    assert second
    assert second.sid != first["room_sid"]
    assert (second.empty_timeout, second.departure_timeout, second.metadata) == (TTL, DEPARTURE_SECONDS, "")
    facts = await calls.facts(session)
    [other] = facts["other_rooms"]
    assert facts == {**first, "other_rooms": [other]}
    assert second.creation_time <= other["started_at"] <= other["first_joined_at"]  # the webhook comes a moment later
    assert other == {
        "room_sid": second.sid,
        "started_at": other["started_at"],
        "first_joined_at": other["first_joined_at"],
        "finished_at": other["finished_at"],
        "metadata": None,
    }


async def told_of_others(calls: Calls, session: Json, fact: str) -> bool:
    return any(room[fact] is not None for room in (await calls.facts(session))["other_rooms"])


async def test_a_disconnected_participant_can_rejoin_until_the_departure_timeout(calls: Calls) -> None:
    """Takes a minute: the time that a room stays open after the last participant left."""
    session = await calls.start()
    async with joined(connection_of(session)):
        first = await calls.room(session)
    assert first
    await until(lambda: is_empty(calls, session))
    async with joined(connection_of(session)) as ana:
        await ana.reconnect()
        again = await calls.room(session)
    assert again
    assert again.sid == first.sid

    async def is_over() -> bool:
        return await calls.room(session) is None

    await until(is_over, PATIENCE_SECONDS + 2 * DEPARTURE_SECONDS)
    await until(lambda: has_fact(calls, session, "finished_at"))
    async with joined(connection_of(session)):
        second = await calls.room(session)
        await until(lambda: told_of_others(calls, session, "first_joined_at"))
        await calls.hang_up(session)

    facts = await calls.facts(session)
    assert facts["room_sid"] == first.sid
    assert facts["finished_at"] - facts["first_joined_at"] >= DEPARTURE_SECONDS
    assert second
    assert second.sid != first.sid
    assert [room["room_sid"] for room in facts["other_rooms"]] == [second.sid]
