"""Idempotency-Key: a repeated request runs once, and its response is rebuilt from the stored resource."""

import json
import time
import uuid
from dataclasses import replace
from typing import Any

import jwt
import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from local import template
from pi_voice import container
from pi_voice.domain.ids import is_uuid
from tests.functions.api import Answer, Api
from tests.functions.providers import Providers
from tests.support.template import ROOT

AGENT = {"name": "Ana", "instructions": "Take the call, and the secret word is Rumpelstiltskin."}
TURNS = [{"role": "user", "text": "I would like to keep this to myself."}]
TABLE = "pi-voice-local-voice_idempotency"


def with_key(api: Api, key: str | None = None) -> Api:
    """Return the same caller with an Idempotency-Key."""
    return replace(api, headers={**api.headers, "idempotency-key": str(uuid.uuid4()) if key is None else key})


def is_replayed(answer: Answer) -> bool:
    return answer.headers.get("Idempotent-Replayed") == "true"


def records(dynamodb: DynamoDBClient) -> list[dict[str, Any]]:
    return [row for row in dynamodb.scan(TableName=TABLE)["Items"] if not row["id"]["S"].startswith("rate#")]


def session_request(api: Api) -> dict[str, Any]:
    return {"agent_id": api.agent(), "participant": {"identity": "caller-1"}, "ttl_seconds": 600}


# ---- Repeated requests ------------------------------------------------------------------------------


def test_a_repeated_create_returns_the_same_agent(api: Api) -> None:
    once = with_key(api)

    first, second = once.post("/agents", AGENT), once.post("/agents", AGENT)

    assert (first.status, second.status) == (201, 201)
    assert first.json == second.json
    assert (is_replayed(first), is_replayed(second)) == (False, True)
    assert [agent["agent_id"] for agent in api.get("/agents").json["data"]] == [first.data["agent_id"]]


def test_a_repeated_create_returns_the_agent_as_created_even_after_an_update(api: Api) -> None:
    once = with_key(api)
    made = once.post("/agents", AGENT).data
    assert api.patch(f"/agents/{made['agent_id']}", {"name": "Bea"}).status == 200

    assert once.post("/agents", AGENT).data == made


def test_a_repeated_create_returns_the_same_session_with_new_tokens(api: Api, providers: Providers) -> None:
    request_body, once = session_request(api), with_key(api)

    first, second = once.post("/sessions", request_body), once.post("/sessions", request_body)

    assert (is_replayed(first), is_replayed(second)) == (False, True)
    mine, again = first.data, second.data
    assert {**mine, "connection": None, "client_token": None} == {**again, "connection": None, "client_token": None}
    assert mine["connection"]["gemini_live"]["token"] != again["connection"]["gemini_live"]["token"]
    for answer in (mine, again):
        token = answer["connection"]["livekit"]["token"]
        claims = jwt.decode(token, providers.variables["LIVEKIT_API_SECRET"], algorithms=["HS256"])
        assert claims["video"]["room"] == mine["session_id"]
        assert claims["sub"] == "caller-1"
    assert len(api.get("/sessions").json["data"]) == 1


def test_a_repeated_complete_returns_the_session(api: Api) -> None:
    session, once = api.session(), with_key(api)
    path = f"/sessions/{session['session_id']}/complete"

    first, second = once.post(path, {"transcript": TURNS}), once.post(path, {"transcript": TURNS})

    assert (first.status, second.status) == (200, 200)
    assert first.json == second.json
    assert "data" not in second.json
    assert (is_replayed(first), is_replayed(second)) == (False, True)


def test_a_client_token_may_be_used_with_an_idempotency_key(api: Api) -> None:
    session = api.session()
    client = with_key(replace(api, key=session["client_token"]))
    path = f"/sessions/{session['session_id']}/complete"

    first, second = client.post(path, {"transcript": TURNS}), client.post(path, {"transcript": TURNS})

    assert (first.status, first.json) == (second.status, second.json)
    assert is_replayed(second)


def test_a_repeated_participant_gets_a_new_token_with_the_same_grants(api: Api, providers: Providers) -> None:
    path, once = f"/sessions/{api.session()['session_id']}/participants", with_key(api)
    request_body = {"identity": "listener", "name": "Kim"}

    first, second = once.post(path, request_body), once.post(path, request_body)

    assert (first.status, second.status) == (201, 201)
    assert (is_replayed(first), is_replayed(second)) == (False, True)
    assert first.data["participant"] == second.data["participant"] == request_body
    secret = providers.variables["LIVEKIT_API_SECRET"]
    mine, again = (
        jwt.decode(answer.data["connection"]["livekit"]["token"], secret, algorithms=["HS256"])
        for answer in (first, second)
    )
    assert (mine["sub"], mine["name"], mine["video"]) == (again["sub"], again["name"], again["video"])
    once.post(path, {**request_body, "identity": "another"}).error("idempotency_key_reused", 422)


