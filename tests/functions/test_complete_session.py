"""Completing a session: its transcript is stored, and its results follow the agent's schema."""

import time
from typing import Any

import pytest

from tests.functions.api import Api
from tests.functions.providers import Providers
from tests.functions.transcripts import ENDING, TRANSCRIPT
from tests.support.bad_values import each, set_at

SCHEMA = {"guests": "integer", "time": "When they will come"}


def test_a_completed_session_is_returned_in_full_without_an_envelope(api: Api) -> None:
    session = api.session(api.agent(questions=["For how many people?"], output_schema=SCHEMA))
    path = f"/sessions/{session['session_id']}"

    answer = api.post(f"{path}/complete", ENDING)

    state = answer.json
    assert answer.status == 200
    assert (state["session_id"], state["status"]) == (session["session_id"], "completed")
    assert state["transcript"] == TRANSCRIPT
    assert (state["duration_seconds"], state["end_reason"], state["completed_by"]) == (93.5, "client_timer", "client")
    assert state["results"].keys() == {"guests", "time"}
    assert state["results"]["guests"] == 4
    extraction = state["extraction"]
    assert (extraction["status"], extraction["model"], extraction["attempts"]) == ("succeeded", "stand-in", 1)
    assert (extraction["error"], extraction["agent_version"]) == (None, 1)
    assert state["created_at"] <= extraction["extracted_at"] <= time.time()
    assert extraction["milliseconds"] > 0
    assert extraction["input_tokens"] > extraction["output_tokens"] > 0
    assert (extraction["cost_usd"], extraction["fields"], extraction["runs"]) == (None, None, [])
    assert extraction["transcript"] == {
        "agent_turns": 2,
        "user_turns": 2,
        "user_is_silent": False,
        "repeated_turns": 0,
        "gaps": 0,
        "longest_gap_seconds": None,
        "coverage": 0.01,
        "warnings": [],
    }
    assert state["created_at"] <= state["completed_at"] <= extraction["extracted_at"]
    assert api.get(path).data == state


def test_a_strict_schema_wins_and_the_results_are_valid(api: Api) -> None:
    strict = {
        "type": "object",
        "properties": {"guests": {"type": "integer"}, "mood": {"enum": ["calm", "upset"]}},
        "required": ["guests", "mood"],
        "additionalProperties": False,
    }
    session = api.session(api.agent(output_schema=SCHEMA, output_schema_strict=strict))

    state = api.post(f"/sessions/{session['session_id']}/complete", ENDING).json

    assert state["extraction"]["status"] == "succeeded"
    assert state["results"].keys() == {"guests", "mood"}
    assert state["results"]["mood"] in ("calm", "upset")


@pytest.mark.parametrize("agent", [{}, {"output_schema": SCHEMA}])
def test_an_empty_transcript_is_not_extracted(api: Api, agent: dict[str, Any]) -> None:
    session = api.session(api.agent(**agent))

    state = api.post(f"/sessions/{session['session_id']}/complete", transcript=[]).json

    assert (state["status"], state["transcript"], state["results"]) == ("completed", [], None)
    extraction = state["extraction"]
    assert (extraction["status"], extraction["model"], extraction["attempts"]) == ("skipped", None, 0)
    assert (extraction["error"], extraction["transcript"], extraction["runs"]) == (None, None, [])
    assert state["end_reason"] == "completed"
    assert api.get(f"/sessions/{session['session_id']}").data == state


def test_an_agent_with_evidence_returns_the_turn_and_quote_of_each_value(api: Api) -> None:
    session = api.session(api.agent(output_schema=SCHEMA, evidence=True))

    state = api.post(f"/sessions/{session['session_id']}/complete", ENDING).json

    assert state["results"].keys() == {"guests", "time"}
    fields = state["extraction"]["fields"]
    assert fields["guests"] == {"status": "found", "turn": 1, "role": "user", "quote": "4", "tool_call": None}
    assert fields["time"]["status"] == "found"
    assert str(fields["time"]["quote"]).casefold() in TRANSCRIPT[fields["time"]["turn"]]["text"].casefold()
    assert api.get(f"/sessions/{session['session_id']}").data == state


def test_a_key_with_a_dot_and_a_nested_key_have_evidence_of_their_own(api: Api) -> None:
    schema = {"guests.count": "integer", "guests": {"count": "integer"}}
    session = api.session(api.agent(output_schema=schema, evidence=True))

    state = api.post(f"/sessions/{session['session_id']}/complete", ENDING).json

    fields = state["extraction"]["fields"]
    assert {path: found["status"] for path, found in fields.items()} == {
        "guests\\.count": "found",
        "guests.count": "found",
    }


def test_a_session_of_an_agent_without_a_schema_has_no_results(api: Api) -> None:
    session = api.session()

    state = api.post(f"/sessions/{session['session_id']}/complete", ENDING).json

    assert (state["results"], state["extraction"]["status"]) == (None, "skipped")
    assert state["transcript"] == TRANSCRIPT


@pytest.mark.parametrize("ending", ["", "{}", '{"transcript": null}', '{"end_reason": "hang_up"}'])
def test_without_a_transcript_the_saved_turns_become_the_transcript(api: Api, ending: str) -> None:
    session = api.session(api.agent(output_schema=SCHEMA))
    path = f"/sessions/{session['session_id']}"
    assert api.post(f"{path}/transcript", {"from": 0, "turns": TRANSCRIPT[:2]}).status == 200
    assert api.post(f"{path}/transcript", {"from": 2, "turns": TRANSCRIPT[2:]}).status == 200

    answer = api.call("POST", f"{path}/complete", body=ending)

    state = answer.json
    assert (answer.status, state["status"], state["checkpoint_turns"]) == (200, "completed", 4)
    assert state["transcript"] == TRANSCRIPT
    assert state["results"]["guests"] == 4
    assert api.get(path).data == state


