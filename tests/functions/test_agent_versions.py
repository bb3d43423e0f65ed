"""The routes of versions, the version that a session asks for, and the header If-Match."""

import uuid
from dataclasses import replace
from typing import Any

import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from tests.functions.api import Answer, Api
from tests.functions.transcripts import ENDING

UNKNOWN = "0199a0f0-0000-7000-8000-000000000000"


@pytest.fixture
def path(api: Api) -> str:
    """The path of an agent with three versions: Ana, Bea and Cleo."""
    path = f"/agents/{api.agent(name='Ana')}"
    for name in ("Bea", "Cleo"):
        assert api.patch(path, {"name": name}).status == 200
    return path


def with_headers(api: Api, **headers: str) -> Api:
    """Return the same caller with headers; underscores in their names stand for hyphens."""
    return replace(api, headers={**api.headers, **{name.replace("_", "-"): value for name, value in headers.items()}})


def without_warnings(agent: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in agent.items() if name != "warnings"}


# ---- Read -------------------------------------------------------------------------------------------


def test_the_versions_come_in_pages_newest_first_and_each_is_an_agent(api: Api, path: str) -> None:
    pages = [api.get(f"{path}/versions", limit="2").json]
    while cursor := pages[-1]["next_cursor"]:
        pages.append(api.get(f"{path}/versions", limit="2", cursor=cursor).json)

    versions = [version for page in pages for version in page["data"]]
    assert [len(page["data"]) for page in pages] == [2, 1]
    assert [(version["version"], version["name"]) for version in versions] == [(3, "Cleo"), (2, "Bea"), (1, "Ana")]
    assert versions[0] == api.get(path).data
    assert versions == [api.get(f"{path}/versions/{number}").data for number in (3, 2, 1)]


def test_a_version_does_not_change_when_the_agent_does(api: Api, path: str) -> None:
    before = api.get(f"{path}/versions/3").data

    assert api.patch(path, {"name": "Dora", "questions": ["Why?"]}).data["version"] == 4

    assert api.get(f"{path}/versions/3").data == before


@pytest.mark.parametrize("version", ["0", "4", "-1", "01", "1.0", "one", "9" * 40, "%31", "é"])
def test_a_version_that_the_agent_does_not_have_is_not_found(api: Api, path: str, version: str) -> None:
    for answer in (api.get(f"{path}/versions/{version}"), api.post(f"{path}/versions/{version}/restore")):
        answer.error("voice_agent_not_found", 404)


def test_the_versions_of_a_deleted_unknown_or_foreign_agent_are_not_found(api: Api, stranger: Api, path: str) -> None:
    def ask(api: Api, path: str) -> list[Answer]:
        reads = [api.get(f"{path}/versions"), api.get(f"{path}/versions/1")]
        return [*reads, api.post(f"{path}/versions/1/restore")]

    foreign, unknown = ask(stranger, path), ask(api, f"/agents/{UNKNOWN}")
    assert api.delete(path).status == 204

    for answer in (*foreign, *unknown, *ask(api, path)):
        answer.error("voice_agent_not_found", 404)


@pytest.mark.parametrize(("query", "paths"), [({"limit": "0"}, ["limit"]), ({"page": "2"}, ["page"])])
def test_a_bad_query_is_refused_by_its_name(api: Api, path: str, query: dict[str, str], paths: list[str]) -> None:
    assert api.get(f"{path}/versions", **query).error("invalid_request", 400).paths == paths


def test_a_cursor_that_no_list_of_versions_returned_is_refused(api: Api, path: str) -> None:
    api.agent()
    of_agents = api.get("/agents", limit="1").json["next_cursor"]

    for cursor in ("", "x", "AAAA", UNKNOWN, of_agents):
        api.get(f"{path}/versions", cursor=cursor).error("invalid_cursor", 400)


# ---- Restore ----------------------------------------------------------------------------------------


def test_a_restored_version_is_the_next_one_and_equal_to_the_earlier_one(api: Api, path: str) -> None:
    before = api.get(path).data

    restored = api.post(f"{path}/versions/1/restore")

    assert restored.status == 200
    assert (restored.data["version"], restored.data["name"], restored.data["warnings"]) == (4, "Ana", [])
    assert restored.data["created_at"] == before["created_at"]
    assert api.get(path).data == without_warnings(restored.data)
    assert api.get(f"{path}/versions/3").data == before
    assert api.post(f"{path}/versions/1/restore").data == restored.data  # nothing changes, so there is no fifth one


def test_a_repeated_restore_answers_the_version_that_it_made(api: Api, path: str) -> None:
    once = with_headers(api, idempotency_key=str(uuid.uuid4()), if_match='"3"')

    first = once.post(f"{path}/versions/1/restore")
    assert api.patch(path, {"name": "Dora"}).data["version"] == 5
    again = once.post(f"{path}/versions/1/restore")

    assert first.json == again.json
    assert (first.data["version"], again.headers["Idempotent-Replayed"]) == (4, "true")
    assert api.get(path).data["version"] == 5


