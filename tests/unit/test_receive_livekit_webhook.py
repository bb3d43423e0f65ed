import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain.errors import InvalidRequest, LiveKitUnavailable
from pi_voice.domain.livekit_webhooks import RoomEvent
from pi_voice.domain.sessions import Session
from pi_voice.ports import Rooms
from pi_voice.use_cases.receive_livekit_webhook import ReceiveLivekitWebhook
from tests.fakes import FailingRooms, FakeClock, FakeRooms, FakeSessions
from tests.unit.examples import GIVEN_UP, NOW, SESSION_ID, session

ROOM: dict[str, JsonValue] = {"sid": "RM_first", "name": SESSION_ID}


def apply(body: bytes) -> list[RoomEvent]:
    """Apply one webhook and return what was merged."""
    sessions = FakeSessions(session())
    asyncio.run(ReceiveLivekitWebhook(sessions, sessions, unneeded, FakeClock(NOW + 999)).apply(body))
    return sessions.told


def unneeded() -> Rooms:
    """Stand for a LiveKit that nobody has to ask: a function must not even import its SDK."""
    raise AssertionError


class World:
    """One session, and what an event makes of it and of its room."""

    def __init__(
        self, of: Session, rooms: FakeRooms | None = None, sessions: type[FakeSessions] = FakeSessions
    ) -> None:
        self.sessions = sessions(of)
        self.rooms = rooms or FakeRooms()

    def apply(self, body: bytes) -> None:
        events = ReceiveLivekitWebhook(self.sessions, self.sessions, lambda: self.rooms, FakeClock(NOW + 999))
        asyncio.run(events.apply(body))

    @property
    def session(self) -> Session:
        return self.sessions.kept[SESSION_ID]


def event(kind: str, *, at: JsonValue = str(NOW + 10), room: JsonValue = None, **fields: JsonValue) -> bytes:
    """Write an event as LiveKit does: camelCase, and an int64 as a string."""
    written: dict[str, JsonValue] = {"event": kind, "id": "EV_1", "createdAt": at, "room": room or ROOM, **fields}
    return json.dumps(written).encode()


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("room_started", RoomEvent(SESSION_ID, "RM_first", started_at=1_800_000_010)),
        ("participant_joined", RoomEvent(SESSION_ID, "RM_first", joined_at=1_800_000_010)),
        ("room_finished", RoomEvent(SESSION_ID, "RM_first", finished_at=1_800_000_010)),
    ],
)
def test_an_event_tells_when_something_happened_to_a_room(kind: str, told: RoomEvent) -> None:
    assert apply(event(kind, participant={"identity": "caller-1"})) == [told]


@pytest.mark.parametrize(
    "kind",
    [
        "participant_left",
        "participant_connection_aborted",
        "track_published",
        "track_unpublished",
        "egress_started",
        "ingress_ended",
        "agent_job_started",
        "something_new",
        "ROOM_FINISHED",
    ],
)
def test_an_event_of_another_kind_is_dropped(kind: str) -> None:
    assert apply(event(kind)) == []


@pytest.mark.parametrize(
    "name", ["", "lobby", SESSION_ID.upper(), SESSION_ID + "-2", "{" + SESSION_ID + "}", SESSION_ID.replace("-", "")]
)
def test_an_event_of_a_room_that_is_not_ours_is_dropped(name: str) -> None:
    assert apply(event("room_finished", room={"sid": "RM_first", "name": name})) == []


@pytest.mark.parametrize("room", [{"name": SESSION_ID}, {"name": SESSION_ID, "sid": ""}, {"sid": "RM_first"}], ids=str)
def test_an_event_that_does_not_say_which_room_is_dropped(room: JsonValue) -> None:
    assert apply(event("room_finished", room=room)) == []


def test_an_event_without_a_room_is_dropped() -> None:
    assert apply(b'{"event": "egress_ended"}') == []
    assert apply(b'{"event": "room_finished"}') == []


