"""Idempotency-Key: a request that is sent again is carried out once, and its answer is built anew from what is kept."""

import json
import uuid
from dataclasses import replace
from typing import Any

import jwt
import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from local import template
from pi_voice import container
from pi_voice.domain.ids import is_uuid
from tests.functions.conftest import ROOT, Answer, Api
from tests.functions.providers import Providers

AGENT = {"name": "Ana", "instructions": "Take the call, and the secret word is Rumpelstiltskin."}
TURNS = [{"role": "user", "text": "I would like to keep this to myself."}]
TABLE = "pi-voice-local-voice_idempotency"


def with_key(api: Api, key: str | None = None) -> Api:
    """The same caller, who sends an Idempotency-Key from now on."""
    return replace(api, headers={**api.headers, "idempotency-key": str(uuid.uuid4()) if key is None else key})


def is_replayed(answer: Answer) -> bool:
    return answer.headers.get("Idempotent-Replayed") == "true"


def records(dynamodb: DynamoDBClient) -> list[dict[str, Any]]:
    return dynamodb.scan(TableName=TABLE)["Items"]


def order_of(api: Api) -> dict[str, Any]:
    return {"agent_id": api.agent(), "participant": {"identity": "caller-1"}, "ttl_seconds": 600}


# ---- Once -------------------------------------------------------------------------------------------


def test_an_agent_is_made_once_and_answered_twice(api: Api) -> None:
    once = with_key(api)

    first, second = once.post("/agents", AGENT), once.post("/agents", AGENT)

    assert (first.status, second.status) == (201, 201)
    assert first.json == second.json
    assert (is_replayed(first), is_replayed(second)) == (False, True)
    assert [agent["agent_id"] for agent in api.get("/agents").json["data"]] == [first.data["agent_id"]]


def test_an_agent_is_answered_as_it_was_made_even_after_a_change(api: Api) -> None:
    once = with_key(api)
    made = once.post("/agents", AGENT).data
    api.patch(f"/agents/{made['agent_id']}", {"name": "Bea"})

    assert once.post("/agents", AGENT).data == made


def test_a_session_is_started_once_and_answered_with_fresh_tokens_for_the_same_call(
    api: Api, providers: Providers
) -> None:
    order, once = order_of(api), with_key(api)

    first, second = once.post("/sessions", order), once.post("/sessions", order)

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


def test_a_session_is_completed_once_and_answered_as_it_is(api: Api) -> None:
    session, once = api.session(), with_key(api)
    path = f"/sessions/{session['session_id']}/complete"

    first, second = once.post(path, {"transcript": TURNS}), once.post(path, {"transcript": TURNS})

    assert (first.status, second.status) == (200, 200)
    assert first.json == second.json
    assert "data" not in second.json
    assert (is_replayed(first), is_replayed(second)) == (False, True)


def test_the_client_of_a_session_may_use_one_too(api: Api) -> None:
    session = api.session()
    client = with_key(replace(api, key=session["client_token"]))
    path = f"/sessions/{session['session_id']}/complete"

    first, second = client.post(path, {"transcript": TURNS}), client.post(path, {"transcript": TURNS})

    assert (first.status, first.json) == (second.status, second.json)
    assert is_replayed(second)


def test_a_participant_who_is_added_again_gets_a_fresh_token_for_the_same_place(api: Api, providers: Providers) -> None:
    path, once = f"/sessions/{api.session()['session_id']}/participants", with_key(api)
    order = {"identity": "listener", "name": "Kim"}

    first, second = once.post(path, order), once.post(path, order)

    assert (first.status, second.status) == (201, 201)
    assert (is_replayed(first), is_replayed(second)) == (False, True)
    assert first.data["participant"] == second.data["participant"] == order
    secret = providers.variables["LIVEKIT_API_SECRET"]
    mine, again = (
        jwt.decode(answer.data["connection"]["livekit"]["token"], secret, algorithms=["HS256"])
        for answer in (first, second)
    )
    assert (mine["sub"], mine["name"], mine["video"]) == (again["sub"], again["name"], again["video"])
    once.post(path, {**order, "identity": "another"}).error("idempotency_key_reused", 422)


