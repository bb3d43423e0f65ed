"""Manual extractions: of a completed session, as a run in its history, and of a transcript in the request."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.functions.api import Api
from tests.functions.front import RETRY_LATER, Front, changed_environment
from tests.functions.transcripts import ENDING, TRANSCRIPT
from tests.support.bad_values import each

GUESTS = {"guests": "integer"}
STRICT = {
    "type": "object",
    "properties": {"guests": {"type": "integer", "multipleOf": 2}},
    "required": ["guests"],
    "additionalProperties": False,
}
PASTED = {"transcript": TRANSCRIPT, "output_schema": GUESTS}


@pytest.fixture
def call(api: Api) -> str:
    """The path of a completed session with results."""
    return completed(api, api.agent(output_schema=GUESTS))


def completed(api: Api, agent_id: str) -> str:
    path = f"/sessions/{api.session(agent_id)['session_id']}"
    assert api.post(f"{path}/complete", ENDING).status == 200
    return path


def answering(front: Front, text: str) -> AbstractContextManager[str]:
    """Make the model answer every request with this text."""
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
    return front.answering(200, json.dumps({"candidates": [candidate], "modelVersion": "bad-model"}))


# ---- A session --------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, "", "{}"], ids=["nothing", "empty", "object"])
def test_results_are_extracted_again_with_the_agents_current_schema(api: Api, body: str | None) -> None:
    agent = api.agent(output_schema=GUESTS)
    path = completed(api, agent)
    assert api.patch(f"/agents/{agent}", {"output_schema": {"guests": None, "mood": "string"}}).status == 200

    answer = api.call("POST", f"{path}/extract", body=body)

    extracted = answer.data
    assert answer.status == 200
    assert extracted["session_id"] == path.removeprefix("/sessions/")
    assert (extracted["results"].keys(), extracted["warnings"]) == ({"mood"}, [])
    extraction = extracted["extraction"]
    assert (extraction["status"], extraction["agent_version"], extraction["model"]) == ("succeeded", 2, "stand-in")
    new, first = extraction["runs"]
    assert (new["agent_version"], new["results"], new["error"]) == (2, extracted["results"], None)
    assert (first["agent_version"], first["results"], first["status"]) == (1, {"guests": 4}, "succeeded")
    assert new["at"] == extraction["extracted_at"] >= first["at"]
    state = api.get(path).data
    assert (state["results"], state["extraction"]) == (extracted["results"], extraction)
    assert (state["status"], state["agent_version"], state["transcript"]) == ("completed", 1, TRANSCRIPT)


def test_a_schema_in_the_request_is_used_for_this_run_only_and_has_warnings(api: Api, call: str) -> None:
    extracted = api.post(f"{call}/extract", output_schema_strict=STRICT, evidence=True).data

    assert extracted["results"] == {"guests": 4}
    assert [warning["path"] for warning in extracted["warnings"]] == [
        "output_schema_strict#/properties/guests/multipleOf"
    ]
    assert extracted["extraction"]["agent_version"] is None
    said = {"status": "found", "turn": 1, "role": "user", "quote": "4", "tool_call": None}
    assert extracted["extraction"]["fields"] == {"guests": said}
    assert api.get(call).data["extraction"] == extracted["extraction"]


def test_a_preview_changes_nothing(api: Api, call: str) -> None:
    before = api.get(call).data

    extracted = api.post(f"{call}/extract", preview=True, output_schema={"mood": "string"}).data

    assert extracted["results"].keys() == {"mood"}
    assert extracted["extraction"]["runs"] == []
    assert api.get(call).data == before


def test_runs_are_listed_newest_first_and_limited_to_ten(api: Api, call: str) -> None:
    for _ in range(11):
        runs = api.post(f"{call}/extract").data["extraction"]["runs"]

    assert len(runs) == 10
    assert sorted((run["at"] for run in runs), reverse=True) == [run["at"] for run in runs]
    assert api.get(call).data["extraction"]["runs"] == runs


def test_a_run_that_violates_the_schema_returns_the_details_and_keeps_earlier_results(
    api: Api, front: Front, call: str
) -> None:
    before = api.get(call).data

    with (
        answering(front, '{"guests": "secret-4711"}') as url,
        changed_environment(api, GOOGLE_GEMINI_BASE_URL=url) as bad,
    ):
        answer = bad.post(f"{call}/extract")

    extracted = answer.data
    assert (answer.status, extracted["results"], extracted["extraction"]["status"]) == (200, None, "failed")
    assert extracted["extraction"]["attempts"] == 2
    error = extracted["extraction"]["error"]
    assert error["code"] == "schema_violation"
    assert [detail["path"] for detail in error["details"]] == ["guests"]
    assert "4711" not in answer.text
    after = api.get(call).data
    assert after["results"] == before["results"] == {"guests": 4}
    assert {**after["extraction"], "runs": []} == before["extraction"]
    assert [run["status"] for run in after["extraction"]["runs"]] == ["failed", "succeeded"]


def test_a_run_while_gemini_is_unavailable_fails_and_keeps_earlier_results(api: Api, front: Front, call: str) -> None:
    unavailable = json.dumps({"error": {"message": "do not tell", "details": [RETRY_LATER]}})

    with front.answering(503, unavailable) as url, changed_environment(api, GOOGLE_GEMINI_BASE_URL=url) as broken:
        extracted = broken.post(f"{call}/extract").data

    assert extracted["extraction"]["error"]["code"] == "gemini_unavailable"
    assert api.get(call).data["results"] == {"guests": 4}


def test_the_schema_of_a_deleted_agent_is_still_used(api: Api) -> None:
    agent = api.agent(output_schema=GUESTS)
    path = completed(api, agent)
    assert api.delete(f"/agents/{agent}").status == 204

    assert api.post(f"{path}/extract").data["results"] == {"guests": 4}


def test_an_extraction_without_a_schema_is_skipped(api: Api) -> None:
    path = completed(api, api.agent())

    extracted = api.post(f"{path}/extract").data

    extraction = extracted["extraction"]
    assert (extracted["results"], extraction["status"], extraction["runs"]) == (None, "skipped", [])


def test_an_active_or_failed_session_cannot_be_extracted(api: Api, front: Front) -> None:
    active = f"/sessions/{api.session(api.agent(output_schema=GUESTS))['session_id']}"
    error = api.post(f"{active}/extract").error("voice_session_active", 409)
    assert error.message == "The session is still active. Complete it first, then extract its results."

    with front.answering(500) as url, changed_environment(api, GOOGLE_GEMINI_BASE_URL=url) as broken:
        broken.post("/sessions", agent_id=broken.agent(), participant={"identity": "x"}).error(
            "gemini_unavailable", 503
        )
    [failed] = api.get("/sessions", status="failed").json["data"]
    api.post(f"/sessions/{failed['session_id']}/extract").error("voice_session_not_completed", 409)


def test_an_unknown_session_and_another_workspaces_session_are_not_found(api: Api, stranger: Api, call: str) -> None:
    unknown = api.post("/sessions/0199a0f0-0000-7000-8000-000000000000/extract").error("voice_session_not_found", 404)

    assert stranger.post(f"{call}/extract").error("voice_session_not_found", 404).message == unknown.message
    assert api.get(call).data["extraction"]["runs"] == []


@pytest.mark.parametrize("path", ["/sessions/x/extract", "/extractions/preview"])
def test_without_a_key_nothing_is_extracted(api: Api, path: str) -> None:
    answer = Api(api.functions, api.workspace, None).post(path, PASTED)

    answer.error("missing_api_key", 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *each("output_schema", [], "string", 1),
        *each("output_schema_strict", [], "object", 1),
        *each("evidence", "yes", 1),
        *each("preview", None, "yes", 1),
        ("transcript", []),
    ],
)
def test_a_bad_field_is_refused_by_its_path(api: Api, call: str, path: str, value: object) -> None:
    assert api.post(f"{call}/extract", {path: value}).error("invalid_request", 400).paths == [path]
    assert api.get(call).data["extraction"]["runs"] == []


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"output_schema": {"guests": 1}}, "output_schema.guests"),
        ({"output_schema_strict": {"type": "array"}}, "output_schema_strict#"),
        ({"output_schema_strict": {**STRICT, "$dynamicRef": "x"}}, "output_schema_strict#/$dynamicRef"),
    ],
    ids=str,
)
def test_an_unusable_schema_is_refused_with_the_place(api: Api, call: str, schema: dict[str, Any], place: str) -> None:
    for path, body in ((f"{call}/extract", schema), ("/extractions/preview", {**PASTED, **schema})):
        assert api.post(path, body).error("invalid_output_schema", 400).paths == [place]


# ---- A transcript in the request ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "is_shown"), [({}, False), ({"explain": "false"}, False), ({"explain": "true"}, True)]
)
def test_a_preview_shows_what_was_sent_on_request(api: Api, query: dict[str, str], is_shown: int) -> None:
    sent = api.call("POST", "/extractions/preview", body=PASTED, query=query).data["sent_schema"]

    assert (sent is not None) == is_shown


@pytest.mark.parametrize("query", [{"explain": "yes"}, {"explain": ""}, {"explane": "true"}])
def test_a_wrong_query_of_a_preview_is_refused(api: Api, query: dict[str, str]) -> None:
    answer = api.call("POST", "/extractions/preview", body=PASTED, query=query)

    assert answer.error("invalid_request", 400).paths == [*query]


def test_a_preview_of_a_pasted_transcript_stores_nothing(api: Api) -> None:
    answer = api.post("/extractions/preview", {**PASTED, "evidence": True, "duration_seconds": 2.4})

    extracted = answer.data
    assert answer.status == 200
    assert (extracted["session_id"], extracted["results"], extracted["warnings"]) == (None, {"guests": 4}, [])
    extraction = extracted["extraction"]
    assert (extraction["status"], extraction["agent_version"], extraction["runs"]) == ("succeeded", None, [])
    assert extraction["fields"]["guests"]["status"] == "found"
    assert extraction["transcript"]["coverage"] == 0.5
    assert api.get("/sessions").json["data"] == []
    assert api.get("/agents").json["data"] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *each("transcript", None, [], {}, "hello"),
        ("transcript.0.role", "model"),
        *each("output_schema", [], None, {}),
        *each("evidence", None, "yes"),
        *each("called_at", -1, "now", 1.5, 10**12),
        *each("duration_seconds", -1, "90", 86_401),
        ("session_id", "x"),
        ("preview", True),
    ],
)
def test_a_bad_field_of_a_preview_is_refused_by_its_path(api: Api, path: str, value: object) -> None:
    body = {**PASTED, path: value} if "." not in path else {**PASTED, "transcript": [{"role": value, "text": "x"}]}

    assert api.post("/extractions/preview", body).error("invalid_request", 400).paths == [path]


@pytest.mark.parametrize(
    ("transcript", "path"),
    [
        ([{"role": "user", "text": "x" * 20_001}], "transcript.0.text"),
        ([{"role": "user", "text": "é" * 19_000}] * 28, "transcript"),
    ],
    ids=["too long a turn", "over a megabyte"],
)
def test_a_transcript_over_its_limits_is_refused(api: Api, transcript: list[Any], path: str) -> None:
    answer = api.post("/extractions/preview", {**PASTED, "transcript": transcript})

    assert answer.error("voice_transcript_too_large", 413).paths == [path]


@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # a warning of aiohttp
def test_a_megabyte_of_transcript_with_all_characters_escaped_is_accepted(api: Api) -> None:
    turns = [{"role": "user", "text": "语" * 19_000} for _ in range(18)]
    body = json.dumps({**PASTED, "transcript": turns}, ensure_ascii=True)
    assert len(body) > 2_000_000

    assert api.post("/extractions/preview", body).data["extraction"]["status"] == "succeeded"


# ---- Price and rate limit ---------------------------------------------------------------------------


def test_the_cost_is_calculated_from_the_deployments_price_table(api: Api) -> None:
    prices = '{"gemini-extraction-test": {"input": 1000000, "output": 0}}'

    with changed_environment(api, EXTRACTION_PRICES=prices) as priced:
        extraction = priced.post("/extractions/preview", PASTED).data["extraction"]

    assert extraction["cost_usd"] == extraction["input_tokens"] > 0


@pytest.fixture
def limited(api: Api) -> Iterator[Api]:
    """A caller whose workspace may extract twice a minute, with at least 30 seconds left in the minute."""
    if time.time() % 60 > 30:
        time.sleep(60 - time.time() % 60)
    with changed_environment(api, EXTRACTIONS_PER_MINUTE="2") as rate_limited:
        yield rate_limited


def test_extractions_over_the_rate_limit_are_refused_with_retry_after(limited: Api, stranger: Api) -> None:
    path = completed(limited, limited.agent(output_schema=GUESTS))  # not counted
    limited.post(f"{path}/extract", output_schema={"guests": 1}).error("invalid_output_schema", 400)  # not counted
    assert limited.post(f"{path}/extract").status == 200
    assert limited.post("/extractions/preview", PASTED).status == 200

    for refused in (
        limited.post(f"{path}/extract"),
        limited.post(f"{path}/extract", preview=True),
        limited.post("/extractions/preview", PASTED),
    ):
        assert refused.error("rate_limited", 429).retryable
        assert re.fullmatch(r"[1-9]|[1-5]\d|60", refused.headers["Retry-After"])
    assert stranger.post("/extractions/preview", PASTED).status == 200
    assert len(limited.get(path).data["extraction"]["runs"]) == 2
