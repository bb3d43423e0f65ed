"""Tool calls: recorded once while the session is active, and seen by whoever reads the session and by extraction."""

from typing import Any

import pytest

from tests.functions.api import Answer, Api

TOOL = {
    "name": "find_table",
    "description": "Find a free table.",
    "parameters": {"type": "object", "properties": {"guests": {"type": "integer"}}, "required": ["guests"]},
    "run": {"where": "client"},
}
CALL: dict[str, Any] = {
    "call_id": "function-call-1",
    "name": "find_table",
    "arguments": {"guests": 6},
    "response": {"table": "T12", "price": 1.0},
    "milliseconds": 40,
}
RECORDED = {**CALL, "status": "succeeded"}
TURNS = [
    {"role": "user", "text": "A table for six."},
    {"role": "agent", "text": "You have table T12, and your code is Q99."},
]


@pytest.fixture
def path(api: Api) -> str:
    schema = {"table": "string", "code": "string"}
    agent = api.agent(tools=[TOOL], output_schema=schema, evidence=True, behaviors={"may_hang_up": True})
    return f"/sessions/{api.session(agent)['session_id']}"


def record(api: Api, path: str, **changes: Any) -> Answer:
    return api.post(f"{path}/tool-calls", {**CALL, **changes})


def without_time(call: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in call.items() if name != "called_at"}


def test_a_recorded_call_is_in_the_session(api: Api, path: str) -> None:
    answer = record(api, path)

    assert answer.status == 200
    assert without_time(answer.data) == RECORDED
    assert api.get(path).data["tool_calls"] == [answer.data]
    for end in (f"{path}/stop", f"{path}/complete"):
        document = api.post(end, {}).json
        assert document.get("data", document)["tool_calls"] == [answer.data]


def test_a_repeat_answers_the_record_also_after_the_end_and_a_new_call_is_refused_then(api: Api, path: str) -> None:
    first = record(api, path).data
    assert record(api, path, response={}).data == first
    assert api.post(f"{path}/complete", {}).status == 200

    assert record(api, path, response={}).data == first
    record(api, path, call_id="another").error("voice_session_not_active", 409)
    assert api.get(path).data["tool_calls"] == [first]


@pytest.mark.parametrize(
    ("changes", "details"),
    [
        ({"name": "other"}, ["name"]),
        ({"response": None}, ["response"]),
        ({"call_id": ""}, ["call_id"]),
        ({"call_id": "a b"}, ["call_id"]),
        ({"call_id": "x" * 129}, ["call_id"]),
        ({"arguments": []}, ["arguments"]),
        ({"status": "done"}, ["status"]),
        ({"milliseconds": -1}, ["milliseconds"]),
        ({"unknown": 1}, ["unknown"]),
    ],
    ids=str,
)
def test_a_bad_call_is_refused_by_its_field(api: Api, path: str, changes: Any, details: list[str]) -> None:
    error = record(api, path, **changes).error("invalid_request", 400)

    assert [detail["path"] for detail in error.details] == details
    assert api.get(path).data["tool_calls"] == []


def test_a_call_beyond_its_limits_is_refused(api: Api, path: str) -> None:
    record(api, path, arguments={"x": "y" * 9_000}).error("request_too_large", 413)
    record(api, path, response={"x": "y" * 66_000}).error("request_too_large", 413)

    assert api.get(path).data["tool_calls"] == []


def test_the_connection_names_the_tools(api: Api, path: str) -> None:
    renewed = api.post(f"{path}/renew", {}).data["connection"]["gemini_live"]

    assert renewed["tools"] == [
        {"name": "find_table", "where": "client", "speaks": None},
        {"name": "hang_up", "where": "client", "speaks": None},
    ]


def test_a_session_with_calls_is_extracted_and_renewed(api: Api, path: str) -> None:
    assert record(api, path).status == 200

    assert api.post(f"{path}/renew", {}).status == 200
    state = api.post(f"{path}/complete", transcript=TURNS).json
    assert state["extraction"]["status"] == "succeeded"
    assert set(state["extraction"]["fields"]) == {"table", "code"}


def test_delete_removes_the_calls(api: Api, path: str) -> None:
    assert record(api, path).status == 200
    assert api.post(f"{path}/complete", {}).status == 200

    assert api.delete(path).status == 204
    record(api, path).error("voice_session_not_found", 404)