def test_a_participant_is_not_added_again_to_a_call_that_is_over(api: Api) -> None:
    path, once = f"/sessions/{api.session()['session_id']}", with_key(api)
    assert once.post(f"{path}/participants", identity="listener").status == 201
    api.post(f"{path}/stop")

    once.post(f"{path}/participants", identity="listener").error("voice_session_not_active", 409)


def test_without_a_key_each_request_is_one_of_its_own(api: Api) -> None:
    assert api.post("/agents", AGENT).data["agent_id"] != api.post("/agents", AGENT).data["agent_id"]


# ---- Whose, and for what ----------------------------------------------------------------------------


def test_a_key_is_good_for_one_body(api: Api) -> None:
    once = with_key(api)
    once.post("/agents", AGENT)

    error = once.post("/agents", {**AGENT, "name": "Bea"}).error("idempotency_key_reused", 422)

    assert not error.retryable


def test_the_keys_of_two_workspaces_and_of_two_routes_have_nothing_to_do_with_each_other(
    api: Api, stranger: Api
) -> None:
    key = str(uuid.uuid4())
    mine, theirs = with_key(api, key).post("/agents", AGENT), with_key(stranger, key).post("/agents", AGENT)
    session = api.session(mine.data["agent_id"])
    ended = with_key(api, key).post(f"/sessions/{session['session_id']}/complete", {"transcript": []})

    assert mine.data["agent_id"] != theirs.data["agent_id"]
    assert ended.status == 200
    assert not any(map(is_replayed, (mine, theirs, ended)))


def test_what_was_refused_may_be_tried_again_under_the_same_key(api: Api) -> None:
    agent, once = api.agent(), with_key(api)
    order = {"agent_id": str(uuid.uuid4()), "participant": {"identity": "caller-1"}}
    once.post("/sessions", order).error("voice_agent_not_found", 404)

    again = once.post("/sessions", {**order, "agent_id": agent})

    assert again.status == 201
    assert not is_replayed(again)


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
def test_a_key_that_is_none_is_told(api: Api, key: str) -> None:
    error = with_key(api, key).post("/agents", AGENT).error("invalid_request", 400)

    assert error.paths == ["Idempotency-Key"]


def test_a_request_that_is_not_valid_uses_no_key_up(api: Api) -> None:
    once = with_key(api)
    once.post("/agents", {"name": ""}).error("invalid_request", 400)

    assert once.post("/agents", AGENT).status == 201


def test_a_session_that_has_ended_is_not_started_again(api: Api) -> None:
    order, once = order_of(api), with_key(api)
    session = once.post("/sessions", order).data
    api.post(f"/sessions/{session['session_id']}/complete", {"transcript": []})

    once.post("/sessions", order).error("voice_session_not_active", 409)


# ---- While and after --------------------------------------------------------------------------------


def test_a_repeat_that_comes_too_early_is_told_to_wait(api: Api, dynamodb: DynamoDBClient) -> None:
    once = with_key(api)
    made = once.post("/agents", AGENT)
    assert made.status == 201
    [record] = [item for item in records(dynamodb) if json.loads(item["data"]["S"]) == made.data["agent_id"]]
    in_an_hour = str((int(record["expiration"]["N"]) - 23 * 3600) * 1000)
    pending = {**record, "status": {"S": "INPROGRESS"}, "in_progress_expiration": {"N": in_an_hour}}
    dynamodb.put_item(TableName=TABLE, Item=pending)

    error = once.post("/agents", AGENT).error("idempotency_in_progress", 409)

    assert error.retryable


def test_a_repeat_of_one_that_crashed_is_carried_out(api: Api, dynamodb: DynamoDBClient) -> None:
    once = with_key(api)
    made = once.post("/agents", AGENT)
    [record] = [item for item in records(dynamodb) if json.loads(item["data"]["S"]) == made.data["agent_id"]]
    crashed = {**record, "status": {"S": "INPROGRESS"}, "in_progress_expiration": {"N": "1000"}}
    dynamodb.put_item(TableName=TABLE, Item=crashed)

    again = once.post("/agents", AGENT)

    assert again.status == 201
    assert not is_replayed(again)


