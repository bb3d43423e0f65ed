import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import InvalidRequest, InvalidWebhookSignature, LiveKitUnavailable
from pi_voice.domain.ids import SessionId
from pi_voice.domain.livekit_webhooks import ReceivedWebhook, RoomEvent
from pi_voice.domain.row_limits import MAX_RECORDINGS_BYTES
from pi_voice.domain.sessions import Recording, Session, SessionStatus, Tombstone
from pi_voice.ports import Rooms, SignedWebhook
from pi_voice.use_cases.receive_livekit_webhook import ReceiveLivekitWebhook
from tests.support.fakes import FailingRooms, FakeClock, FakeRooms, FakeSessionQueue, FakeSessions, QueueThatCannotPut
from tests.unit.examples import ABANDONED_AT, NOW, SESSION_ID, session, without_events

ROOM: dict[str, JsonValue] = {"sid": "RM_first", "name": SESSION_ID}


class AcceptingVerifier:
    """Accepts every signature, and records the webhooks."""

    def __init__(self) -> None:
        self.verified: list[SignedWebhook] = []

    def verify(self, webhook: SignedWebhook) -> None:
        self.verified.append(webhook)


class RejectingVerifier:
    """Rejects every signature."""

    def verify(self, webhook: SignedWebhook) -> None:  # noqa: ARG002
        raise InvalidWebhookSignature


class Setup:
    """A ReceiveLivekitWebhook on fakes."""

    def __init__(
        self, stored: Session | None = None, rooms: FakeRooms | None = None, sessions: FakeSessions | None = None
    ) -> None:
        self.sessions = sessions or FakeSessions(stored or session())
        self.rooms = rooms or FakeRooms()
        self.verifier = AcceptingVerifier()
        self.event_queue = FakeSessionQueue()

    def receive(self, body: bytes) -> ReceivedWebhook:
        receive_livekit_webhook = ReceiveLivekitWebhook(
            self.verifier, self.sessions, lambda: self.rooms, lambda: self.event_queue, FakeClock(NOW + 999)
        )
        return asyncio.run(receive_livekit_webhook(SignedWebhook("token", body)))

    @property
    def session(self) -> Session:
        """The stored session."""
        return self.sessions.stored[SESSION_ID]


def unused_rooms() -> Rooms:
    """Fail when called: only joins after the end of a call may import LiveKit's SDK."""
    raise AssertionError


def merged_events(body: bytes) -> list[RoomEvent]:
    """Receive one webhook, and return the room events that were merged."""
    sessions = FakeSessions(session())
    receive_livekit_webhook = ReceiveLivekitWebhook(
        AcceptingVerifier(), sessions, unused_rooms, FakeSessionQueue, FakeClock(NOW + 999)
    )
    asyncio.run(receive_livekit_webhook(SignedWebhook("token", body)))
    return sessions.room_events


def event(kind: str, *, at: JsonValue = str(NOW + 10), room: JsonValue = None, **fields: JsonValue) -> bytes:
    """Return an event as LiveKit writes it: camelCase, and an int64 as a string."""
    document: dict[str, JsonValue] = {"event": kind, "id": "EV_1", "createdAt": at, "room": room or ROOM, **fields}
    return json.dumps(document).encode()


# ---- Signature ------------------------------------------------------------------------------------------


def test_a_webhook_is_verified_with_its_token_and_raw_body() -> None:
    setup = Setup()

    response = setup.receive(event("room_started"))

    assert setup.verifier.verified == [SignedWebhook("token", event("room_started"))]
    assert response == ReceivedWebhook(received=True)


@pytest.mark.parametrize("body", [event("room_started"), b"not an event"], ids=["event", "other"])
def test_a_webhook_with_an_invalid_signature_is_not_parsed(body: bytes) -> None:
    sessions = FakeSessions(session())
    receive_livekit_webhook = ReceiveLivekitWebhook(RejectingVerifier(), sessions, unused_rooms, FakeSessionQueue)

    with pytest.raises(InvalidWebhookSignature):
        asyncio.run(receive_livekit_webhook(SignedWebhook("token", body)))

    assert sessions.room_events == []


