"""Extracting results by hand: from a completed session, as a run in its history, and from a pasted transcript."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.functions.conftest import Api
from tests.functions.providers import Providers
from tests.functions.test_agents import each
from tests.functions.test_complete import ENDING, TRANSCRIPT
from tests.functions.test_providers_failing import Front, led_to
from tests.functions.test_work import AWAY

GUESTS = {"guests": "integer"}
STRICT = {
    "type": "object",
    "properties": {"guests": {"type": "integer", "multipleOf": 2}},
    "required": ["guests"],
    "additionalProperties": False,
}
PASTED = {"transcript": TRANSCRIPT, "output_schema": GUESTS}


@pytest.fixture
def front(providers: Providers) -> Front:
    return Front(providers)


@pytest.fixture
def call(api: Api) -> str:
    """The path of a session that was completed with results."""
    return completed(api, api.agent(output_schema=GUESTS))


def completed(api: Api, agent_id: str) -> str:
    path = f"/sessions/{api.session(agent_id)['session_id']}"
    assert api.post(f"{path}/complete", ENDING).status == 200
    return path


def answering(front: Front, text: str) -> AbstractContextManager[str]:
    """Let the model give this text, whatever it is asked."""
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
    return front.answering(200, json.dumps({"candidates": [candidate], "modelVersion": "bad-model"}))


# ---- A session ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, "", "{}"], ids=["nothing", "empty", "object"])
def test_results_are_extracted_again_by_the_agent_s_schema_as_it_is_now(api: Api, body: str | None) -> None:
    agent = api.agent(output_schema=GUESTS)
    path = completed(api, agent)
    api.patch(f"/agents/{agent}", {"output_schema": {"guests": None, "mood": "string"}})

    answer = api.call("POST", f"{path}/extract", body=body)

    told = answer.data
    assert answer.status == 200
    assert told["session_id"] == path.removeprefix("/sessions/")
    assert (told["results"].keys(), told["warnings"]) == ({"mood"}, [])
    extraction = told["extraction"]
    assert (extraction["status"], extraction["agent_version"], extraction["model"]) == ("succeeded", 2, "stand-in")
    new, first = extraction["runs"]
    assert (new["agent_version"], new["results"], new["error"]) == (2, told["results"], None)
    assert (first["agent_version"], first["results"], first["status"]) == (1, {"guests": 4}, "succeeded")
    assert new["at"] == extraction["extracted_at"] >= first["at"]
    state = api.get(path).data
    assert (state["results"], state["extraction"]) == (told["results"], extraction)
    assert (state["status"], state["agent_version"], state["transcript"]) == ("completed", 1, TRANSCRIPT)


def test_a_schema_of_its_own_is_for_this_run_alone_and_is_warned_of(api: Api, call: str) -> None:
    told = api.post(f"{call}/extract", output_schema_strict=STRICT, evidence=True).data

    assert told["results"] == {"guests": 4}
    assert [warning["path"] for warning in told["warnings"]] == ["output_schema_strict#/properties/guests/multipleOf"]
    assert told["extraction"]["agent_version"] is None
    assert told["extraction"]["fields"] == {"guests": {"status": "found", "turn": 1, "quote": "4"}}
    assert api.get(call).data["extraction"] == told["extraction"]


def test_a_preview_changes_nothing(api: Api, call: str) -> None:
    before = api.get(call).data

    told = api.post(f"{call}/extract", preview=True, output_schema={"mood": "string"}).data

    assert told["results"].keys() == {"mood"}
    assert told["extraction"]["runs"] == []
    assert api.get(call).data == before


def test_runs_add_up_newest_first_and_ten_are_kept(api: Api, call: str) -> None:
    for _ in range(11):
        runs = api.post(f"{call}/extract").data["extraction"]["runs"]

    assert len(runs) == 10
    assert sorted((run["at"] for run in runs), reverse=True) == [run["at"] for run in runs]
    assert api.get(call).data["extraction"]["runs"] == runs


def test_a_run_whose_answer_breaks_the_schema_is_told_with_its_faults_and_takes_nothing_away(
    api: Api, front: Front, call: str
) -> None:
    before = api.get(call).data

    with answering(front, '{"guests": "secret-4711"}') as url, led_to(api, GOOGLE_GEMINI_BASE_URL=url) as bad:
        answer = bad.post(f"{call}/extract")

    told = answer.data
    assert (answer.status, told["results"], told["extraction"]["status"]) == (200, None, "failed")
    assert told["extraction"]["attempts"] == 2
    error = told["extraction"]["error"]
    assert error["code"] == "schema_violation"
    assert error["details"] == [{"path": "guests", "message": "Should be of type integer or null."}]
    assert "4711" not in answer.text
    after = api.get(call).data
    assert after["results"] == before["results"] == {"guests": 4}
    assert {**after["extraction"], "runs": []} == before["extraction"]
    assert [run["status"] for run in after["extraction"]["runs"]] == ["failed", "succeeded"]


def test_a_run_for_which_gemini_is_away_is_told_and_takes_nothing_away(api: Api, front: Front, call: str) -> None:
    away = json.dumps({"error": {"message": "do not tell", "details": [AWAY]}})

    with front.answering(503, away) as url, led_to(api, GOOGLE_GEMINI_BASE_URL=url) as broken:
        told = broken.post(f"{call}/extract").data

    assert told["extraction"]["error"]["code"] == "gemini_unavailable"
    assert api.get(call).data["results"] == {"guests": 4}


def test_an_agent_that_was_deleted_still_says_what_it_wanted(api: Api) -> None:
    agent = api.agent(output_schema=GUESTS)
    path = completed(api, agent)
    api.delete(f"/agents/{agent}")

    assert api.post(f"{path}/extract").data["results"] == {"guests": 4}


def test_where_there_is_nothing_to_extract_it_is_skipped(api: Api) -> None:
    path = completed(api, api.agent())

    told = api.post(f"{path}/extract").data

    assert (told["results"], told["extraction"]["status"], told["extraction"]["runs"]) == (None, "skipped", [])


def test_a_call_that_goes_on_or_failed_has_nothing_to_extract(api: Api, front: Front) -> None:
    active = f"/sessions/{api.session(api.agent(output_schema=GUESTS))['session_id']}"
    error = api.post(f"{active}/extract").error("voice_session_active", 409)
    assert error.message == "The session is still active. Complete it first, then extract its results."

    with front.answering(500) as url, led_to(api, GOOGLE_GEMINI_BASE_URL=url) as broken:
        broken.post("/sessions", agent_id=broken.agent(), participant={"identity": "x"}).error(
            "gemini_unavailable", 503
        )
    [failed] = api.get("/sessions", status="failed").json["data"]
    api.post(f"/sessions/{failed['session_id']}/extract").error("voice_session_not_completed", 409)


def test_a_session_that_is_not_there_or_another_workspace_s_is_not_found(api: Api, stranger: Api, call: str) -> None:
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
    ("wanted", "place"),
    [
        ({"output_schema": {"guests": 1}}, "output_schema.guests"),
        ({"output_schema_strict": {"type": "array"}}, "output_schema_strict#"),
        ({"output_schema_strict": {**STRICT, "$dynamicRef": "x"}}, "output_schema_strict#/$dynamicRef"),
    ],
    ids=str,
)
def test_a_schema_that_cannot_be_used_is_refused_by_its_place(
    api: Api, call: str, wanted: dict[str, Any], place: str
) -> None:
    for path, body in ((f"{call}/extract", wanted), ("/extractions/preview", {**PASTED, **wanted})):
        assert api.post(path, body).error("invalid_output_schema", 400).paths == [place]


# ---- A pasted transcript --------------------------------------------------------------------------------


def test_a_schema_is_tried_out_on_a_pasted_transcript_and_nothing_is_kept(api: Api) -> None:
    answer = api.post("/extractions/preview", {**PASTED, "evidence": True, "duration_seconds": 2.4})

    told = answer.data
    assert answer.status == 200
    assert (told["session_id"], told["results"], told["warnings"]) == (None, {"guests": 4}, [])
    extraction = told["extraction"]
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


@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # aiohttp's; it is sent
def test_a_megabyte_of_transcript_with_every_letter_escaped_is_taken(api: Api) -> None:
    turns = [{"role": "user", "text": "语" * 19_000} for _ in range(18)]
    body = json.dumps({**PASTED, "transcript": turns}, ensure_ascii=True)
    assert len(body) > 2_000_000

    assert api.post("/extractions/preview", body).data["extraction"]["status"] == "succeeded"


# ---- The price, and the workspace's rate ----------------------------------------------------------------


def test_the_cost_is_told_by_the_deployment_s_price_table(api: Api) -> None:
    prices = '{"gemini-extraction-test": {"input": 1000000, "output": 0}}'

    with led_to(api, EXTRACTION_PRICES=prices) as priced:
        extraction = priced.post("/extractions/preview", PASTED).data["extraction"]

    assert extraction["cost_usd"] == extraction["input_tokens"] > 0


@pytest.fixture
def slow(api: Api) -> Iterator[Api]:
    """A caller whose workspace may extract twice a minute, in a minute that goes on for a while."""
    if time.time() % 60 > 30:
        time.sleep(60 - time.time() % 60)
    with led_to(api, EXTRACTIONS_PER_MINUTE="2") as limited:
        yield limited


def test_who_extracts_too_often_is_told_when_to_come_back(slow: Api, stranger: Api) -> None:
    path = completed(slow, slow.agent(output_schema=GUESTS))  # which does not count
    slow.post(f"{path}/extract", output_schema={"guests": 1}).error("invalid_output_schema", 400)  # nor does this
    assert slow.post(f"{path}/extract").status == 200
    assert slow.post("/extractions/preview", PASTED).status == 200

    for refused in (
        slow.post(f"{path}/extract"),
        slow.post(f"{path}/extract", preview=True),
        slow.post("/extractions/preview", PASTED),
    ):
        assert refused.error("rate_limited", 429).retryable
        assert re.fullmatch(r"[1-9]|[1-5]\d|60", refused.headers["Retry-After"])
    assert stranger.post("/extractions/preview", PASTED).status == 200
    assert len(slow.get(path).data["extraction"]["runs"]) == 2
