"""The functions for operators: create, list and revoke API keys."""

import re
import time
from typing import Any

import pytest

from tests.functions.api import Api, Functions, caller


def error_of(answer: Any, code: str) -> list[str]:
    assert answer["error"]["code"] == code, answer
    assert answer["error"]["request_id"] == "lambda-request"
    return [detail["path"] for detail in answer["error"].get("details", [])]


def test_a_key_is_returned_once_and_only_its_hash_is_stored(functions: Functions, dynamodb: Any) -> None:
    issued = functions.invoke("create_api_key", {"workspace": "acme-once", "name": "backend"})["data"]

    assert re.fullmatch(r"pi_live_[0-9A-Za-z]{49}", issued["api_key"])
    assert issued.keys() == {"key_id", "workspace", "name", "api_key", "created_at"}
    table = next(name for name in dynamodb.list_tables()["TableNames"] if name.endswith("voice_api_keys"))
    assert issued["api_key"] not in repr(dynamodb.scan(TableName=table)["Items"])


def test_keys_are_listed_newest_first_without_their_secrets(functions: Functions) -> None:
    first = functions.invoke("create_api_key", {"workspace": "acme-list"})["data"]
    second = functions.invoke("create_api_key", {"workspace": "acme-list", "name": "second"})["data"]
    functions.invoke("create_api_key", {"workspace": "another"})

    page = functions.invoke("list_api_keys", {"workspace": "acme-list"})

    assert {key["key_id"] for key in page["data"]} == {first["key_id"], second["key_id"]}
    assert {key["name"]: key["hint"] for key in page["data"]} == {
        "default": first["api_key"][-4:],
        "second": second["api_key"][-4:],
    }
    assert page["next_cursor"] is None
    assert first["api_key"] not in repr(page)


def test_a_revoked_key_is_refused(functions: Functions) -> None:
    api = caller(functions)  # not used before the revocation, because a used key is cached for a minute
    key = functions.invoke("list_api_keys", {"workspace": api.workspace})["data"][0]

    revoked = functions.invoke("revoke_api_key", {"workspace": api.workspace, "key_id": key["key_id"]})["data"]
    again = functions.invoke("revoke_api_key", {"workspace": api.workspace, "key_id": key["key_id"]})["data"]

    assert key["created_at"] <= revoked["revoked_at"] <= time.time()
    assert again == revoked
    api.get("/voices").error("invalid_api_key", 401)


def test_all_keys_of_a_workspace_have_the_same_agents(functions: Functions, api: Api) -> None:
    second = functions.invoke("create_api_key", {"workspace": api.workspace})["data"]["api_key"]
    agent = api.agent()

    assert Api(functions, api.workspace, second).get(f"/agents/{agent}").status == 200


@pytest.mark.parametrize("key_id", ["", "x", "0199a0f0-0000-7000-8000-000000000000"])
def test_an_unknown_key_cannot_be_revoked(functions: Functions, api: Api, key_id: str) -> None:
    error_of(functions.invoke("revoke_api_key", {"workspace": api.workspace, "key_id": key_id}), "api_key_not_found")


def test_another_workspaces_key_cannot_be_revoked(functions: Functions, api: Api, stranger: Api) -> None:
    key = functions.invoke("list_api_keys", {"workspace": api.workspace})["data"][0]

    answer = functions.invoke("revoke_api_key", {"workspace": stranger.workspace, "key_id": key["key_id"]})

    error_of(answer, "api_key_not_found")
    assert api.get("/voices").status == 200


@pytest.mark.parametrize("function", ["create_api_key", "list_api_keys", "revoke_api_key"])
@pytest.mark.parametrize("workspace", [None, "", "Acme", "a b", "-a", "x" * 64, 1])
def test_a_malformed_workspace_name_is_refused(functions: Functions, function: str, workspace: object) -> None:
    event = {"workspace": workspace, "key_id": "x"} if function == "revoke_api_key" else {"workspace": workspace}

    assert error_of(functions.invoke(function, event), "invalid_request") == ["workspace"]


@pytest.mark.parametrize("event", [[], "acme", None, {}])
@pytest.mark.parametrize("function", ["create_api_key", "list_api_keys", "revoke_api_key"])
def test_an_event_that_is_not_a_request_is_refused(functions: Functions, function: str, event: object) -> None:
    error_of(functions.invoke(function, event), "invalid_request")


@pytest.mark.parametrize(("field", "value"), [("name", ""), ("name", "x" * 121), ("name", 1), ("scope", "all")])
def test_a_bad_field_of_a_new_key_is_named(functions: Functions, field: str, value: object) -> None:
    answer = functions.invoke("create_api_key", {"workspace": "acme", field: value})

    assert error_of(answer, "invalid_request") == [field]
