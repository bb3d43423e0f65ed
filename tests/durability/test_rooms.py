"""Rooms end: at the time limit of the call, at complete, stop and DELETE, and again if a token reopens them."""

import base64
import hashlib
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
from livekit import api

from tests.durability.world import BASE, Caller, Lane, World

pytestmark = pytest.mark.durability

TTL_SECONDS: Final = 600
CAP_SECONDS: Final = 60
LEEWAY_SECONDS: Final = 15
HOUR_SECONDS: Final = 3_600


@pytest.fixture(scope="module")
def caller(world: World, lane: Lane) -> Caller:
    return world.caller(lane)


def session(caller: Caller, **fields: object) -> str:
    """Create a session and return its id, which is the name of its room."""
    agent_id = caller.post("/agents", {"name": "Ana", "instructions": "Listen."}).json["data"]["agent_id"]
    request = {"agent_id": agent_id, "participant": {"identity": "caller"}, "ttl_seconds": TTL_SECONDS, **fields}
    return str(caller.post("/sessions", request).json["data"]["session_id"])


def join(world: World, caller: Caller, session_id: str) -> None:
    """Open the room, unless it is open, and send LiveKit's webhook of the join."""
    world.open_room(session_id)
    room = {"sid": world.rooms()[session_id].sid, "name": session_id}
    participant = {"identity": "caller", "kind": "STANDARD"}
    event = {"event": "participant_joined", "id": "EV_1", "createdAt": str(int(time.time())), "room": room}
    body = json.dumps({**event, "participant": participant}).encode()
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    keys = world.livekit
    signature = api.AccessToken(keys.api_key, keys.api_secret).with_sha256(digest).with_ttl(timedelta(minutes=5))
    headers = [("Authorization", signature.to_jwt()), ("Content-Type", "application/webhook+json")]
    assert caller.site.call("POST", f"{BASE}/webhooks/livekit", body, headers).status == 200


def complete(_: World, __: Lane, caller: Caller, session_id: str) -> None:
    assert caller.post(f"/sessions/{session_id}/complete", {"transcript": []}).status == 200


def stop(_: World, __: Lane, caller: Caller, session_id: str) -> None:
    assert caller.post(f"/sessions/{session_id}/stop", {}).status == 200


def reach_the_time_limit(world: World, lane: Lane, caller: Caller, session_id: str) -> None:
    join(world, caller, session_id)
    world.let_pass(session_id, CAP_SECONDS + LEEWAY_SECONDS)
    lane.invoke("SweepSessions", {})


def delete(world: World, lane: Lane, caller: Caller, session_id: str) -> None:
    """Delete a session whose room is still open, because its completion kept it."""
    answer = caller.post(f"/sessions/{session_id}/complete", {"transcript": [], "keep_room": True})
    assert (answer.status, session_id in world.rooms()) == (200, True)
    assert caller.call("DELETE", f"/sessions/{session_id}").status == 204
    lane.invoke("SweepSessions", {})


End = Callable[[World, Lane, Caller, str], None]
ENDS: Final[tuple[End, ...]] = (complete, stop, reach_the_time_limit, delete)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_room_is_closed_at_the_end_of_its_call_and_whenever_a_token_reopens_it(
    world: World, lane: Lane, caller: Caller, end: Any
) -> None:
    session_id = session(caller, max_duration_seconds=CAP_SECONDS)
    end(world, lane, caller, session_id)
    assert session_id not in world.rooms()

    join(world, caller, session_id)
    assert session_id not in world.rooms()

    world.open_room(session_id)  # by a join whose webhook is lost
    world.let_pass(session_id, TTL_SECONDS + 60)
    lane.invoke("SweepSessions", {})
    assert session_id not in world.rooms()


@pytest.mark.parametrize("keeps", [False, True], ids=["a call without a time limit", "a kept room"])
def test_a_room_is_closed_an_hour_and_15_seconds_after_the_creation(
    world: World, lane: Lane, caller: Caller, *, keeps: bool
) -> None:
    session_id = session(caller, max_duration_seconds=CAP_SECONDS if keeps else None)
    if keeps:
        caller.post(f"/sessions/{session_id}/complete", {"transcript": [], "keep_room": True})
    world.let_pass(session_id, HOUR_SECONDS - TTL_SECONDS)
    lane.invoke("SweepSessions", {})
    assert session_id in world.rooms()

    world.let_pass(session_id, TTL_SECONDS + LEEWAY_SECONDS)
    lane.invoke("SweepSessions", {})

    assert session_id not in world.rooms()