# ---- Room events ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "room_event"),
    [
        ("room_started", RoomEvent(SESSION_ID, "RM_first", started_at=1_800_000_010)),
        ("participant_joined", RoomEvent(SESSION_ID, "RM_first", joined_at=1_800_000_010, is_join=True)),
        ("room_finished", RoomEvent(SESSION_ID, "RM_first", finished_at=1_800_000_010)),
    ],
)
def test_an_event_is_merged_with_its_time(kind: str, room_event: RoomEvent) -> None:
    assert merged_events(event(kind, participant={"identity": "caller-1"})) == [room_event]


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
def test_an_event_of_another_kind_is_ignored(kind: str) -> None:
    assert merged_events(event(kind)) == []


@pytest.mark.parametrize(
    "name", ["", "lobby", SESSION_ID.upper(), SESSION_ID + "-2", "{" + SESSION_ID + "}", SESSION_ID.replace("-", "")]
)
def test_an_event_of_a_room_not_named_by_a_session_id_is_ignored(name: str) -> None:
    assert merged_events(event("room_finished", room={"sid": "RM_first", "name": name})) == []


@pytest.mark.parametrize("room", [{"name": SESSION_ID}, {"name": SESSION_ID, "sid": ""}, {"sid": "RM_first"}], ids=str)
def test_an_event_without_the_room_s_name_or_sid_is_ignored(room: JsonValue) -> None:
    assert merged_events(event("room_finished", room=room)) == []


def test_an_event_without_a_room_is_ignored() -> None:
    assert merged_events(b'{"event": "egress_ended"}') == []
    assert merged_events(b'{"event": "room_finished"}') == []


@pytest.mark.parametrize("at", [str(NOW), NOW], ids=["as a string", "as a number"])
def test_a_time_is_parsed_from_a_string_or_a_number(at: JsonValue) -> None:
    assert merged_events(event("room_started", at=at)) == [RoomEvent(SESSION_ID, "RM_first", started_at=1_800_000_000)]


@pytest.mark.parametrize(
    "participant",
    [
        *({"kind": kind} for kind in ("EGRESS", "INGRESS", "SIP", "AGENT", "CONNECTOR", "BRIDGE", "NEW_KIND", 4)),
        {"permission": {"hidden": True, "canSubscribe": True}},
        {"kind": "STANDARD", "permission": {"recorder": True}},
        {"kind": "STANDARD", "permission": {"agent": True}},
        {"kind": "EGRESS", "permission": {"hidden": True, "recorder": True}},
    ],
    ids=str,
)
def test_the_join_of_a_program_is_the_start_of_the_room_and_not_of_the_call(participant: dict[str, JsonValue]) -> None:
    room = {**ROOM, "creationTime": "1800000003"}

    [merged] = merged_events(event("participant_joined", room=room, participant={"identity": "x", **participant}))

    assert merged == RoomEvent(SESSION_ID, "RM_first", started_at=1_800_000_003, is_join=True)


@pytest.mark.parametrize(
    "participant", [{}, {"kind": "STANDARD"}, {"kind": 0}, {"permission": {"canPublish": True, "hidden": False}}]
)
def test_the_join_of_a_person_is_the_start_of_the_call(participant: dict[str, JsonValue]) -> None:
    [merged] = merged_events(event("participant_joined", participant=participant))

    assert merged == RoomEvent(SESSION_ID, "RM_first", joined_at=1_800_000_010, is_join=True)


def test_an_event_without_a_time_is_merged_with_the_current_time() -> None:
    body = json.dumps({"event": "room_started", "room": ROOM}).encode()

    assert merged_events(body) == [RoomEvent(SESSION_ID, "RM_first", started_at=1_800_000_999)]


