"""LiveKit's webhooks: accepted only with a signature, merged once, and never changing a session's status."""

import json
import time
from collections.abc import Callable
from itertools import permutations
from typing import Any

import jwt
import pytest
from google.protobuf.json_format import MessageToJson
from livekit.protocol.egress import EgressInfo, FileInfo, RoomCompositeEgressRequest, SegmentsInfo
from livekit.protocol.webhook import WebhookEvent

from tests.functions.api import BASE, WEBHOOK_KEY, WEBHOOK_SECRET, Api, Functions, http_event
from tests.functions.livekit_webhooks import Webhook, event, signed

DOCUMENTED = f"{BASE}/webhooks/livekit"


@pytest.fixture
def webhook(functions: Functions) -> Webhook:
    return Webhook(functions)


@pytest.fixture
def session(api: Api) -> dict[str, Any]:
    """An active session with the sid of its room."""
    session = api.session()
    facts = api.get(f"/sessions/{session['session_id']}").data["livekit"]
    return {**session, "sid": facts["room_sid"], "started_at": facts["started_at"]}


def facts_of(api: Api, session: dict[str, Any]) -> dict[str, Any]:
    state = api.get(f"/sessions/{session['session_id']}").data
    assert state["status"] == "active"
    return dict(state["livekit"])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("path", ["/", "/anything/at/all", DOCUMENTED])
def test_a_signed_event_is_merged_on_every_path_plain_or_base64(
    api: Api, webhook: Webhook, session: dict[str, Any], path: str, *, binary: bool
) -> None:
    answer = webhook.send(event("participant_joined", session, at=1_700_000_000), path=path, binary=binary)

    assert (answer.status, answer.json) == (200, {"data": {"received": True}})
    assert facts_of(api, session)["first_joined_at"] == 1_700_000_000


def test_room_finished_merges_the_room_s_metadata_and_completes_nothing(
    api: Api, webhook: Webhook, session: dict[str, Any]
) -> None:
    assert (
        webhook.send(event("room_finished", session, at=1_700_000_100, metadata='{"call": {"rating": 5}}')).status
        == 200
    )

    facts = facts_of(api, session)
    assert facts["finished_at"] == 1_700_000_100
    assert facts["metadata"] == {"call": {"rating": 5}}


@pytest.mark.parametrize(
    "metadata", ["plain text", "[1]", "1", "{", '{"a": "\\ud800"}', '{"a": ' * 500 + "1" + "}" * 500]
)
def test_metadata_that_is_no_json_object_is_kept_as_text(
    api: Api, webhook: Webhook, session: dict[str, Any], metadata: str
) -> None:
    answer = webhook.send(event("room_finished", session, metadata=metadata))

    assert answer.status == 200
    assert facts_of(api, session)["metadata"] == metadata


@pytest.mark.parametrize("depth", [1, 50, 150, 190, 197, 198, 199, 200, 201, 250])
def test_metadata_of_any_depth_can_be_read_and_deleted(
    api: Api, webhook: Webhook, session: dict[str, Any], depth: int
) -> None:
    webhook.send(event("room_finished", session, metadata='{"a": ' * depth + "1" + "}" * depth))

    assert facts_of(api, session)["metadata"]
    api.post(f"/sessions/{session['session_id']}/complete", {"transcript": []})
    assert api.delete(f"/sessions/{session['session_id']}").status == 204


def test_repeated_events_in_any_order_give_the_same_result(api: Api, webhook: Webhook) -> None:
    seen = []
    for order in permutations(range(3)):
        started = api.session()
        session = {**started, "sid": facts_of(api, started)["room_sid"]}
        events = [
            event("participant_joined", session, at=1_700_000_010),
            event("participant_joined", session, at=1_700_000_020),
            event("room_finished", session, at=1_700_000_100, metadata='{"rating": 5}'),
        ]
        for number in (*order, *order):
            assert webhook.send(events[number]).status == 200
        facts = facts_of(api, session)
        seen.append((facts["first_joined_at"], facts["finished_at"], facts["metadata"], facts["other_rooms"]))

    assert set(map(repr, seen)) == {repr((1_700_000_010, 1_700_000_100, {"rating": 5}, []))}


