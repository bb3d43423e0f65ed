"""The routes of sessions: create, read, list, add participants, delete."""

import time
from typing import Any

import jwt
import pytest

from tests.functions.api import Api
from tests.functions.providers import Providers
from tests.support.bad_values import each, set_at

REQUEST = {"participant": {"identity": "caller-1", "name": "Lea"}}


def test_a_created_session_has_both_connections(api: Api, providers: Providers) -> None:
    agent = api.agent(behaviors={"max_duration_seconds": 300})
    before = int(time.time())

    started = api.post(
        "/sessions", {**REQUEST, "agent_id": agent, "metadata": {"order": "7"}, "client_metadata": {"a": "b"}}
    )

    session = started.data
    assert started.status == 201
    assert session.keys() == {
        "session_id", "agent_id", "agent_version", "status", "participant", "max_duration_seconds", "ttl_seconds",
        "created_at", "expires_at", "client_token", "connection", "client_metadata",
    }  # fmt: skip
    assert session["client_metadata"] == {"a": "b"}
    assert (session["agent_id"], session["agent_version"], session["status"]) == (agent, 1, "active")
    assert (session["max_duration_seconds"], session["ttl_seconds"]) == (300, 600)
    assert session["expires_at"] == session["created_at"] + 600
    assert before <= session["created_at"] <= time.time()
    assert session["client_token"].startswith("pi_sess_")
    livekit, gemini = session["connection"]["livekit"], session["connection"]["gemini_live"]
    assert livekit["url"] == providers.variables["LIVEKIT_URL"]
    assert livekit["room"] == session["session_id"]
    service = "google.ai.generativelanguage.v1alpha.GenerativeService"
    assert gemini["url"].endswith(f"/ws/{service}.BidiGenerateContentConstrained")
    assert gemini["token"].startswith("auth_tokens/")
    assert gemini["model"] == "gemini-live-test"
    assert gemini["setup"] == {"setup": {"model": "models/gemini-live-test", "sessionResumption": {}}}


def test_the_livekit_token_grants_one_room_to_one_participant(api: Api, providers: Providers) -> None:
    session = api.session(participant={"identity": "caller-1", "name": "Lea"}, media=["microphone", "camera"])

    claims = jwt.decode(
        session["connection"]["livekit"]["token"],
        providers.variables["LIVEKIT_API_SECRET"],
        algorithms=["HS256"],
        issuer=providers.variables["LIVEKIT_API_KEY"],
    )

    assert (claims["sub"], claims["name"]) == ("caller-1", "Lea")
    assert claims["exp"] == session["expires_at"]
    assert claims["video"] == {
        "roomJoin": True,
        "room": session["session_id"],
        "canPublish": True,
        "canPublishSources": ["microphone", "camera"],
        "canPublishData": True,
        "canSubscribe": True,
        "canUpdateOwnMetadata": False,
    }
    assert claims["roomConfig"] == {"emptyTimeout": 600, "departureTimeout": 60}


def test_the_room_has_the_sessions_ttl_and_only_its_id_as_metadata(api: Api, providers: Providers) -> None:
    session = api.session(ttl_seconds=900)

    room = providers.room(session["session_id"])

    assert room.empty_timeout == 900
    assert room.metadata == f'{{"session_id":"{session["session_id"]}"}}'
    state = api.get(f"/sessions/{session['session_id']}").data
    assert state["livekit"]["room_sid"] == room.sid
    assert state["livekit"]["started_at"] == room.creation_time


def test_a_new_session_has_all_documented_fields(api: Api) -> None:
    session = api.session(metadata={"order": "7"}, client_metadata={"page": "checkout"})

    state = api.get(f"/sessions/{session['session_id']}").data

    facts = state.pop("livekit")
    assert facts.pop("room_sid")
    assert facts.pop("started_at")
    assert facts == {
        "room_name": session["session_id"],
        "first_joined_at": None,
        "finished_at": None,
        "metadata": None,
        "other_rooms": [],
    }
    assert state == {
        "session_id": session["session_id"],
        "agent_id": session["agent_id"],
        "agent_version": 1,
        "status": "active",
        "participant": {"identity": "caller-1", "name": ""},
        "max_duration_seconds": None,
        "ttl_seconds": 600,
        "created_at": session["created_at"],
        "expires_at": session["expires_at"],
        "completed_at": None,
        "failed_at": None,
        "failure": None,
        "duration_seconds": None,
        "end_reason": None,
        "completed_by": None,
        "hung_up_at": None,
        "checkpoint_turns": 0,
        "transcript": None,
        "tool_calls": [],
        "results": None,
        "extraction": None,
        "recordings": [],
        "usage": None,
        "variables": {},
        "time_zone": "UTC",
        "overrides": None,
        "metadata": {"order": "7"},
        "client_metadata": {"page": "checkout"},
    }
    [listed] = api.get("/sessions").json["data"]
    assert {name: state.get(name) for name in listed if name != "livekit"} == {
        name: value for name, value in listed.items() if name != "livekit"
    }