@pytest.mark.parametrize(
    ("metadata", "stored"),
    [
        ('{"mood": "good", "n": [1, null]}', {"mood": "good", "n": [1, None]}),
        ("{}", {}),
        ('{"city": "Zürich"}', {"city": "Zürich"}),
        ("", None),
        ("not json", "not json"),
        ('"text"', '"text"'),
        ("[1]", "[1]"),
        ("7", "7"),
        ("null", "null"),
        ('{"open": ', '{"open": '),
        ('{"n": NaN}', '{"n": NaN}'),
        ('{"n": 1e999}', '{"n": 1e999}'),
        ('{"half": "\\ud800"}', '{"half": "\\ud800"}'),
        ('{"deep": ' + "[" * 1_000 + "]" * 1_000 + "}", '{"deep": ' + "[" * 1_000 + "]" * 1_000 + "}"),
        ('{"k": "' + "v" * 4_087 + '"}', {"k": "v" * 4_087}),  # 4,096 bytes
        ('{"k": "' + "v" * 4_088 + '"}', '{"k": "' + "v" * 4_088 + '"'),
        ("é" * 2_049, "é" * 2_048),
        ("x" + "é" * 2_048, "x" + "é" * 2_047),  # no half character
        ('{"k": 1}' + " " * 5_000 + "x", '{"k": 1}' + " " * 4_088),
    ],
    ids=lambda value: str(value)[:30],
)
def test_metadata_of_a_finished_room_is_a_json_object_or_text_of_at_most_4_kb(metadata: str, stored: JsonValue) -> None:
    (room_event,) = merged_events(event("room_finished", room={**ROOM, "metadata": metadata}))

    assert room_event.metadata == stored
    assert room_event.finished_at == 1_800_000_010


@pytest.mark.parametrize("kind", ["room_started", "participant_joined"])
def test_metadata_is_ignored_before_the_room_is_finished(kind: str) -> None:
    (room_event,) = merged_events(event(kind, room={**ROOM, "metadata": '{"mood": "good"}'}))

    assert room_event.metadata is None