def test_a_second_room_of_the_same_name_is_stored_separately(
    api: Api, webhook: Webhook, session: dict[str, Any]
) -> None:
    assert webhook.send(event("room_finished", session, at=1_700_000_100, metadata='{"first": true}')).status == 200

    times = {"room_started": 1_700_000_200, "participant_joined": 1_700_000_201, "room_finished": 1_700_000_300}
    for kind, at in times.items():
        assert webhook.send(event(kind, session, sid="RM_second", at=at, metadata='{"second": true}')).status == 200

    facts = facts_of(api, session)
    assert (facts["room_sid"], facts["started_at"]) == (session["sid"], session["started_at"])
    assert (facts["finished_at"], facts["metadata"]) == (1_700_000_100, {"first": True})
    assert facts["other_rooms"] == [
        {
            "room_sid": "RM_second",
            "started_at": 1_700_000_200,
            "first_joined_at": 1_700_000_201,
            "finished_at": 1_700_000_300,
            "metadata": {"second": True},
        }
    ]


def test_a_late_event_reaches_a_completed_session(api: Api, webhook: Webhook, session: dict[str, Any]) -> None:
    assert (
        api.post(f"/sessions/{session['session_id']}/complete", transcript=[{"role": "user", "text": "Hi"}]).status
        == 200
    )

    assert webhook.send(event("room_finished", session, at=1_700_000_100)).status == 200

    state = api.get(f"/sessions/{session['session_id']}").data
    assert (state["status"], state["livekit"]["finished_at"]) == ("completed", 1_700_000_100)
    assert state["transcript"] == [{"role": "user", "text": "Hi"}]


@pytest.mark.parametrize("kind", ["participant_left", "track_published", "egress_ended", "something_new"])
def test_other_events_are_accepted_and_ignored(api: Api, webhook: Webhook, session: dict[str, Any], kind: str) -> None:
    before = facts_of(api, session)

    assert webhook.send(event(kind, session)).status == 200
    assert facts_of(api, session) == before


# ---- Recorders and recordings ----


RECORDER = {
    "sid": "PA_E",
    "identity": "EG_recorder",
    "kind": "EGRESS",
    "permission": {"hidden": True, "recorder": True},
}


@pytest.mark.parametrize(
    "participant",
    [RECORDER, {**RECORDER, "kind": "AGENT"}, {"kind": "SIP"}, {"permission": {"hidden": True}}],
    ids=["recorder", "agent", "SIP bridge", "hidden"],
)
def test_only_the_join_of_a_person_starts_the_time_limit(
    api: Api, webhook: Webhook, session: dict[str, Any], participant: dict[str, Any]
) -> None:
    joined = {**json.loads(event("participant_joined", session, at=1_700_000_000)), "participant": participant}

    assert webhook.send(json.dumps(joined)).status == 200
    assert facts_of(api, session)["first_joined_at"] is None


def egress_ended(session: dict[str, Any], status: str = "EGRESS_COMPLETE", **result: Any) -> str:
    """Write the end of a recording as LiveKit's server does, from its protocol's own messages."""
    found = FileInfo(
        filename=f"calls/{session['session_id']}.ogg",
        location=f"https://recordings.s3.eu-west-1.amazonaws.com/calls/{session['session_id']}.ogg",
        started_at=1_700_000_000_123_456_789,
        ended_at=1_700_000_061_373_456_789,
        duration=61_250_000_000,
        size=488_113,
    )
    info = EgressInfo(
        egress_id="EG_1",
        room_id=session["sid"],
        room_name=session["session_id"],
        status=status,
        room_composite=RoomCompositeEgressRequest(room_name=session["session_id"], audio_only=True),
        **{"file_results": [found], "file": found, **result},
    )
    sent = WebhookEvent(event="egress_ended", id="EV_1", created_at=1_700_000_062, egress_info=info)
    return MessageToJson(sent, indent=None)


