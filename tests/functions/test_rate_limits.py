"""Rate limits of creating and completing sessions; test_rerun_extraction.py has those of extractions."""

import io
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mypy_boto3_dynamodb.client import DynamoDBClient

from pi_voice import container
from tests.functions.api import Answer, Api
from tests.functions.front import changed_environment
from tests.functions.providers import Providers
from tests.functions.transcripts import ENDING


def refused(send: Callable[[], Answer]) -> Answer:
    """Return the first response over a limit of one request: the second, or the third in the next minute."""
    answers = [send() for _ in range(3)]
    return next(answer for answer in answers if answer.status == 429)


def counters(dynamodb: DynamoDBClient) -> list[str]:
    rows = dynamodb.scan(TableName=container.tables().idempotency)["Items"]
    return [row["id"]["S"] for row in rows if row["id"]["S"].startswith("rate#")]


def request_of(api: Api) -> dict[str, Any]:
    return {"agent_id": api.agent(), "participant": {"identity": "caller-1"}}


def test_creates_over_the_limit_are_refused_and_open_no_room(api: Api, stranger: Api, providers: Providers) -> None:
    with changed_environment(api, CREATES_PER_MINUTE="1"):
        body = request_of(api)
        answer = refused(lambda: api.post("/sessions", body))

        assert answer.error("rate_limited", 429).retryable
        assert re.fullmatch(r"[1-9]|[1-5]\d|60", answer.headers["Retry-After"])
        assert stranger.session()["status"] == "active"
    sessions = api.get("/sessions").json["data"]
    assert len(sessions) < 3
    assert {each["session_id"] for each in sessions} <= {*providers.rooms()}


def test_completes_over_the_limit_are_refused_and_change_nothing(api: Api) -> None:
    paths = [f"/sessions/{api.session()['session_id']}" for _ in range(3)]
    with changed_environment(api, COMPLETES_PER_MINUTE="1"):
        left = list(paths)
        refused(lambda: api.post(f"{left.pop()}/complete", ENDING)).error("rate_limited", 429)

    states = [api.get(path).data for path in paths]
    assert "active" in [state["status"] for state in states]
    assert all((state["transcript"] is None) == (state["status"] == "active") for state in states)
    for path, state in zip(paths, states, strict=True):
        assert api.post(f"{path}/complete", ENDING).status == (200 if state["status"] == "active" else 409)


def test_a_client_token_has_a_limit_of_its_own(api: Api) -> None:
    session = api.session()
    path = f"/sessions/{session['session_id']}"
    with changed_environment(api, COMPLETES_PER_MINUTE="1"):
        refused(lambda: api.post("/sessions/no-id/complete", ENDING)).error("rate_limited", 429)

        assert api.client_of(session).post(f"{path}/complete", ENDING).status == 200
        refused(lambda: api.client_of(session).post(f"{path}/complete", ENDING)).error("rate_limited", 429)


def test_a_wrong_key_is_not_counted(api: Api, dynamodb: DynamoDBClient) -> None:
    body, wrong = request_of(api), replace(api, key=f"{api.key}x")
    before = counters(dynamodb)

    wrong.post("/sessions", body).error("invalid_api_key", 401)
    wrong.post("/sessions/no-id/complete", ENDING).error("invalid_api_key", 401)

    assert counters(dynamodb) == before


def test_the_idempotency_key_of_a_refused_request_can_be_used_again(api: Api) -> None:
    body = request_of(api)
    keys = [str(uuid.uuid4()) for _ in range(3)]
    with changed_environment(api, CREATES_PER_MINUTE="1"):
        once = [replace(api, headers={"idempotency-key": key}) for key in keys]
        statuses = [each.post("/sessions", body).status for each in once]
    assert 429 in statuses

    assert [each.post("/sessions", body).status for each in once] == [201, 201, 201]
    assert len(api.get("/sessions").json["data"]) == 3


def test_without_its_counter_a_session_is_not_created(api: Api) -> None:
    body = request_of(api)
    with changed_environment(api, VOICE_IDEMPOTENCY_TABLE="nowhere"):
        assert api.post("/sessions", body).error("internal_error", 500).retryable

    assert api.get("/sessions").json["data"] == []


def test_without_its_counter_a_session_is_completed(api: Api, logged: io.StringIO) -> None:
    path = f"/sessions/{api.session()['session_id']}"
    with changed_environment(api, VOICE_IDEMPOTENCY_TABLE="nowhere"):
        assert api.post(f"{path}/complete", ENDING).status == 200

    assert '"message":"request_not_counted"' in logged.getvalue()


def test_a_repeated_complete_that_is_answered_from_its_record_is_not_counted(
    api: Api, dynamodb: DynamoDBClient
) -> None:
    path = f"/sessions/{api.session()['session_id']}"
    api.headers["idempotency-key"] = str(uuid.uuid4())
    assert [api.post(f"{path}/complete", ENDING).status for _ in range(2)] == [200, 200]

    rows = dynamodb.scan(TableName=container.tables().idempotency)["Items"]
    taken = [row["taken"]["N"] for row in rows if row["id"]["S"].startswith(f"rate#completes#{api.workspace}#")]
    assert taken == ["1"]