@pytest.mark.parametrize(
    ("agent_cap", "requested", "expected"),
    [(300, {}, 300), (None, {}, None), (300, {"max_duration_seconds": None}, None),
     (None, {"max_duration_seconds": 60}, 60), (900, {"max_duration_seconds": 120}, 120)],
)  # fmt: skip
def test_the_cap_is_the_sessions_or_else_the_agents(
    api: Api, agent_cap: int | None, requested: dict[str, Any], expected: int | None
) -> None:
    agent = api.agent(behaviors={"max_duration_seconds": agent_cap})

    assert api.session(agent, **requested)["max_duration_seconds"] == expected


def test_a_ttl_shorter_than_the_cap_is_refused_with_the_minimum(api: Api, providers: Providers) -> None:
    agent = api.agent(behaviors={"max_duration_seconds": 900})
    rooms = providers.rooms()

    error = api.post("/sessions", {**REQUEST, "agent_id": agent}).error("voice_session_ttl_too_short", 400)

    assert error.message.endswith("at least 900.")
    assert providers.rooms() == rooms
    assert api.get("/sessions").json["data"] == []
    assert api.session(agent, ttl_seconds=900)["ttl_seconds"] == 900


BAD: list[tuple[str, object]] = [
    *each("agent_id", None, 1, []),
    *each("participant", None, "x", []),
    *each("participant.identity", None, "", " ", 1, "x" * 129),
    *each("participant.name", 1, "x" * 129),
    ("participant.kind", "agent"),
    *each("ttl_seconds", 59, 3601, "600", 600.5, None, True),
    *each("max_duration_seconds", 59, 1801, "300", 60.5, True),
    *each("media", None, [], "microphone", ["camera"], ["microphone", "microphone"]),
    *each("metadata", None, [], {str(n): "x" for n in range(17)}),
    *each("client_metadata", None, [], {str(n): "x" for n in range(17)}),
    *each("client_metadata.key", 1, None, "x" * 501, {}),
    ("room", "mine"),
    ("hidden", True),
]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_a_bad_field_is_refused_by_its_path_and_nothing_is_provisioned(
    api: Api, providers: Providers, path: str, value: object
) -> None:
    request = set_at({**REQUEST, "agent_id": api.agent()}, path, value)
    rooms = providers.rooms()

    assert api.post("/sessions", request).error("invalid_request", 400).paths == [path]
    assert providers.rooms() == rooms


@pytest.mark.parametrize("agent_id", ["", "x", "0199a0f0-0000-7000-8000-000000000000", "x" * 5000])
def test_a_session_of_an_unknown_agent_is_refused(api: Api, agent_id: str) -> None:
    api.post("/sessions", {**REQUEST, "agent_id": agent_id}).error("voice_agent_not_found", 404)


def test_a_session_of_another_workspaces_agent_is_refused(api: Api, stranger: Api) -> None:
    stranger.post("/sessions", {**REQUEST, "agent_id": api.agent()}).error("voice_agent_not_found", 404)


def test_another_workspaces_session_is_not_found(api: Api, stranger: Api) -> None:
    path = f"/sessions/{api.session()['session_id']}"

    for answer in (
        stranger.get(path),
        stranger.delete(path),
        stranger.post(f"{path}/complete", transcript=[]),
        stranger.post(f"{path}/participants", identity="spy"),
        stranger.post(f"{path}/transcript", {"from": 0, "turns": [{"role": "user", "text": "Hi"}]}),
        stranger.post(f"{path}/renew"),
        stranger.post(f"{path}/stop"),
    ):
        answer.error("voice_session_not_found", 404)
    assert stranger.get("/sessions").json["data"] == []
    assert api.get(path).data["status"] == "active"


@pytest.mark.parametrize("session_id", ["x", "0199a0f0-0000-7000-8000-000000000000", "x" * 3000])
def test_an_unknown_session_is_not_found(api: Api, session_id: str) -> None:
    path = f"/sessions/{session_id}"

    for answer in (
        api.get(path),
        api.delete(path),
        api.post(f"{path}/complete", transcript=[]),
        api.post(f"{path}/participants", identity="colleague"),
        api.post(f"{path}/transcript", {"from": 0, "turns": [{"role": "user", "text": "Hi"}]}),
        api.post(f"{path}/renew"),
        api.post(f"{path}/stop"),
    ):
        answer.error("voice_session_not_found", 404)