@pytest.mark.parametrize("kind", ["room_started", "participant_joined", "room_finished"])
def test_the_turn_password_and_other_fields_are_not_merged(kind: str) -> None:
    room: JsonValue = {
        **ROOM,
        "turnPassword": "hush-4711",
        "enabledCodecs": [{"mime": "audio/opus"}],
        "numParticipants": 1,
    }

    merged = merged_events(event(kind, room=room, participant={"identity": "hush-4711", "metadata": "hush-4711"}))

    assert len(merged) == 1
    assert "hush-4711" not in repr(merged)


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
        b'{"event": "egress_ended", "egressInfo": []}',
        b'{"event": "egress_ended", "egressInfo": {"fileResults": {}}}',
        b'{"event": "egress_ended", "egressInfo": {"fileResults": [{"filename": 7}]}}',
        b'{"event": "egress_ended", "egressInfo": {"segmentResults": [{"duration": "-1"}]}}',
        b'{"event": "room_finished", "createdAt": ""}',
        b'{"event": "room_finished", "createdAt": 1.5}',
        b'{"event": "room_finished", "createdAt": true}',
        b'{"event": "room_finished", "createdAt": null}',
        b'{"event": "room_finished", "createdAt": ' + b'"' + b"9" * 5_000 + b'"}',
    ],
    ids=lambda body: str(body)[:60],
)
def test_a_signed_body_that_is_not_an_event_is_rejected(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        merged_events(body)

    assert raised.value.message == "The body is signed, but it is not a LiveKit webhook event."


# ---- Recordings -----------------------------------------------------------------------------------------


def egress(*files: JsonValue, room_name: str = SESSION_ID, **fields: JsonValue) -> bytes:
    """Return an egress_ended, which has no room of its own."""
    info: dict[str, JsonValue] = {
        "egressId": "EG_1",
        "roomId": "RM_first",
        "roomName": room_name,
        "fileResults": list(files),
    }
    document = {"event": "egress_ended", "id": "EV_1", "createdAt": str(NOW), "egressInfo": {**info, **fields}}
    return json.dumps(document).encode()


OGG: dict[str, JsonValue] = {
    "filename": "calls/1.ogg",
    "location": "https://bucket.s3.amazonaws.com/calls/1.ogg",
    "duration": "61250000000",
    "size": "4711",
}
STORED = Recording(file="calls/1.ogg", location="https://bucket.s3.amazonaws.com/calls/1.ogg", duration_seconds=61.25)


def test_the_files_of_a_recording_are_merged_with_their_places_and_durations() -> None:
    [merged] = merged_events(egress(OGG, {"filename": "calls/2.mp4"}, status="EGRESS_COMPLETE"))

    assert merged == RoomEvent(SESSION_ID, recordings=(STORED, Recording(file="calls/2.mp4")))


def test_a_recording_in_segments_is_its_playlist() -> None:
    playlist: JsonValue = {"playlistName": "1.m3u8", "playlistLocation": "s3://1.m3u8", "duration": "60000000000"}

    [merged] = merged_events(egress(segmentResults=[playlist]))

    assert merged.recordings == (Recording(file="1.m3u8", location="s3://1.m3u8", duration_seconds=60),)


@pytest.mark.parametrize("status", ["EGRESS_FAILED", "EGRESS_ABORTED", 4])
def test_of_a_failed_recording_only_files_that_were_stored_are_merged(status: str | int) -> None:
    [merged] = merged_events(egress({"filename": "lost.ogg"}, OGG, status=status))

    assert merged.recordings == (STORED,)
    assert merged_events(egress({"filename": "lost.ogg"}, status=status)) == []


@pytest.mark.parametrize(
    "body",
    [
        egress(),
        egress({}),
        egress({"location": "s3://nameless"}),
        egress(OGG, room_name="another-room"),
        egress(OGG, room_name=""),
        json.dumps({"event": "egress_ended"}).encode(),
        egress(OGG).replace(b"egress_ended", b"egress_updated"),
    ],
    ids=["no files", "an empty file", "a file without a name", "another room", "no room", "nothing", "another kind"],
)
def test_an_egress_without_a_file_of_a_session_changes_nothing(body: bytes) -> None:
    assert merged_events(body) == []


@pytest.mark.parametrize("status", ["active", "completed", "failed"])
def test_a_recording_is_added_to_a_session_of_any_status_once(status: SessionStatus) -> None:
    setup = Setup(replace(session(), status=status))

    for _ in range(2):
        setup.receive(egress(OGG))

    assert setup.session == replace(session(), status=status, recordings=(STORED,))


def test_a_file_keeps_its_first_duration_and_others_are_added() -> None:
    setup = Setup()

    setup.receive(egress(OGG))
    setup.receive(egress({**OGG, "duration": "1"}, {**OGG, "location": "s3://elsewhere"}))

    assert setup.session.recordings == (STORED, replace_place(STORED, "s3://elsewhere"))


def replace_place(recording: Recording, location: str) -> Recording:
    return recording.model_copy(update={"location": location})


def test_recordings_are_bounded_and_the_log_says_how_many_were_not_stored(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup()
    files: list[JsonValue] = [{"filename": f"{number}.ogg", "location": "s3://x"} for number in range(23)]

    setup.receive(egress({"filename": "x" * MAX_RECORDINGS_BYTES, "location": "s3://x"}, *files))

    assert [recording.file for recording in setup.session.recordings] == [f"{number}.ogg" for number in range(20)]
    [line] = [vars(record) for record in caplog.records if record.message == "recordings_not_stored"]
    assert (line["recordings"], line["session_id"]) == (4, SESSION_ID)


def test_an_event_of_an_unknown_session_changes_nothing() -> None:
    sessions = FakeSessions()
    receive_livekit_webhook = ReceiveLivekitWebhook(AcceptingVerifier(), sessions, unused_rooms, FakeSessionQueue)

    for kind in ("room_started", "participant_joined", "room_finished"):
        asyncio.run(receive_livekit_webhook(SignedWebhook("token", event(kind))))

    assert sessions.stored == {}


@pytest.mark.parametrize("is_known", [True, False])
def test_the_log_says_whether_an_event_was_merged_into_a_session(
    caplog: pytest.LogCaptureFixture, *, is_known: bool
) -> None:
    sessions = FakeSessions(session()) if is_known else FakeSessions()
    receive_livekit_webhook = ReceiveLivekitWebhook(AcceptingVerifier(), sessions, unused_rooms, FakeSessionQueue)

    with caplog.at_level("INFO"):
        asyncio.run(receive_livekit_webhook(SignedWebhook("token", event("room_started"))))

    [line] = [vars(record) for record in caplog.records if record.message == "room_event"]
    assert (line["kind"], line["session_id"], line["merged"]) == ("room_started", SESSION_ID, is_known)


# ---- Joins ----------------------------------------------------------------------------------------------


def capped_session(seconds: int | None, **changes: Any) -> Session:
    return replace(session(), max_duration_seconds=seconds, **changes)


def test_a_session_with_a_cap_is_due_when_the_cap_ends() -> None:
    setup = Setup(capped_session(60))

    setup.receive(event("participant_joined", at=NOW + 10))

    assert without_events(setup.session.duties).due_at == NOW + 10 + 60 + 15
    assert setup.rooms.closed == []


def test_a_join_does_not_move_the_end_of_a_session_without_a_cap() -> None:
    setup = Setup(capped_session(None))
    before = setup.session.duties

    setup.receive(event("participant_joined"))

    assert without_events(setup.session.duties) == before.plus(hang_up=1_800_003_615)


def test_a_recorder_s_join_does_not_start_the_cap() -> None:
    setup = Setup(capped_session(60))

    setup.receive(event("participant_joined", participant={"identity": "rec", "kind": "EGRESS"}))

    assert setup.session.duties.get("hang_up") is None
    assert setup.session.livekit.first_joined_at is None


def test_a_recorder_s_join_to_a_call_that_was_hung_up_closes_its_room_again() -> None:
    setup = Setup(replace(capped_session(60), hung_up_at=NOW))

    setup.receive(event("participant_joined", participant={"identity": "rec", "kind": "EGRESS"}))

    assert setup.rooms.closed == [SESSION_ID]


@pytest.mark.parametrize("kind", ["room_started", "room_finished"])
def test_events_other_than_joins_do_not_start_the_cap(kind: str) -> None:
    setup = Setup(capped_session(60))

    setup.receive(event(kind))

    assert setup.session.duties.due_at == ABANDONED_AT


def test_the_cap_starts_with_the_first_join_also_if_joins_are_repeated_or_out_of_order() -> None:
    setup = Setup(capped_session(60))

    for second in (20, 30, 10, 10, 20):
        setup.receive(event("participant_joined", at=NOW + second))

    assert without_events(setup.session.duties).due_at == NOW + 10 + 75


def test_of_two_concurrent_joins_the_first_starts_the_cap() -> None:
    class Overtaken(FakeSessions):
        """A later join sets the duty to hang up between the merge of this one and its own duty."""

        async def set_duties(self, session_id: SessionId, before: Duties, after: Duties) -> Session | Tombstone | None:
            if before == self.stored[session_id].duties == session().duties:
                later = before.plus(hang_up=NOW + 90 + 75)
                self.stored[session_id] = replace(self.stored[session_id], duties=later)
            return await super().set_duties(session_id, before, after)

    setup = Setup(sessions=Overtaken(capped_session(60)))

    setup.receive(event("participant_joined", at=NOW + 10))

    assert without_events(setup.session.duties).due_at == NOW + 10 + 75


def test_a_repeated_join_sets_the_duty_that_a_crash_lost() -> None:
    room = session().livekit.model_copy(update={"first_joined_at": NOW + 10})
    setup = Setup(capped_session(60, livekit=room))  # merged, without the duty

    setup.receive(event("participant_joined", at=NOW + 10))

    assert without_events(setup.session.duties).due_at == NOW + 10 + 75


def test_an_earlier_duty_stays() -> None:
    setup = Setup(capped_session(1_800, duties=session().duties.plus(hang_up=NOW + 600)))

    setup.receive(event("participant_joined", at=NOW + 10))

    assert without_events(setup.session.duties).due_at == NOW + 600


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "completed"},
        {"status": "failed"},
        {"hung_up_at": NOW + 5, "end_reason": "stopped"},
        {"hung_up_at": NOW + 5, "end_reason": "cap"},
    ],
    ids=str,
)
@pytest.mark.parametrize("cap", [60, None])
def test_a_join_after_the_end_of_a_call_closes_the_room(changes: dict[str, Any], cap: int | None) -> None:
    setup = Setup(capped_session(cap, **changes))

    setup.receive(event("participant_joined"))

    assert setup.rooms.closed == [SESSION_ID]
    assert setup.session.duties.due_at == ABANDONED_AT
    assert setup.session.is_ongoing is False


