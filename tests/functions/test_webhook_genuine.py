"""Webhooks recorded from a LiveKit server by tests/real/capture_webhooks.py, with new signatures."""

import base64
import hashlib
import io
import json
import time
from collections.abc import Mapping
from typing import Any, Final

import jwt
import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from tests.functions.api import WEBHOOK_KEY, WEBHOOK_SECRET, Api, Functions, http_event
from tests.support.template import ROOT

GENUINE: Final = json.loads((ROOT / "tests/support/livekit_webhooks.json").read_text(encoding="utf-8"))
WEBHOOKS: Final[Mapping[str, Any]] = {webhook["event"]: webhook for webhook in GENUINE["webhooks"]}
ROOM: Final = json.loads(WEBHOOKS["room_started"]["body"])["room"]
SET_FIELDS: Final = {"participant_joined": ["first_joined_at"], "room_finished": ["finished_at", "metadata"]}
"""Fields that each kind of event sets in a session; other kinds set none."""


def created_at(event: str) -> int:
    return int(json.loads(WEBHOOKS[event]["body"])["createdAt"])


@pytest.fixture
def session(api: Api) -> dict[str, Any]:
    """A session with the state of its room before any webhook."""
    started = api.session()
    return {**started, "facts": facts_of(api, started)}


def facts_of(api: Api, session: Mapping[str, Any]) -> dict[str, Any]:
    state = api.get(f"/sessions/{session['session_id']}").data
    assert state["status"] == "active"
    return dict(state["livekit"])


def receive(functions: Functions, event: str, session: Mapping[str, Any], sid: str | None = None) -> None:
    """Send a recorded event to the function for a session's room."""
    webhook = WEBHOOKS[event]
    body = webhook["body"].replace(ROOM["name"], session["session_id"])
    body = body.replace(ROOM["sid"], sid or session["facts"]["room_sid"])
    now = int(time.time())
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    claims = {"iss": WEBHOOK_KEY, "exp": now + 300, "nbf": now, "iat": now, "sha256": digest}
    assert claims.keys() == webhook["token"]["claims"].keys()
    token = jwt.encode(claims, WEBHOOK_SECRET, headers=webhook["token"]["header"])
    headers = {**webhook["headers"], "authorization": token}
    answer = functions.invoke("receive_livekit_webhook", http_event("POST", "/", headers, body, binary=True))
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"data": {"received": True}})


def test_the_recording_has_every_kind_of_event_and_no_password_of_a_server() -> None:
    assert list(WEBHOOKS) == [
        "room_started",
        "participant_joined",
        "track_published",
        "participant_connection_aborted",
        "track_unpublished",
        "participant_left",
        "room_finished",
    ]
    passwords = {json.loads(webhook["body"])["room"].get("turnPassword") for webhook in WEBHOOKS.values()}
    assert passwords == {None, "a-turn-password-that-opens-nothing"}


def test_the_events_of_a_whole_call_are_merged(functions: Functions, api: Api, session: dict[str, Any]) -> None:
    for event in WEBHOOKS:
        receive(functions, event, session)

    assert facts_of(api, session) == {
        **session["facts"],
        "first_joined_at": created_at("participant_joined"),
        "finished_at": created_at("room_finished"),
        "metadata": {"session_id": session["session_id"]},
    }


@pytest.mark.parametrize("event", WEBHOOKS)
def test_an_event_changes_only_its_own_fields(
    functions: Functions, api: Api, session: dict[str, Any], event: str
) -> None:
    receive(functions, event, session)

    facts = facts_of(api, session)
    assert [name for name in facts if facts[name] != session["facts"][name]] == SET_FIELDS.get(event, [])


def test_the_events_of_a_second_room_are_stored_separately(
    functions: Functions, api: Api, session: dict[str, Any]
) -> None:
    for event in WEBHOOKS:
        receive(functions, event, session, sid="RM_second")

    second = {
        "room_sid": "RM_second",
        "started_at": created_at("room_started"),
        "first_joined_at": created_at("participant_joined"),
        "finished_at": created_at("room_finished"),
        "metadata": {"session_id": session["session_id"]},
    }
    assert facts_of(api, session) == {**session["facts"], "other_rooms": [second]}


def test_other_content_of_events_is_neither_stored_nor_logged(
    functions: Functions, dynamodb: DynamoDBClient, logged: io.StringIO, session: dict[str, Any]
) -> None:
    for event in WEBHOOKS:
        receive(functions, event, session)

    table = next(name for name in dynamodb.list_tables()["TableNames"] if name.endswith("voice_sessions"))
    row = dynamodb.get_item(TableName=table, Key={"session_id": {"S": session["session_id"]}})["Item"]
    for text in (repr(row), logged.getvalue()):
        assert session["session_id"] in text
        for word in (ROOM["turnPassword"], "Ana Ñ", "PA_", "TR_", "EV_", "audio/opus", WEBHOOK_SECRET, "eyJ"):
            assert word not in text