def recordings_of(api: Api, session: dict[str, Any]) -> Any:
    return api.get(f"/sessions/{session['session_id']}").data["recordings"]


def test_the_end_of_a_recording_adds_its_file_to_the_session_once(
    api: Api, webhook: Webhook, session: dict[str, Any]
) -> None:
    assert recordings_of(api, session) == []

    assert [webhook.send(egress_ended(session)).status for _ in range(3)] == [200, 200, 200]

    name = f"calls/{session['session_id']}.ogg"
    assert recordings_of(api, session) == [
        {
            "file": name,
            "location": f"https://recordings.s3.eu-west-1.amazonaws.com/{name}",
            "duration_seconds": 61.25,
        }
    ]
    assert facts_of(api, session)["first_joined_at"] is None


def test_a_recording_that_ends_after_the_call_is_added_and_the_results_stay(
    api: Api, webhook: Webhook, session: dict[str, Any]
) -> None:
    completed = api.post(f"/sessions/{session['session_id']}/complete", transcript=[{"role": "user", "text": "Hi"}])
    assert webhook.send(egress_ended(session)).status == 200

    state = api.get(f"/sessions/{session['session_id']}").data
    assert len(state["recordings"]) == 1
    assert {**state, "recordings": []} == completed.json
    assert "recordings" not in api.get("/sessions").json["data"][0]


def test_recordings_of_several_files_and_segments_are_all_added(
    api: Api, webhook: Webhook, session: dict[str, Any]
) -> None:
    tracks = [FileInfo(filename=f"{number}.ogg", location=f"s3://{number}.ogg") for number in range(2)]
    segments = SegmentsInfo(playlist_name="call.m3u8", playlist_location="s3://call.m3u8", duration=60_000_000_000)

    webhook.send(egress_ended(session, file_results=tracks, segment_results=[segments]))

    assert recordings_of(api, session) == [
        {"file": "0.ogg", "location": "s3://0.ogg", "duration_seconds": None},
        {"file": "1.ogg", "location": "s3://1.ogg", "duration_seconds": None},
        {"file": "call.m3u8", "location": "s3://call.m3u8", "duration_seconds": 60},
    ]


def test_a_failed_recording_without_a_stored_file_adds_nothing(
    api: Api, webhook: Webhook, session: dict[str, Any]
) -> None:
    body = egress_ended(session, "EGRESS_FAILED", file_results=[FileInfo(filename="lost.ogg")], error="no disk")

    assert webhook.send(body).status == 200
    assert recordings_of(api, session) == []


def test_a_recording_of_a_deleted_session_is_ignored(api: Api, webhook: Webhook, session: dict[str, Any]) -> None:
    assert api.post(f"/sessions/{session['session_id']}/complete", transcript=[]).status == 200
    assert api.delete(f"/sessions/{session['session_id']}").status == 204

    assert webhook.send(egress_ended(session)).status == 200
    api.get(f"/sessions/{session['session_id']}").error("voice_session_not_found", 404)


@pytest.mark.parametrize("name", ["another-room", "", "0199a0f0-0000-7000-8000-000000000000", "x" * 256])
@pytest.mark.parametrize("kind", ["room_started", "participant_joined", "room_finished"])
def test_events_of_unknown_rooms_are_ignored_and_create_no_session(
    webhook: Webhook, dynamodb: Any, kind: str, name: str
) -> None:
    table = next(name for name in dynamodb.list_tables()["TableNames"] if name.endswith("voice_sessions"))
    before = dynamodb.scan(TableName=table)["Count"]

    answer = webhook.send(event(kind, {"session_id": name, "sid": "RM_x"}))

    assert answer.status == 200
    assert dynamodb.scan(TableName=table)["Count"] == before