@pytest.mark.parametrize("at", [str(NOW), NOW], ids=["as a string", "as a number"])
def test_a_time_is_read_as_protobuf_writes_it(at: JsonValue) -> None:
    assert apply(event("room_started", at=at)) == [RoomEvent(SESSION_ID, "RM_first", started_at=1_800_000_000)]


def test_an_event_that_does_not_say_when_happened_now() -> None:
    body = json.dumps({"event": "room_started", "room": ROOM}).encode()

    assert apply(body) == [RoomEvent(SESSION_ID, "RM_first", started_at=1_800_000_999)]


@pytest.mark.parametrize(
    ("metadata", "read"),
    [
        ('{"mood": "good", "n": [1, null]}', {"mood": "good", "n": [1, None]}),
        ("{}", {}),
        ('{"city": "Zürich"}', {"city": "Zürich"}),
        ("", None),
        ("not json", None),
        ('"text"', None),
        ("[1]", None),
        ("7", None),
        ("null", None),
        ('{"open": ', None),
        ('{"n": NaN}', None),
        ('{"n": 1e999}', None),
        ('{"half": "\\ud800"}', None),
        ('{"deep": ' + "[" * 1_000 + "]" * 1_000 + "}", None),
        ('{"k": "' + "v" * 4_087 + '"}', {"k": "v" * 4_087}),  # 4,096 bytes
        ('{"k": "' + "v" * 4_088 + '"}', None),
        ('{"k": "' + "é" * 2_044 + '"}', None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_finished_room_s_metadata_are_a_small_json_object_or_nothing(metadata: str, read: JsonValue) -> None:
    (told,) = apply(event("room_finished", room={**ROOM, "metadata": metadata}))

    assert told.metadata == read
    assert told.finished_at == 1_800_000_010


@pytest.mark.parametrize("kind", ["room_started", "participant_joined"])
def test_metadata_count_when_the_room_is_finished_only(kind: str) -> None:
    (told,) = apply(event(kind, room={**ROOM, "metadata": '{"mood": "good"}'}))

    assert told.metadata is None


@pytest.mark.parametrize("kind", ["room_started", "participant_joined", "room_finished"])
def test_the_turn_password_and_all_that_is_not_asked_for_is_never_taken(kind: str) -> None:
    room: JsonValue = {
        **ROOM,
        "turnPassword": "hush-4711",
        "enabledCodecs": [{"mime": "audio/opus"}],
        "numParticipants": 1,
    }

    told = apply(event(kind, room=room, participant={"identity": "hush-4711", "metadata": "hush-4711"}))

    assert len(told) == 1
    assert "hush-4711" not in repr(told)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"room_finished"',
        b"{}",
        b"{",
        b"\xff\xfe",
        b'{"event": ""}',
        b'{"event": 7}',
        b'{"event": null}',
        b'{"event": "room_finished", "room": null}',
        b'{"event": "room_finished", "room": []}',
        b'{"event": "room_finished", "room": {"sid": 7}}',
        b'{"event": "room_finished", "room": {"name": null}}',
        b'{"event": "room_finished", "room": {"metadata": {}}}',
        b'{"event": "room_finished", "createdAt": "soon"}',
        b'{"event": "room_finished", "createdAt": ""}',
        b'{"event": "room_finished", "createdAt": 1.5}',
        b'{"event": "room_finished", "createdAt": true}',
        b'{"event": "room_finished", "createdAt": null}',
        b'{"event": "room_finished", "createdAt": ' + b'"' + b"9" * 5_000 + b'"}',
    ],
    ids=lambda body: str(body)[:60],
)
def test_a_signed_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        apply(body)

    assert refusal.value.message == "The body is signed, but it is no LiveKit webhook event."


def test_an_event_of_a_session_that_is_not_there_changes_nothing() -> None:
    sessions = FakeSessions()

    for kind in ("room_started", "participant_joined", "room_finished"):
        asyncio.run(ReceiveLivekitWebhook(sessions, sessions, unneeded).apply(event(kind)))

    assert sessions.kept == {}


# ---- What a join calls for ------------------------------------------------------------------------------


def with_cap(seconds: int | None, **changes: Any) -> Session:
    return replace(session(), max_duration_seconds=seconds, **changes)


def test_a_call_with_a_cap_is_looked_after_when_that_is_over() -> None:
    world = World(with_cap(60))

    world.apply(event("participant_joined", at=NOW + 10))

    assert world.session.due_at == NOW + 10 + 60 + 15
    assert world.rooms.closed == []


def test_a_call_without_a_cap_is_looked_after_when_it_was() -> None:
    world = World(with_cap(None))

    world.apply(event("participant_joined"))

    assert world.session.due_at == GIVEN_UP


@pytest.mark.parametrize("kind", ["room_started", "room_finished"])
def test_only_a_join_begins_the_count(kind: str) -> None:
    world = World(with_cap(60))

    world.apply(event(kind))

    assert world.session.due_at == GIVEN_UP


def test_the_cap_counts_from_the_first_join_however_often_and_in_whatever_order_joins_are_told() -> None:
    world = World(with_cap(60))

    for second in (20, 30, 10, 10, 20):
        world.apply(event("participant_joined", at=NOW + second))

    assert world.session.due_at == NOW + 10 + 75


def test_of_two_joins_that_are_told_at_once_the_first_counts_whichever_is_faster() -> None:
    class Overtaken(FakeSessions):
        """A later join is told of, and looked after, between merging this one and looking after it."""

        async def schedule(self, before: Session, due_at: int | None) -> Session | None:
            if before.due_at == GIVEN_UP:
                self.kept[SESSION_ID] = replace(self.kept[SESSION_ID], due_at=NOW + 90 + 75)
            return await super().schedule(before, due_at)

    world = World(with_cap(60), sessions=Overtaken)

    world.apply(event("participant_joined", at=NOW + 10))

    assert world.session.due_at == NOW + 10 + 75


def test_an_event_whose_schedule_got_lost_is_sent_again_and_schedules() -> None:
    facts = session().livekit.model_copy(update={"first_joined_at": NOW + 10})
    world = World(with_cap(60, livekit=facts))  # merged, but not scheduled: a crash

    world.apply(event("participant_joined", at=NOW + 10))

    assert world.session.due_at == NOW + 10 + 75


def test_a_session_that_is_due_earlier_stays_so() -> None:
    world = World(with_cap(1_800, due_at=NOW + 600))

    world.apply(event("participant_joined", at=NOW + 10))

    assert world.session.due_at == NOW + 600


@pytest.mark.parametrize(
    "over",
    [
        {"status": "completed"},
        {"status": "failed"},
        {"hung_up_at": NOW + 5, "end_reason": "stopped"},
        {"hung_up_at": NOW + 5, "end_reason": "cap"},
    ],
    ids=str,
)
@pytest.mark.parametrize("cap", [60, None])
def test_who_joins_a_call_that_is_over_is_hung_up(over: dict[str, Any], cap: int | None) -> None:
    world = World(with_cap(cap, **over))

    world.apply(event("participant_joined"))

    assert world.rooms.closed == [SESSION_ID]
    assert world.session.due_at == GIVEN_UP
    assert world.session.is_on is False


@pytest.mark.parametrize("kind", ["room_started", "room_finished"])
def test_other_events_of_a_call_that_is_over_close_nothing(kind: str) -> None:
    world = World(with_cap(60, status="completed"))

    world.apply(event(kind))

    assert world.rooms.closed == []


def test_a_room_that_cannot_be_closed_is_told_so_that_livekit_sends_the_event_again() -> None:
    world = World(with_cap(60, status="completed"), FailingRooms(LiveKitUnavailable()))

    with pytest.raises(LiveKitUnavailable):
        world.apply(event("participant_joined"))
