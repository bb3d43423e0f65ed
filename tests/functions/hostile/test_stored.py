"""What is stored after a hostile request or a hostile answer of the model can be read, returned and deleted."""

import json
from typing import Any, Final

import pytest

from tests.functions.api import Api
from tests.functions.front import Front, changed_environment
from tests.functions.work import Work

TURNS: Final = [{"role": "user", "text": "Hi."}]
FREE: Final = {"type": "object", "additionalProperties": True}
MAX_RESPONSE_BYTES: Final = 409_600


def candidate(text: str) -> str:
    """Return Gemini's response with an answer."""
    parts = {"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": "STOP"}
    return json.dumps({"candidates": [parts], "usageMetadata": {"promptTokenCount": 9}})


def nested(levels: int, opening: str, closing: str) -> str:
    return f'{{"k": {opening * levels}1{closing * levels}}}'


HOSTILE_ANSWERS: Final = {
    "nested lists": nested(190, "[", "]"),
    "nested objects": nested(190, '{"k": ', "}"),
    "a long text": json.dumps({"k": "x" * 1_000_000}),
    "numbers that grow": '{"k": [' + ",".join(["1e15"] * 24_000) + "]}",
    "many names": json.dumps({f"{number}": 0 for number in range(60_000)}),
    "a long name": json.dumps({"n" * 1_000_000: 0}),
}


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("answer", HOSTILE_ANSWERS.values(), ids=HOSTILE_ANSWERS)
@pytest.mark.parametrize("schema", [FREE, {**FREE, "properties": {"k": {"type": "boolean"}}, "required": ["k"]}])
def test_a_session_is_stored_as_its_caller_was_told(
    api: Api, front: Front, answer: str, schema: dict[str, Any]
) -> None:
    session = api.session(api.agent(output_schema_strict=schema))
    path = f"/sessions/{session['session_id']}"
    with front.answering(200, candidate(answer)) as url, changed_environment(api, GOOGLE_GEMINI_BASE_URL=url) as called:
        completed = called.post(f"{path}/complete", transcript=TURNS)

        assert completed.status == 200
        assert completed.json["extraction"]["status"] == "failed"
        assert len(completed.text) < MAX_RESPONSE_BYTES
        assert called.get(path).data == completed.json
        assert called.delete(path).status == 204


def test_details_do_not_quote_a_schema_of_32_kb(api: Api, front: Front, work: Work) -> None:
    patterns = {f"p{number}": {"type": "string", "pattern": "a" * 1_400} for number in range(20)}
    answer = json.dumps(dict.fromkeys(patterns, "b"))
    session = api.session(api.agent(output_schema_strict={"type": "object", "properties": patterns}))
    path = f"/sessions/{session['session_id']}"
    with front.answering(200, candidate(answer)) as url, changed_environment(api, GOOGLE_GEMINI_BASE_URL=url) as called:
        completed = called.post(f"{path}/complete", transcript=TURNS)

        assert completed.json["extraction"]["error"]["code"] == "schema_violation"
        assert len(completed.json["extraction"]["error"]["details"]) == 20
        assert len(completed.text) < 16_384
        assert called.get(path).data == completed.json
        assert work.waiting() == []


@pytest.mark.parametrize("time", ["9" * 400, "1e300", "86400001", "-1", "1e999", "NaN"])
@pytest.mark.parametrize("route", ["transcript", "complete"])
def test_a_time_that_nothing_can_compute_with_is_refused(api: Api, time: str, route: str) -> None:
    session = api.session()
    turns = f'[{{"role": "user", "text": "Hi.", "start_ms": {time}}}]'
    body = f'{{"from": 0, "turns": {turns}}}' if route == "transcript" else f'{{"transcript": {turns}}}'

    api.call("POST", f"/sessions/{session['session_id']}/{route}", body=body).error("invalid_request", 400)


@pytest.mark.usefixtures("work")
def test_times_with_fractions_are_stored_rounded(api: Api) -> None:
    session = api.session()
    path = f"/sessions/{session['session_id']}"
    turn = {"role": "user", "text": "Hi.", "start_ms": 0.4, "end_ms": 86_399_999.6}

    api.post(f"{path}/transcript", {"from": 0, "turns": [turn]})
    api.post(f"{path}/complete", {})

    assert api.get(path).data["transcript"] == [{**turn, "start_ms": 0, "end_ms": 86_400_000}]