def test_a_restore_whose_record_was_lost_is_recognized_by_the_agent(
    api: Api, path: str, dynamodb: DynamoDBClient
) -> None:
    once, table = (
        with_headers(api, idempotency_key=str(uuid.uuid4()), if_match='"3"'),
        "pi-voice-local-voice_idempotency",
    )
    first = once.post(f"{path}/versions/1/restore").data
    for row in dynamodb.scan(TableName=table)["Items"]:
        dynamodb.delete_item(TableName=table, Key={"id": row["id"]})

    again = once.post(f"{path}/versions/1/restore")

    assert again.data == first
    assert api.get(path).data["version"] == 4


def test_a_restore_takes_no_body(api: Api, path: str) -> None:
    api.post(f"{path}/versions/1/restore", {"name": "Dora"}).error("invalid_request", 400)
    assert api.post(f"{path}/versions/1/restore", {}).status == 200


def test_no_response_has_the_hash_of_a_request(api: Api, path: str) -> None:
    once = with_headers(api, idempotency_key=str(uuid.uuid4()))

    for answer in (
        once.post(f"{path}/versions/1/restore"),
        api.get(path),
        api.get(f"{path}/versions"),
        api.get("/agents"),
    ):
        assert answer.status == 200
        assert "request_hash" not in answer.text


# ---- If-Match ---------------------------------------------------------------------------------------


def change(api: Api, path: str, if_match: str) -> list[Answer]:
    """Send both requests that take the header, neither of which changes anything."""
    conditional = with_headers(api, if_match=if_match)
    return [conditional.patch(path, {"name": "Cleo"}), conditional.post(f"{path}/versions/3/restore")]


@pytest.mark.parametrize("if_match", ['"3"', '"1", "3"', "*", 'W/"3", "3"'])
def test_a_change_with_the_current_version_is_made(api: Api, path: str, if_match: str) -> None:
    assert [answer.status for answer in change(api, path, if_match)] == [200, 200]
    assert with_headers(api, if_match=if_match).patch(path, {"name": "Dora"}).data["version"] == 4


@pytest.mark.parametrize("if_match", ['"2"', '"4"', '"1", "2"', 'W/"3"', '"x"'])
def test_a_change_with_another_version_is_a_conflict_that_names_the_current_one(
    api: Api, path: str, if_match: str
) -> None:
    for answer in change(api, path, if_match):
        assert "version is 3." in answer.error("agent_version_conflict", 409).message
    assert api.get(path).data["version"] == 3


@pytest.mark.parametrize("if_match", ["", "3", "3, 4", '"3', '"3" "4"', '*, "3"'])
def test_a_malformed_header_is_refused_by_its_name(api: Api, path: str, if_match: str) -> None:
    for answer in change(api, path, if_match):
        assert answer.error("invalid_request", 400).paths == ["If-Match"]


def test_the_header_is_checked_after_the_credential_and_the_agent(api: Api, stranger: Api, path: str) -> None:
    for answer in change(replace(api, key=f"{api.key}x"), path, "malformed"):
        answer.error("invalid_api_key", 401)
    for answer in change(stranger, path, '"1"'):
        answer.error("voice_agent_not_found", 404)


# ---- The version of a session -----------------------------------------------------------------------


def test_a_session_of_an_earlier_version_has_its_time_limit_and_its_results(api: Api) -> None:
    agent = api.agent(output_schema={"guests": "integer"}, behaviors={"max_duration_seconds": 120})
    later = {"output_schema": {"guests": None, "time": "string"}, "behaviors": {"max_duration_seconds": 300}}
    assert api.patch(f"/agents/{agent}", later).data["version"] == 2

    sessions = [api.session(agent, **pin) for pin in ({"agent_version": 1}, {"agent_version": 2}, {})]

    assert [session["agent_version"] for session in sessions] == [1, 2, 2]
    assert [session["max_duration_seconds"] for session in sessions] == [120, 300, 300]
    done = [api.post(f"/sessions/{session['session_id']}/complete", ENDING).json for session in sessions]
    assert [list(each["results"]) for each in done] == [["guests"], ["time"], ["time"]]
    assert [each["extraction"]["agent_version"] for each in done] == [1, 2, 2]


def test_a_version_that_the_agent_does_not_have_is_no_session(api: Api, path: str) -> None:
    request = {"agent_id": path.removeprefix("/agents/"), "participant": {"identity": "caller-1"}}

    error = api.post("/sessions", {**request, "agent_version": 4}).error("voice_agent_not_found", 404)

    assert "version" in error.message
    for version in (0, -1, "1", 1.5, True, 10**9, 10**40):
        answer = api.post("/sessions", {**request, "agent_version": version})
        assert answer.error("invalid_request", 400).paths == ["agent_version"]
    assert api.get("/sessions").json["data"] == []


def test_a_deleted_agent_takes_no_session_of_any_version(api: Api, path: str) -> None:
    request = {"agent_id": path.removeprefix("/agents/"), "participant": {"identity": "caller-1"}, "agent_version": 1}
    assert api.delete(path).status == 204

    api.post("/sessions", request).error("voice_agent_not_found", 404)
