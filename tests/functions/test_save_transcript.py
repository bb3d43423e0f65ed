"""Saving turns during the call: acknowledged turns are durable, and concurrent writers do not interleave."""

from typing import Any

import pytest

from tests.functions.api import Answer, Api
from tests.support.bad_values import each, set_at

TURN = {"role": "user", "text": "At seven, ¿de acuerdo? 谢谢", "start_ms": 5, "end_ms": None}


def agent_turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": "agent", "text": text} for text in texts]


@pytest.fixture
def session(api: Api) -> dict[str, Any]:
    return api.session()


def save(api: Api, session: dict[str, Any], at: object, turns: object) -> Answer:
    return api.post(f"/sessions/{session['session_id']}/transcript", {"from": at, "turns": turns})


def complete(api: Api, session: dict[str, Any]) -> Any:
    answer = api.post(f"/sessions/{session['session_id']}/complete", {})
    assert answer.status == 200
    return answer.json["transcript"]


def test_turns_are_saved_and_the_response_has_the_next_index(api: Api, session: dict[str, Any]) -> None:
    first, second = save(api, session, 0, [TURN, *agent_turns("b")]), save(api, session, 2, agent_turns("c"))

    assert (first.status, first.json) == (
        200,
        {"data": {"session_id": session["session_id"], "next": 2, "hung_up_at": None}},
    )
    assert second.data["next"] == 3
    state = api.get(f"/sessions/{session['session_id']}").data
    assert (state["status"], state["checkpoint_turns"], state["transcript"]) == ("active", 3, None)
    assert complete(api, session) == [TURN, *agent_turns("b", "c")]


def test_resent_turns_change_nothing_and_overlapping_turns_add_only_new_ones(api: Api, session: dict[str, Any]) -> None:
    assert save(api, session, 0, agent_turns("a", "b")).status == 200

    assert save(api, session, 0, agent_turns("a", "b")).data["next"] == 2
    assert save(api, session, 1, agent_turns("b", "c")).data["next"] == 3
    assert complete(api, session) == agent_turns("a", "b", "c")


def test_a_gap_is_refused_with_the_index_to_send_next(api: Api, session: dict[str, Any]) -> None:
    assert save(api, session, 0, agent_turns("a")).status == 200

    error = save(api, session, 3, agent_turns("d")).error("voice_transcript_gap", 409)

    assert error.next == 1
    assert not error.retryable
    assert complete(api, session) == agent_turns("a")


def test_a_different_text_for_a_saved_turn_is_refused_with_the_index_to_send_next(
    api: Api, session: dict[str, Any]
) -> None:
    assert save(api, session, 0, agent_turns("a", "b")).status == 200

    error = save(api, session, 1, agent_turns("x", "c")).error("voice_transcript_conflict", 409)

    assert error.next == 2
    assert error.message.startswith("Turn 1 is already saved with a different text.")
    assert complete(api, session) == agent_turns("a", "b")


def test_other_errors_have_no_next_index(api: Api, session: dict[str, Any]) -> None:
    complete(api, session)

    error = save(api, session, 0, agent_turns("a")).error("voice_session_not_active", 409)

    assert not hasattr(error, "next")


def test_turns_of_a_stopped_call_are_still_saved(api: Api, session: dict[str, Any]) -> None:
    stopped = api.post(f"/sessions/{session['session_id']}/stop").data

    saved = save(api, session, 0, agent_turns("a")).data
    assert (saved["next"], saved["hung_up_at"]) == (1, stopped["hung_up_at"])
    assert complete(api, session) == agent_turns("a")


BAD: list[tuple[str, object]] = [
    *each("from", None, -1, 5_001, "0", 0.5, True),
    *each("turns", None, [], {}, "hello"),
    ("to", 5),
]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_a_bad_field_is_refused_by_its_path(api: Api, session: dict[str, Any], path: str, value: object) -> None:
    sent = set_at({"from": 0, "turns": agent_turns("a")}, path, value)

    answer = api.post(f"/sessions/{session['session_id']}/transcript", sent)

    assert answer.error("invalid_request", 400).paths == [path]


@pytest.mark.parametrize(
    ("turns", "paths"),
    [
        (agent_turns("a", "x" * 20_001), ["turns.1.text"]),
        (agent_turns(*["é" * 10_000] * 16), ["turns"]),
    ],
    ids=["too long a turn", "over 300 KB"],
)
def test_turns_over_the_limits_are_refused_and_none_is_saved(
    api: Api, session: dict[str, Any], turns: list[dict[str, str]], paths: list[str]
) -> None:
    error = save(api, session, 0, turns).error("voice_transcript_too_large", 413)

    assert error.paths == paths
    assert complete(api, session) == []


def test_too_many_turns_at_once_are_refused(api: Api, session: dict[str, Any]) -> None:
    assert save(api, session, 0, agent_turns(*["a"] * 501)).error("invalid_request", 400).paths == ["turns"]
    assert save(api, session, 0, agent_turns(*["a"] * 500)).data["next"] == 500


def test_an_hour_of_turns_saved_one_by_one_is_returned_unchanged(api: Api, session: dict[str, Any]) -> None:
    turns = agent_turns(*(f"{number} 语音" for number in range(120)))

    for number, turn in enumerate(turns):
        assert save(api, session, number, [turn]).data["next"] == number + 1

    assert complete(api, session) == turns
