"""The routes of webhook endpoints."""

import base64
import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from pi_voice import container
from pi_voice.domain.ids import is_uuid
from tests.functions.api import SECRETS_PREFIX, WEBHOOK_MASTERS, Api, Functions, caller
from tests.support.bad_values import each, set_at
from tests.support.moto_server import MotoServer

URL = "https://9.9.9.9/pi-voice"
"""A literal address, which is not looked up."""

FULL: dict[str, Any] = {
    "url": URL,
    "events": ["session.started", "session.completed", "session.failed", "extraction.succeeded", "extraction.failed"],
    "include": ["transcript", "results"],
    "agent_id": None,
    "description": "Réception",
    "active": False,
}
UNKNOWN = "0199a0f0-0000-7000-8000-000000000000"


def created(api: Api, **fields: object) -> dict[str, Any]:
    return dict(api.post("/webhook-endpoints", {"url": URL, **fields}).data)


def path_of(endpoint: dict[str, Any]) -> str:
    return f"/webhook-endpoints/{endpoint['endpoint_id']}"


def with_key(api: Api) -> Api:
    return replace(api, headers={**api.headers, "idempotency-key": str(uuid.uuid4())})


def rows(dynamodb: DynamoDBClient) -> list[dict[str, Any]]:
    return list(dynamodb.scan(TableName=container.tables().webhook_endpoints, ConsistentRead=True)["Items"])


# ---- Create -----------------------------------------------------------------------------------------


def test_an_endpoint_is_stored_as_it_was_sent(api: Api) -> None:
    request = {**FULL, "agent_id": api.agent()}

    answer = api.post("/webhook-endpoints", request)

    endpoint = answer.data
    assert answer.status == 201
    assert {name: endpoint[name] for name in request} == request
    assert is_uuid(endpoint["endpoint_id"])
    assert len(base64.b64decode(endpoint.pop("secret").removeprefix("whsec_"), validate=True)) == 32
    assert api.get(path_of(endpoint)).data == endpoint


def test_omitted_fields_have_their_documented_defaults(api: Api) -> None:
    endpoint = created(api)

    assert {name: endpoint[name] for name in FULL} == {
        "url": URL,
        "events": [],
        "include": [],
        "agent_id": None,
        "description": "",
        "active": True,
    }


BAD: list[tuple[str, object]] = [
    *each("url", None, "", 1, [], {}, "x" * 2049, "http://9.9.9.9/", "https://10.0.0.1/", "https://u:p@9.9.9.9/"),
    *each("url", "https://9.9.9.9:22/", "https://[::ffff:127.0.0.1]/", "javascript:alert(1)", "https://9.9.9.9/#x"),
    *each("events", None, "session.started", {}, ["session.started"] * 2, ["session.failed"] * 21),
    *each("include", None, "results", {}, ["results", "results"]),
    *each("agent_id", 1, [], {}, "", "x", UNKNOWN),
    *each("description", None, 1, "x" * 201),
    *each("active", None, "yes", 1, []),
    ("unknown", 1),
    ("secret", "whsec_mine"),
    ("endpoint_id", UNKNOWN),
    ("failing_since", 1),
    ("disabled_at", 1),
    ("revision", 1),
]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_a_bad_field_is_refused_by_its_path_on_create_and_on_update(api: Api, path: str, value: object) -> None:
    error = api.post("/webhook-endpoints", set_at({"url": URL}, path, value)).error("invalid_request", 400)

    assert error.paths == [path]
    if value is not None:  # in a merge patch null resets a field
        patched = api.patch(path_of(created(api)), {path: value}).error("invalid_request", 400)
        assert patched.paths == [path]


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("events", ["session.started", "session.ended"], "events.1"),
        ("events", ["endpoint.test"], "events.0"),
        ("events", [1], "events.0"),
        ("include", ["metadata"], "include.0"),
    ],
)
def test_an_error_inside_a_list_has_its_exact_path(api: Api, field: str, value: object, path: str) -> None:
    assert api.post("/webhook-endpoints", {"url": URL, field: value}).error("invalid_request", 400).paths == [path]