def test_a_sent_transcript_replaces_saved_turns_even_if_empty(api: Api) -> None:
    session = api.session()
    path = f"/sessions/{session['session_id']}"
    assert api.post(f"{path}/transcript", {"from": 0, "turns": TRANSCRIPT}).status == 200

    state = api.post(f"{path}/complete", transcript=[]).json

    assert (state["transcript"], state["checkpoint_turns"]) == ([], 4)
    assert api.get(path).data["transcript"] == []


def test_completing_a_session_closes_its_room(api: Api, providers: Providers) -> None:
    session = api.session()
    assert session["session_id"] in providers.rooms()

    assert api.post(f"/sessions/{session['session_id']}/complete", ENDING).status == 200

    assert session["session_id"] not in providers.rooms()


def test_a_session_is_completed_once(api: Api) -> None:
    session = api.session()
    path = f"/sessions/{session['session_id']}"
    first = api.post(f"{path}/complete", ENDING).json

    api.post(f"{path}/complete", transcript=[{"role": "user", "text": "Again."}]).error("voice_session_not_active", 409)

    assert api.get(path).data == first


def test_updating_or_deleting_an_agent_does_not_affect_calls_in_progress(api: Api) -> None:
    agent = api.agent(output_schema={"guests": "integer"})
    edited, deleted = api.session(agent), api.session(agent)
    assert api.patch(f"/agents/{agent}", {"output_schema": {"guests": None, "mood": "string"}}).status == 200
    after = api.session(agent)

    state = api.post(f"/sessions/{edited['session_id']}/complete", ENDING).json
    assert api.delete(f"/agents/{agent}").status == 204
    orphan = api.post(f"/sessions/{deleted['session_id']}/complete", ENDING).json

    assert state["results"].keys() == orphan["results"].keys() == {"guests"}
    assert (state["agent_version"], orphan["agent_version"], after["agent_version"]) == (1, 1, 2)


BAD: list[tuple[str, object]] = [
    *each("transcript", {}, "hello", 1),
    *each("duration_seconds", -1, "90", True, 86_401, []),
    *each("end_reason", None, "", "Hung up", 1, "x" * 81),
    ("results", {}),
]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_a_bad_field_is_refused_by_its_path_and_the_session_stays_active(api: Api, path: str, value: object) -> None:
    session = api.session()

    answer = api.post(f"/sessions/{session['session_id']}/complete", set_at(ENDING, path, value))

    assert answer.error("invalid_request", 400).paths == [path]
    assert api.get(f"/sessions/{session['session_id']}").data["status"] == "active"


@pytest.mark.parametrize(
    ("turn", "path"),
    [
        *(
            ({"role": role, "text": "x"}, "transcript.1.role")
            for role in ("assistant", "model", "bot", "human", "customer", "caller")
        ),
        ({"text": "x"}, "transcript.1.role"),
        ({"role": "user"}, "transcript.1.text"),
        ({"role": "user", "text": None}, "transcript.1.text"),
        ({"role": "user", "text": "x", "start_ms": -1}, "transcript.1.start_ms"),
        ({"role": "user", "text": "x", "start_ms": 1_764_364_968_450}, "transcript.1.start_ms"),
        ({"role": "user", "text": "x", "end_ms": "5"}, "transcript.1.end_ms"),
        ({"role": "user", "text": "x", "speaker": "Lea"}, "transcript.1.speaker"),
        ("hello", "transcript.1"),
    ],
)
def test_a_bad_turn_is_named(api: Api, turn: object, path: str) -> None:
    session = api.session()
    ending = {"transcript": [TRANSCRIPT[0], turn]}

    answer = api.post(f"/sessions/{session['session_id']}/complete", ending)

    assert answer.error("invalid_request", 400).paths == [path]


@pytest.mark.parametrize(
    ("transcript", "path"),
    [
        ([{"role": "user", "text": "x"}] * 5_001, "transcript"),
        ([{"role": "user", "text": "x" * 20_001}], "transcript.0.text"),
        ([{"role": "user", "text": "é" * 19_000}] * 28, "transcript"),
    ],
    ids=["too many turns", "too long a turn", "over a megabyte"],
)
def test_a_transcript_over_its_limits_is_refused_and_can_be_sent_again(
    api: Api, transcript: list[dict[str, str]], path: str
) -> None:
    session = api.session()
    complete = f"/sessions/{session['session_id']}/complete"

    error = api.post(complete, transcript=transcript).error("voice_transcript_too_large", 413)

    assert [detail["path"] for detail in error.details] == [path]
    assert api.post(complete, transcript=transcript[:1] if path == "transcript" else []).status == 200


def test_the_transcript_with_the_most_turns_is_returned_unchanged(api: Api) -> None:
    session = api.session()
    transcript = [{"role": "user", "text": f"{number} " + "语音" * 20} for number in range(5_000)]

    completed = api.post(f"/sessions/{session['session_id']}/complete", transcript=transcript)

    assert completed.status == 200
    assert api.get(f"/sessions/{session['session_id']}").data["transcript"] == transcript