def test_an_added_participant_gets_a_token_for_the_room_until_the_session_expires(
    api: Api, providers: Providers
) -> None:
    session = api.session()

    added = api.post(f"/sessions/{session['session_id']}/participants", identity="colleague", name="Kim")

    assert added.status == 201
    assert added.data.keys() == {"session_id", "participant", "expires_at", "connection"}
    assert added.data["participant"] == {"identity": "colleague", "name": "Kim"}
    assert added.data["expires_at"] == session["expires_at"]
    livekit = added.data["connection"]["livekit"]
    assert livekit["room"] == session["session_id"]
    claims = jwt.decode(livekit["token"], providers.variables["LIVEKIT_API_SECRET"], algorithms=["HS256"])
    assert (claims["sub"], claims["exp"]) == ("colleague", session["expires_at"])
    assert claims["video"]["canPublishSources"] == ["microphone"]


@pytest.mark.parametrize(
    ("path", "value"),
    [*each("identity", None, "", " ", 1, "x" * 129, "caller-1"), ("name", 1), ("name", "x" * 129),
     ("media", []), ("media", ["screen"]), ("ttl_seconds", 60)],
)  # fmt: skip
def test_a_bad_participant_is_refused_by_its_path(api: Api, path: str, value: object) -> None:
    session = api.session()
    request = {"identity": "colleague", path: value}

    error = api.post(f"/sessions/{session['session_id']}/participants", request).error("invalid_request", 400)

    assert error.paths == [path if value != ["screen"] else "media.0"]


def test_no_participant_is_added_to_an_ended_session(api: Api) -> None:
    session = api.session()
    assert api.post(f"/sessions/{session['session_id']}/complete", transcript=[]).status == 200

    answer = api.post(f"/sessions/{session['session_id']}/participants", identity="late")

    answer.error("voice_session_not_active", 409)


def test_only_an_ended_session_can_be_deleted_and_its_transcript_is_deleted_too(api: Api, dynamodb: Any) -> None:
    session = api.session()
    path = f"/sessions/{session['session_id']}"
    api.delete(path).error("voice_session_active", 409)
    assert api.post(f"{path}/transcript", {"from": 0, "turns": [{"role": "user", "text": "Forget me."}]}).status == 200
    assert api.post(f"{path}/complete", transcript=[{"role": "user", "text": "Forget me."}]).status == 200

    deleted = api.delete(path)

    assert (deleted.status, deleted.text) == (204, "")
    for answer in (api.get(path), api.delete(path), api.post(f"{path}/complete", transcript=[])):
        answer.error("voice_session_not_found", 404)
    items = [item for table in dynamodb.list_tables()["TableNames"] for item in dynamodb.scan(TableName=table)["Items"]]
    [tombstone] = [item for item in items if {"S": session["session_id"]} in item.values()]
    assert tombstone.keys() == {"session_id", "status", "duties", "due_at", "due_shard", "ttl", "tokens_end_at"}


def test_the_list_omits_long_fields_and_filters_by_status_and_agent(api: Api) -> None:
    one, other = api.agent(), api.agent()
    first, second, third = api.session(one), api.session(one), api.session(other)
    assert (
        api.post(f"/sessions/{first['session_id']}/complete", transcript=[{"role": "user", "text": "Hi"}]).status == 200
    )

    def listed(**query: str) -> set[str]:
        return {session["session_id"] for session in api.get("/sessions", **query).json["data"]}

    everything = api.get("/sessions").json
    assert everything["next_cursor"] is None
    assert listed() == {first["session_id"], second["session_id"], third["session_id"]}
    assert not {"transcript", "results", "extraction"} & set(everything["data"][0])
    assert listed(status="completed") == {first["session_id"]}
    assert listed(status="active", agent_id=one) == {second["session_id"]}
    assert listed(agent_id=other) == {third["session_id"]}
    assert listed(status="failed") == listed(agent_id="nothing") == set()
    assert api.get("/sessions", status="done").error("invalid_request", 400).paths == ["status"]


def test_the_list_filters_by_participant_and_time_together_with_the_other_filters(api: Api) -> None:
    one, other = api.agent(), api.agent()
    ana = {"identity": "ana & bo", "name": "Kim"}
    first, second, third = api.session(one), api.session(one, participant=ana), api.session(other, participant=ana)
    begin, end = first["created_at"], third["created_at"] + 1

    def listed(**query: object) -> set[str]:
        found = api.get("/sessions", **{name: str(value) for name, value in query.items()}).json["data"]
        return {session["session_id"] for session in found}

    assert listed(participant="ana & bo") == {second["session_id"], third["session_id"]}
    assert listed(participant="ana & bo", agent_id=one, status="active") == {second["session_id"]}
    assert listed(participant="Kim") == listed(participant="ana & bo", status="failed") == set()
    everything = {first["session_id"], second["session_id"], third["session_id"]}
    assert listed(created_after=begin) == listed(created_after=begin, created_before=end) == everything
    assert listed(created_after=begin, created_before=end, agent_id=other) == {third["session_id"]}
    assert listed(created_after=end + 60) == listed(created_before=begin) == set()
    api.get("/sessions", created_after="10", created_before="10").error("invalid_request", 400)