def test_the_agent_of_another_workspace_is_refused(api: Api, stranger: Api) -> None:
    foreign = stranger.agent()

    assert api.post("/webhook-endpoints", {"url": URL, "agent_id": foreign}).error("invalid_request", 400).paths == [
        "agent_id"
    ]
    refused = api.patch(path_of(created(api)), {"agent_id": foreign})
    assert refused.error("invalid_request", 400).paths == ["agent_id"]


def test_each_endpoint_has_a_secret_of_its_own(api: Api) -> None:
    assert len({created(api)["secret"] for _ in range(3)}) == 3


def test_a_workspace_has_at_most_fifty_endpoints(api: Api, stranger: Api) -> None:
    for _ in range(50):
        assert api.post("/webhook-endpoints", url=URL).status == 201

    error = api.post("/webhook-endpoints", url=URL).error("invalid_request", 400)

    assert error.message == "The workspace has 50 webhook endpoints, which is the limit. Delete one first."
    assert created(stranger)
    listed = api.get("/webhook-endpoints", limit="100").json["data"]
    assert len(listed) == 50
    assert api.delete(path_of(listed[0])).status == 204
    assert created(api)


# ---- The secret -------------------------------------------------------------------------------------


def test_only_create_and_rotate_return_the_secret(api: Api) -> None:
    endpoint = created(api)
    rotated = api.post(f"{path_of(endpoint)}/rotate-secret").data

    others = [
        api.get(path_of(endpoint)),
        api.patch(path_of(endpoint), {"description": "Mine"}),
        api.get("/webhook-endpoints"),
    ]

    assert rotated["secret"] != endpoint["secret"]
    for answer in others:
        assert answer.status == 200
        assert "whsec_" not in answer.text
        assert '"secret"' not in answer.text


def test_a_repeated_create_returns_the_same_endpoint_and_secret(api: Api) -> None:
    once = with_key(api)

    first, second = (once.post("/webhook-endpoints", FULL) for _ in range(2))

    assert (first.status, second.status) == (201, 201)
    assert first.json == second.json
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(api.get("/webhook-endpoints").json["data"]) == 1
    once.post("/webhook-endpoints", {**FULL, "active": True}).error("idempotency_key_reused", 422)


def test_a_repeated_create_whose_endpoint_was_deleted_is_not_found(api: Api) -> None:
    once = with_key(api)
    endpoint = once.post("/webhook-endpoints", FULL).data
    assert api.delete(path_of(endpoint)).status == 204

    once.post("/webhook-endpoints", FULL).error("webhook_endpoint_not_found", 404)


def test_a_repeated_rotation_rotates_once(api: Api) -> None:
    endpoint = created(api)
    once = with_key(api)

    first, second = (once.post(f"{path_of(endpoint)}/rotate-secret") for _ in range(2))

    assert (first.status, second.status) == (200, 200)
    assert first.json == second.json
    assert second.headers["Idempotent-Replayed"] == "true"
    assert first.data["previous_secret_ends_at"] == first.data["updated_at"] + 86_400


def forget_the_keys(dynamodb: DynamoDBClient) -> None:
    """Delete the records of the keys, as if the function had crashed before it wrote them."""
    table = container.tables().idempotency
    for row in dynamodb.scan(TableName=table)["Items"]:
        dynamodb.delete_item(TableName=table, Key={"id": row["id"]})


def test_a_request_that_crashed_after_its_write_is_made_once(api: Api, dynamodb: DynamoDBClient) -> None:
    once = with_key(api)
    endpoint = once.post("/webhook-endpoints", FULL).data
    forget_the_keys(dynamodb)
    again = once.post("/webhook-endpoints", FULL)
    rotated = once.post(f"{path_of(endpoint)}/rotate-secret").data
    forget_the_keys(dynamodb)
    rotated_again = once.post(f"{path_of(endpoint)}/rotate-secret")

    assert again.data == endpoint
    assert rotated_again.data == rotated
    assert {answer.headers["Idempotent-Replayed"] for answer in (again, rotated_again)} == {"true"}