def forget_the_end(dynamodb: DynamoDBClient, made_id: str) -> None:
    """Have the function died before it could note what it had made, and the lock's time be over."""
    for record in records(dynamodb):
        if json.loads(record.pop("data")["S"]) == made_id:
            crashed = {**record, "status": {"S": "INPROGRESS"}, "in_progress_expiration": {"N": "1000"}}
            dynamodb.put_item(TableName=TABLE, Item=crashed)


def test_a_complete_whose_function_died_after_it_is_answered_by_the_session_itself(
    api: Api, dynamodb: DynamoDBClient
) -> None:
    session, once = api.session(), with_key(api)
    path = f"/sessions/{session['session_id']}/complete"
    first = once.post(path, {"transcript": TURNS})
    forget_the_end(dynamodb, session["session_id"])

    second, third = once.post(path, {"transcript": TURNS}), once.post(path, {"transcript": TURNS})

    assert (first.status, second.status, third.status) == (200, 200, 200)
    assert first.json == second.json == third.json
    assert (is_replayed(first), is_replayed(second), is_replayed(third)) == (False, True, True)


def test_nobody_else_s_complete_is_answered_by_the_session_itself(api: Api, dynamodb: DynamoDBClient) -> None:
    session, key = api.session(), str(uuid.uuid4())
    path = f"/sessions/{session['session_id']}/complete"
    assert with_key(api, key).post(path, {"transcript": TURNS}).status == 200
    forget_the_end(dynamodb, session["session_id"])
    client = replace(api, key=session["client_token"])

    for another in (api, with_key(api), with_key(client, key), with_key(client)):
        another.post(path, {"transcript": TURNS}).error("voice_session_not_active", 409)
    with_key(api, key).post(path, {"transcript": []}).error("voice_session_not_active", 409)


def test_what_a_session_keeps_of_a_request_is_a_hash_that_nobody_sees(api: Api, dynamodb: DynamoDBClient) -> None:
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


def test_a_key_that_cannot_be_kept_stops_the_work_before_it_begins(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    container.idempotency.cache_clear()
    container.tables.cache_clear()
    with monkeypatch.context() as environment:
        environment.setenv("VOICE_IDEMPOTENCY_TABLE", "a-table-that-is-not-there")
        with_key(api).post("/agents", AGENT).error("internal_error", 500)
    container.idempotency.cache_clear()
    container.tables.cache_clear()

    assert api.get("/agents").json["data"] == []


def test_what_is_kept_is_an_id_and_no_word_of_the_request_or_the_answer(api: Api, dynamodb: DynamoDBClient) -> None:
    session, key = api.session(), str(uuid.uuid4())
    path = f"/sessions/{session['session_id']}/complete"
    with_key(api, key).post("/agents", AGENT)
    with_key(api, key).post("/sessions", order_of(api))
    with_key(api, key).post(f"/sessions/{session['session_id']}/participants", identity="my-boss@example.com")
    with_key(api, key).post(path, {"transcript": TURNS})

    for record in records(dynamodb):
        assert set(record) <= {"id", "status", "expiration", "in_progress_expiration", "data", "validation"}
        assert is_uuid(json.loads(record["data"]["S"]))
    kept = json.dumps(records(dynamodb))
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
        assert word not in kept


def test_the_table_forgets_by_the_attribute_that_is_written(dynamodb: DynamoDBClient, api: Api) -> None:
    with_key(api).post("/agents", AGENT)
    tables = template.load(ROOT / "template.yaml", {"LIVEKIT_URL": "wss://livekit.example"}).tables
    [expiry] = [table.ttl_attribute for table in tables if table.name == TABLE]

    assert expiry is not None
    assert all(int(record[expiry]["N"]) > 0 for record in records(dynamodb))