def test_a_repeated_participant_of_a_stopped_call_is_refused(api: Api) -> None:
    path, once = f"/sessions/{api.session()['session_id']}", with_key(api)
    assert once.post(f"{path}/participants", identity="listener").status == 201
    assert api.post(f"{path}/stop").status == 200

    once.post(f"{path}/participants", identity="listener").error("voice_session_not_active", 409)


def test_without_a_key_each_request_creates_an_agent(api: Api) -> None:
    assert api.post("/agents", AGENT).data["agent_id"] != api.post("/agents", AGENT).data["agent_id"]


# ---- Scope of a key ---------------------------------------------------------------------------------


def test_a_key_is_valid_for_one_body(api: Api) -> None:
    once = with_key(api)
    assert once.post("/agents", AGENT).status == 201

    error = once.post("/agents", {**AGENT, "name": "Bea"}).error("idempotency_key_reused", 422)

    assert not error.retryable


def test_the_same_key_of_another_workspace_or_route_does_not_collide(api: Api, stranger: Api) -> None:
    key = str(uuid.uuid4())
    mine, theirs = with_key(api, key).post("/agents", AGENT), with_key(stranger, key).post("/agents", AGENT)
    session = api.session(mine.data["agent_id"])
    ended = with_key(api, key).post(f"/sessions/{session['session_id']}/complete", {"transcript": []})

    assert mine.data["agent_id"] != theirs.data["agent_id"]
    assert ended.status == 200
    assert not any(map(is_replayed, (mine, theirs, ended)))


def test_a_refused_request_may_be_retried_with_the_same_key(api: Api) -> None:
    agent, once = api.agent(), with_key(api)
    request_body = {"agent_id": str(uuid.uuid4()), "participant": {"identity": "caller-1"}}
    once.post("/sessions", request_body).error("voice_agent_not_found", 404)

    again = once.post("/sessions", {**request_body, "agent_id": agent})

    assert again.status == 201
    assert not is_replayed(again)


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
def test_a_malformed_key_is_refused(api: Api, key: str) -> None:
    error = with_key(api, key).post("/agents", AGENT).error("invalid_request", 400)

    assert error.paths == ["Idempotency-Key"]


def test_an_invalid_request_does_not_use_up_the_key(api: Api) -> None:
    once = with_key(api)
    once.post("/agents", {"name": ""}).error("invalid_request", 400)

    assert once.post("/agents", AGENT).status == 201


def test_a_repeated_create_of_an_ended_session_is_refused(api: Api) -> None:
    request_body, once = session_request(api), with_key(api)
    session = once.post("/sessions", request_body).data
    assert api.post(f"/sessions/{session['session_id']}/complete", {"transcript": []}).status == 200

    once.post("/sessions", request_body).error("voice_session_not_active", 409)


# ---- In progress, and after a crash -----------------------------------------------------------------


def test_a_repeat_during_the_first_request_gets_409_and_may_retry(api: Api, dynamodb: DynamoDBClient) -> None:
    once = with_key(api)
    made = once.post("/agents", AGENT)
    assert made.status == 201
    [record] = [item for item in records(dynamodb) if json.loads(item["data"]["S"]) == made.data["agent_id"]]
    in_an_hour = str((int(record["expiration"]["N"]) - 23 * 3600) * 1000)
    pending = {**record, "status": {"S": "INPROGRESS"}, "in_progress_expiration": {"N": in_an_hour}}
    dynamodb.put_item(TableName=TABLE, Item=pending)

    error = once.post("/agents", AGENT).error("idempotency_in_progress", 409)

    assert error.retryable


def test_a_repeat_after_a_crash_is_executed(api: Api, dynamodb: DynamoDBClient) -> None:
    once = with_key(api)
    made = once.post("/agents", AGENT)
    [record] = [item for item in records(dynamodb) if json.loads(item["data"]["S"]) == made.data["agent_id"]]
    crashed = {**record, "status": {"S": "INPROGRESS"}, "in_progress_expiration": {"N": "1000"}}
    dynamodb.put_item(TableName=TABLE, Item=crashed)

    again = once.post("/agents", AGENT)

    assert again.status == 201
    assert not is_replayed(again)


