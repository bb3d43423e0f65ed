"""Usage: what the client counted, in every response that has the whole session."""

from typing import Any

import pytest

from tests.functions.api import GRACE_SECONDS, Answer, Api
from tests.functions.work import Work

REPORT: dict[str, Any] = {
    "input_tokens": {"TEXT": 900, "AUDIO": 2_000},
    "output_tokens": {"AUDIO": 1_500},
    "thinking_tokens": 0,
}
USAGE = {
    "input_tokens": {"text": 900, "audio": 2_000},
    "output_tokens": {"audio": 1_500},
    "tool_use_tokens": {},
    "cached_tokens": {},
    "thinking_tokens": 0,
    "reported_by": "client",
}
TURNS = [{"role": "user", "text": "A table for six."}]


@pytest.fixture
def path(api: Api) -> str:
    return f"/sessions/{api.session(api.agent(output_schema={'guests': 'integer'}))['session_id']}"


def report(api: Api, path: str, **fields: Any) -> Answer:
    return api.post(f"{path}/usage", fields or REPORT)


def without_time(usage: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if name != "reported_at"}


def test_usage_is_unknown_until_it_is_reported(api: Api, path: str) -> None:
    assert api.get(path).data["usage"] is None
    assert api.post(f"{path}/complete", transcript=TURNS).json["usage"] is None


def test_a_report_is_in_every_response_that_has_the_whole_session(api: Api, path: str) -> None:
    answer = report(api, path)

    assert answer.status == 200
    assert without_time(answer.data) == USAGE
    assert api.get(path).data["usage"] == answer.data
    assert api.post(f"{path}/stop").data["usage"] == answer.data
    assert api.post(f"{path}/complete", transcript=TURNS).json["usage"] == answer.data
    assert "usage" not in api.get("/sessions").json["data"][0]


def test_the_client_reports_until_after_the_end_and_sees_its_report(api: Api) -> None:
    session = api.session()
    client, path = api.client_of(session), f"/sessions/{session['session_id']}"

    assert report(client, path).status == 200
    assert client.post(f"{path}/complete", transcript=[]).status == 200
    last = report(client, path, output_tokens={"AUDIO": 1_600}).data

    assert last["output_tokens"] == {"audio": 1_600}
    assert client.get(path).data["usage"] == api.get(path).data["usage"] == last


def test_late_and_repeated_reports_change_nothing(api: Api, path: str) -> None:
    first = report(api, path).data

    assert report(api, path).data == first
    assert report(api, path, input_tokens={"TEXT": 1}).data == first
    assert report(api, path, input_tokens={"audio": 2_001}).data["input_tokens"] == {"text": 900, "audio": 2_001}


def test_a_session_that_expired_without_a_word_takes_a_report_because_its_tokens_were_used(
    api: Api, path: str, work: Work
) -> None:
    work.advance(path.removeprefix("/sessions/"), 600 + GRACE_SECONDS + 1)
    work.sweep()
    assert api.get(path).data["status"] == "failed"

    assert without_time(report(api, path).data) == USAGE
    state = api.get(path).data
    assert (state["status"], without_time(state["usage"])) == ("failed", USAGE)


def test_a_deleted_session_takes_no_report(api: Api, path: str) -> None:
    assert report(api, path).status == 200
    assert api.post(f"{path}/complete", {}).status == 200
    assert api.delete(path).status == 204

    report(api, path).error("voice_session_not_found", 404)
    api.get(path).error("voice_session_not_found", 404)


def test_a_report_extends_nothing(api: Api, path: str) -> None:
    before = api.get(path).data

    assert report(api, path).status == 200

    assert {**api.get(path).data, "usage": None} == before


@pytest.mark.parametrize(
    ("fields", "details"),
    [
        ({"input_tokens": {}}, [""]),
        ({"input_tokens": {"text": -1}, "thinking_tokens": "1"}, ["input_tokens.text", "thinking_tokens"]),
        ({"input_tokens": {"text": 1_000_000_001}}, ["input_tokens.text"]),
        ({"input_tokens": {"text": 1}, "total_tokens": 1}, ["total_tokens"]),
    ],
    ids=str,
)
def test_a_bad_report_is_refused_by_its_fields_and_stores_nothing(
    api: Api, path: str, fields: Any, details: list[str]
) -> None:
    error = report(api, path, **fields).error("invalid_request", 400)

    assert [detail["path"] for detail in error.details] == details
    assert api.get(path).data["usage"] is None


def test_a_report_without_a_body_is_refused(api: Api, path: str) -> None:
    api.post(f"{path}/usage").error("invalid_request", 400)