def test_an_event_does_not_restore_a_deleted_session(api: Api, webhook: Webhook, session: dict[str, Any]) -> None:
    assert api.post(f"/sessions/{session['session_id']}/complete", transcript=[]).status == 200
    assert api.delete(f"/sessions/{session['session_id']}").status == 204

    for sid in (session["sid"], "RM_second"):
        assert webhook.send(event("room_finished", session, sid=sid)).status == 200
    api.get(f"/sessions/{session['session_id']}").error("voice_session_not_found", 404)


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "1",
        "null",
        "{}",
        '{"event": ""}',
        '{"event": 1}',
        '{"event": "x", "room": 1}',
        '{"event": "x", "createdAt": "-1"}',
        '{"event": "x", "createdAt": "%s"}' % ("9" * 40),
        "",
        "no",
    ],
)
def test_a_signed_body_that_is_not_an_event_is_invalid(webhook: Webhook, body: str) -> None:
    webhook.send(body).error("invalid_request", 400)


def test_an_event_without_a_room_is_accepted(webhook: Webhook) -> None:
    assert webhook.send('{"event": "egress_started", "egressInfo": {"egressId": "EG_1"}}').status == 200


GOOD = '{"event": "room_finished"}'
TEN_YEARS = 10 * 365 * 86_400


REFUSED: dict[str, Callable[[int], str]] = {  # by the time of the test, which may run long after its collection
    "nothing": lambda _: "",
    "nonsense": lambda _: "nonsense",
    "of another body": lambda _: signed(GOOD + " "),
    "of another key": lambda _: signed(GOOD, key="APIanother"),
    "with another secret": lambda _: signed(GOOD, secret="another-secret-of-more-than-32-bytes!"),
    "expired": lambda now: signed(GOOD, exp=now - 61),
    "good for too long": lambda now: signed(GOOD, exp=now + 1_000),
    "good for ten years": lambda now: signed(GOOD, exp=now + TEN_YEARS),
    "of null": lambda _: signed(GOOD, sha256=None),
    "of a number": lambda _: signed(GOOD, sha256=1),
    "of no body": lambda now: jwt.encode({"iss": WEBHOOK_KEY, "exp": now + 300}, WEBHOOK_SECRET, "HS256"),
    "not signed": lambda now: jwt.encode({"iss": WEBHOOK_KEY, "exp": now + 300, "sha256": ""}, "", "none"),
}


@pytest.mark.parametrize("token", REFUSED.values(), ids=list(REFUSED))
def test_a_webhook_without_a_current_signature_is_refused(webhook: Webhook, token: Callable[[int], str]) -> None:
    webhook.send(GOOD, token(int(time.time()))).error("invalid_webhook_signature", 401)


def test_a_tampered_body_is_refused(api: Api, webhook: Webhook, session: dict[str, Any]) -> None:
    body = event("participant_joined", session, at=1_700_000_000)

    webhook.send(body.replace("1700000000", "1600000000"), signed(body)).error("invalid_webhook_signature", 401)

    assert facts_of(api, session)["first_joined_at"] is None


def test_a_repeated_webhook_changes_nothing(api: Api, webhook: Webhook, session: dict[str, Any]) -> None:
    body = event("participant_joined", session, at=1_700_000_000)
    token = signed(body)

    assert [webhook.send(body, token).status for _ in range(3)] == [200, 200, 200]
    assert facts_of(api, session)["first_joined_at"] == 1_700_000_000


@pytest.mark.parametrize("authorization", ["not-a-token", signed("x", secret="another-secret-of-more-than-32-bytes")])
def test_the_body_of_an_unsigned_webhook_is_not_read(functions: Functions, authorization: str) -> None:
    request = http_event("POST", "/", {"authorization": authorization}, None)

    answer = functions.invoke("receive_livekit_webhook", {**request, "body": "not base64", "isBase64Encoded": True})

    assert answer["statusCode"] == 401


def test_a_signed_webhook_of_more_than_a_megabyte_is_refused(webhook: Webhook) -> None:
    webhook.send('{"event":"track_published"}'.ljust(1_048_577)).error("request_too_large", 413)


def test_a_signed_webhook_with_too_many_values_is_refused(webhook: Webhook) -> None:
    webhook.send(json.dumps({"event": "track_published", "tracks": [0] * 16_384})).error("request_too_large", 413)