def reset_record(dynamodb: DynamoDBClient, made_id: str) -> None:
    """Reset the record as if the function crashed before it stored the id, with an expired lock."""
    for record in records(dynamodb):
        if json.loads(record.pop("data")["S"]) == made_id:
            crashed = {**record, "status": {"S": "INPROGRESS"}, "in_progress_expiration": {"N": "1000"}}
            dynamodb.put_item(TableName=TABLE, Item=crashed)


def test_a_complete_whose_function_crashed_after_it_is_recognized_by_the_session(
    api: Api, dynamodb: DynamoDBClient
) -> None:
    session, once = api.session(), with_key(api)
    path = f"/sessions/{session['session_id']}/complete"
    first = once.post(path, {"transcript": TURNS})
    reset_record(dynamodb, session["session_id"])

    second, third = once.post(path, {"transcript": TURNS}), once.post(path, {"transcript": TURNS})

    assert (first.status, second.status, third.status) == (200, 200, 200)
    assert first.json == second.json == third.json
    assert (is_replayed(first), is_replayed(second), is_replayed(third)) == (False, True, True)


def test_a_different_complete_is_not_recognized_by_the_session(api: Api, dynamodb: DynamoDBClient) -> None:
    session, key = api.session(), str(uuid.uuid4())
    path = f"/sessions/{session['session_id']}/complete"
    assert with_key(api, key).post(path, {"transcript": TURNS}).status == 200
    reset_record(dynamodb, session["session_id"])
    client = replace(api, key=session["client_token"])

    for another in (api, with_key(api), with_key(client, key), with_key(client)):
        another.post(path, {"transcript": TURNS}).error("voice_session_not_active", 409)
    with_key(api, key).post(path, {"transcript": []}).error("voice_session_not_active", 409)


def test_a_session_stores_a_request_hash_that_is_never_returned(api: Api, dynamodb: DynamoDBClient) -> None:
    session, key = api.session(), str(uuid.uuid4())
    path = f"/sessions/{session['session_id']}"
    ended = with_key(api, key).post(f"{path}/complete", {"transcript": TURNS})
    row = dynamodb.get_item(
        TableName="pi-voice-local-voice_sessions", Key={"session_id": {"S": session["session_id"]}}
    )["Item"]

    assert len(row["request_hash"]["S"]) == 64
    for shown in (ended, api.get(path), api.get("/sessions")):
        assert row["request_hash"]["S"] not in shown.text
        assert "request_hash" not in shown.text


def test_a_key_that_cannot_be_stored_prevents_the_work(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    container.idempotency.cache_clear()
    container.tables.cache_clear()
    with monkeypatch.context() as environment:
        environment.setenv("VOICE_IDEMPOTENCY_TABLE", "a-table-that-is-not-there")
        with_key(api).post("/agents", AGENT).error("internal_error", 500)
    container.idempotency.cache_clear()
    container.tables.cache_clear()

    assert api.get("/agents").json["data"] == []


def test_the_record_has_an_id_and_no_content_of_request_or_response(api: Api, dynamodb: DynamoDBClient) -> None:
    session, key = api.session(), str(uuid.uuid4())
    path = f"/sessions/{session['session_id']}/complete"
    assert with_key(api, key).post("/agents", AGENT).status == 201
    assert with_key(api, key).post("/sessions", session_request(api)).status == 201
    assert (
        with_key(api, key)
        .post(f"/sessions/{session['session_id']}/participants", identity="my-boss@example.com")
        .status
        == 201
    )
    assert with_key(api, key).post(path, {"transcript": TURNS}).status == 200

    assert len(records(dynamodb)) >= 4
    for record in records(dynamodb):
        assert set(record) <= {"id", "status", "expiration", "in_progress_expiration", "data", "validation"}
        assert is_uuid(json.loads(record["data"]["S"]))
    stored = json.dumps(records(dynamodb))
    for word in (
        "Rumpelstiltskin",
        "myself",
        "auth_tokens",
        "pi_sess_",
        "pi_live_",
        "eyJ",
        "my-boss",
        key,
        api.workspace,
    ):
        assert word not in stored


def test_records_have_the_ttl_attribute_of_the_table(dynamodb: DynamoDBClient, api: Api) -> None:
    assert with_key(api).post("/agents", AGENT).status == 201
    tables = template.load(ROOT / "template.yaml", {"LIVEKIT_URL": "wss://livekit.example"}).tables
    [expiry] = [table.ttl_attribute for table in tables if table.name == TABLE]

    assert expiry is not None
    in_a_day = time.time() + 86_400
    times = [int(record[expiry]["N"]) for record in records(dynamodb)]
    assert times
    assert [at for at in times if not in_a_day - 3_600 < at < in_a_day + 60] == []