def test_no_secret_is_stored(api: Api, dynamodb: DynamoDBClient) -> None:
    secrets = [created(api)["secret"], api.post(f"{path_of(created(api))}/rotate-secret").data["secret"]]

    stored = json.dumps(
        [rows(dynamodb), dynamodb.scan(TableName=container.tables().idempotency)["Items"]], default=repr
    )

    assert [secret for secret in secrets if secret.removeprefix("whsec_") in stored] == []


# ---- The masters ------------------------------------------------------------------------------------


@pytest.fixture
def operations(moto: MotoServer) -> Iterator[list[str]]:
    """The names of the parameters that are read."""
    seen: list[str] = []

    def listen(operation: str, arguments: dict[str, Any]) -> None:
        if operation == "GetParameters":
            seen.extend(arguments["Names"])

    moto.listeners.append(listen)
    yield seen
    moto.listeners.remove(listen)


def store_masters(**masters: str) -> None:
    text = json.dumps(masters)
    boto3.client("ssm").put_parameter(
        Name=f"{SECRETS_PREFIX}/webhooks", Value=text, Type="SecureString", Overwrite=True
    )


@pytest.mark.usefixtures("secrets")
def test_a_new_master_changes_no_secret_until_the_endpoint_is_rotated(
    functions: Functions, operations: list[str], dynamodb: DynamoDBClient
) -> None:
    once = with_key(caller(functions))
    endpoint = once.post("/webhook-endpoints", FULL).data
    store_masters(
        **WEBHOOK_MASTERS | {"WEBHOOK_MASTER_ID": "b2", "WEBHOOK_MASTER_B2": "another-master-of-32-characters!"}
    )
    functions.start_over()

    assert once.post("/webhook-endpoints", FULL).data == endpoint
    rotated = once.post(f"{path_of(endpoint)}/rotate-secret").data

    [row] = [row for row in rows(dynamodb) if row["endpoint_id"]["S"] == endpoint["endpoint_id"]]
    assert (row["previous_secret_master"], row["secret_master"]) == ({"S": "a1"}, {"S": "b2"})
    assert rotated["secret"] != endpoint["secret"]
    assert set(operations) == {f"{SECRETS_PREFIX}/webhooks"}