def test_a_join_to_the_room_of_a_deleted_session_closes_it() -> None:
    setup = Setup(capped_session(60))
    setup.sessions.stored.clear()
    tombstone = Tombstone(SESSION_ID, Duties().plus(close_room=NOW + 660), tokens_end_at=NOW + 660)
    setup.sessions.tombstones[SESSION_ID] = tombstone

    setup.receive(event("participant_joined"))

    assert setup.rooms.closed == [SESSION_ID]
    assert setup.sessions.tombstones == {SESSION_ID: tombstone}


def test_a_join_to_a_room_that_the_completion_kept_does_not_close_it() -> None:
    setup = Setup(capped_session(60, status="completed", room_ends_at=NOW + 3_615))

    setup.receive(event("participant_joined"))

    assert setup.rooms.closed == []


def test_a_join_to_a_kept_room_that_has_ended_closes_it() -> None:
    setup = Setup(capped_session(60, status="completed", room_ends_at=NOW))

    setup.receive(event("participant_joined"))

    assert setup.rooms.closed == [SESSION_ID]


@pytest.mark.parametrize("kind", ["room_started", "room_finished"])
def test_other_events_after_the_end_of_a_call_do_not_close_the_room(kind: str) -> None:
    setup = Setup(capped_session(60, status="completed"))

    setup.receive(event(kind))

    assert setup.rooms.closed == []