@pytest.mark.usefixtures("secrets")
def test_a_missing_master_is_an_error_that_is_logged_without_a_secret(
    functions: Functions, logged: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WEBHOOK_MASTER_A1")  # of the environment, which is read too
    api = with_key(caller(functions))
    assert api.post("/webhook-endpoints", FULL).status == 201
    store_masters(WEBHOOK_MASTER_ID="b2", WEBHOOK_MASTER_B2="another-master-of-32-characters!")
    functions.start_over()

    api.post("/webhook-endpoints", FULL).error("internal_error", 500)

    assert "WEBHOOK_MASTER_A1 is not set" in logged.getvalue()
    assert "another-master" not in logged.getvalue()


# ---- Update, get, list, delete ----------------------------------------------------------------------


def test_an_update_changes_only_the_fields_it_names(api: Api) -> None:
    endpoint = api.post("/webhook-endpoints", FULL).data
    del endpoint["secret"]

    updated = api.patch(path_of(endpoint), {"active": True, "events": None}).data

    assert updated == {**endpoint, "active": True, "events": [], "updated_at": updated["updated_at"]}
    assert api.get(path_of(endpoint)).data == updated


def test_a_disabled_endpoint_says_why_until_it_is_enabled(api: Api, dynamodb: DynamoDBClient) -> None:
    endpoint = created(api)
    dynamodb.update_item(
        TableName=container.tables().webhook_endpoints,
        Key={"workspace": {"S": api.workspace}, "endpoint_id": {"S": endpoint["endpoint_id"]}},
        UpdateExpression="SET failing_since = :at, disabled_at = :at, disabled_reason = :gone",
        ExpressionAttributeValues={":at": {"N": "1795338930"}, ":gone": {"S": "gone"}},
    )

    disabled = api.get(path_of(endpoint)).data
    enabled = api.patch(path_of(endpoint), {"active": True}).data

    assert (disabled["failing_since"], disabled["disabled_at"], disabled["disabled_reason"]) == (
        1795338930,
        1795338930,
        "gone",
    )
    assert (enabled["failing_since"], enabled["disabled_at"], enabled["disabled_reason"]) == (None, None, None)


def test_what_a_newer_version_stored_is_shown(api: Api, dynamodb: DynamoDBClient) -> None:
    endpoint = created(api)
    dynamodb.update_item(
        TableName=container.tables().webhook_endpoints,
        Key={"workspace": {"S": api.workspace}, "endpoint_id": {"S": endpoint["endpoint_id"]}},
        UpdateExpression="SET events = :events, disabled_reason = :slow, colour = :slow",
        ExpressionAttributeValues={":events": {"L": [{"S": "session.paused"}]}, ":slow": {"S": "slow"}},
    )

    shown = api.get(path_of(endpoint)).data

    assert (shown["events"], shown["disabled_reason"]) == (["session.paused"], "slow")
    assert api.get("/webhook-endpoints").json["data"] == [shown]


def test_endpoints_are_listed_newest_first_in_pages(api: Api, stranger: Api) -> None:
    ids = [created(api)["endpoint_id"] for _ in range(3)][::-1]
    created(stranger)

    first = api.get("/webhook-endpoints", limit="2").json
    second = api.get("/webhook-endpoints", limit="2", cursor=first["next_cursor"]).json

    assert [endpoint["endpoint_id"] for endpoint in [*first["data"], *second["data"]]] == ids
    assert second["next_cursor"] is None
    api.get("/webhook-endpoints", cursor="x").error("invalid_cursor", 400)


@pytest.mark.parametrize("endpoint_id", [UNKNOWN, "x", "A" * 36])
def test_an_unknown_endpoint_is_not_found(api: Api, endpoint_id: str) -> None:
    path = f"/webhook-endpoints/{endpoint_id}"

    for answer in (api.get(path), api.patch(path, {}), api.delete(path), api.post(f"{path}/rotate-secret")):
        answer.error("webhook_endpoint_not_found", 404)


def test_another_workspace_s_endpoint_is_not_found_and_stays_as_it_is(api: Api, stranger: Api) -> None:
    endpoint = created(api)
    path = path_of(endpoint)
    before = api.get(path).data

    for answer in (
        stranger.get(path),
        stranger.patch(path, {"url": "https://8.8.8.8/"}),
        stranger.delete(path),
        stranger.post(f"{path}/rotate-secret"),
    ):
        answer.error("webhook_endpoint_not_found", 404)
    assert api.get(path).data == before


def test_a_client_token_opens_none_of_the_routes(api: Api) -> None:
    client = api.client_of(api.session())
    path = path_of(created(api))

    for answer in (
        client.get("/webhook-endpoints"),
        client.post("/webhook-endpoints", url=URL),
        client.get(path),
        client.patch(path, {}),
        client.delete(path),
        client.post(f"{path}/rotate-secret"),
    ):
        answer.error("invalid_api_key", 401)


def test_a_deleted_endpoint_is_gone(api: Api) -> None:
    path = path_of(created(api))

    assert api.delete(path).status == 204

    api.get(path).error("webhook_endpoint_not_found", 404)
    api.delete(path).error("webhook_endpoint_not_found", 404)
    assert api.get("/webhook-endpoints").json["data"] == []