def test_a_webhook_fails_if_the_room_cannot_be_closed() -> None:
    setup = Setup(capped_session(60, status="completed"), FailingRooms(LiveKitUnavailable()))

    with pytest.raises(LiveKitUnavailable):
        setup.receive(event("participant_joined"))


# ---- The start of a call --------------------------------------------------------------------------------


def joined(at: int = NOW + 10) -> bytes:
    return event("participant_joined", at=str(at), participant={"identity": "caller-1"})


def test_the_first_person_who_joins_starts_the_call_in_the_write_of_its_end() -> None:
    setup = Setup(replace(session(), max_duration_seconds=60))

    setup.receive(joined())

    [started] = setup.session.owed_events
    assert (started.type, started.at, setup.session.started_at) == ("session.started", NOW + 10, NOW + 10)
    assert setup.session.duties == session().duties.plus(hang_up=NOW + 85, send_events=NOW + 20)
    assert setup.event_queue.session_ids == [SESSION_ID]
    assert setup.sessions.writes == 2  # the event of the room, and this


def test_a_repeated_join_starts_the_call_once() -> None:
    setup = Setup(replace(session(), max_duration_seconds=60))
    for _ in range(3):
        setup.receive(joined())

    assert [each.type for each in setup.session.owed_events] == ["session.started"]
    assert setup.event_queue.session_ids == [SESSION_ID]


def test_a_join_after_a_saved_turn_starts_nothing() -> None:
    setup = Setup(replace(session(), started_at=NOW + 5))

    setup.receive(joined())

    assert (setup.session.started_at, setup.session.owed_events) == (NOW + 5, ())
    assert setup.event_queue.session_ids == []


def test_a_recorder_starts_no_call() -> None:
    setup = Setup()

    setup.receive(event("participant_joined", participant={"identity": "EG_1", "kind": "EGRESS"}))

    assert (setup.session.started_at, setup.session.owed_events) == (None, ())


def test_a_join_from_the_future_starts_the_call_now() -> None:
    setup = Setup()

    setup.receive(joined(NOW + 10**6))

    assert setup.session.started_at == NOW + 999


@pytest.mark.parametrize("changes", [{"hung_up_at": NOW + 5}, {"status": "completed"}, {"status": "failed"}])
def test_a_join_to_a_call_that_is_over_starts_nothing(changes: dict[str, Any]) -> None:
    setup = Setup(replace(session(), **changes))

    setup.receive(joined())

    assert (setup.session.started_at, setup.session.owed_events) == (None, ())


def test_a_call_starts_even_if_its_event_cannot_be_queued(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup()
    setup.event_queue = QueueThatCannotPut()

    assert setup.receive(joined()) == ReceivedWebhook(received=True)

    assert setup.session.started_at == NOW + 10
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == ["events_not_queued"]
