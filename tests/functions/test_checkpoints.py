"""Turns that are kept as the call goes: acknowledged is durable, and nobody writes between another's."""

from typing import Any

import pytest

from tests.functions.conftest import Answer, Api
from tests.functions.test_agents import each, set_at

TURN = {"role": "user", "text": "At seven, ¿de acuerdo? 谢谢", "start_ms": 5, "end_ms": None}


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": "agent", "text": text} for text in texts]


@pytest.fixture
def session(api: Api) -> dict[str, Any]:
    return api.session()


def keep(api: Api, session: dict[str, Any], at: object, turns: object) -> Answer:
    return api.post(f"/sessions/{session['session_id']}/transcript", {"from": at, "turns": turns})


def complete(api: Api, session: dict[str, Any]) -> Any:
    answer = api.post(f"/sessions/{session['session_id']}/complete", {})
    assert answer.status == 200
    return answer.json["transcript"]


def test_turns_are_kept_and_the_answer_says_which_to_send_next(api: Api, session: dict[str, Any]) -> None:
    first, second = keep(api, session, 0, [TURN, *said("b")]), keep(api, session, 2, said("c"))

    assert (first.status, first.json) == (
        200,
        {"data": {"session_id": session["session_id"], "next": 2, "hung_up_at": None}},
    )
    assert second.data["next"] == 3
    state = api.get(f"/sessions/{session['session_id']}").data
    assert (state["status"], state["checkpoint_turns"], state["transcript"]) == ("active", 3, None)
    assert complete(api, session) == [TURN, *said("b", "c")]


def test_what_was_sent_before_changes_nothing_and_what_overlaps_adds_the_rest(
    api: Api, session: dict[str, Any]
) -> None:
    keep(api, session, 0, said("a", "b"))

    assert keep(api, session, 0, said("a", "b")).data["next"] == 2
    assert keep(api, session, 1, said("b", "c")).data["next"] == 3
    assert complete(api, session) == said("a", "b", "c")


def test_a_hole_is_refused_with_the_turn_that_is_wanted(api: Api, session: dict[str, Any]) -> None:
    keep(api, session, 0, said("a"))

    error = keep(api, session, 3, said("d")).error("voice_transcript_gap", 409)

    assert error.next == 1
    assert error.message == "Turns are missing. Send turn 1 and all turns after it."
    assert not error.retryable
    assert complete(api, session) == said("a")


def test_other_words_for_turns_that_are_kept_are_refused_with_the_turn_that_is_wanted(
    api: Api, session: dict[str, Any]
) -> None:
    keep(api, session, 0, said("a", "b"))

    error = keep(api, session, 1, said("x", "c")).error("voice_transcript_conflict", 409)

    assert error.next == 2
    assert error.message.startswith("Turn 1 is already saved with a different text.")
    assert complete(api, session) == said("a", "b")


def test_an_error_that_is_about_no_turn_names_none(api: Api, session: dict[str, Any]) -> None:
    complete(api, session)

    error = keep(api, session, 0, said("a")).error("voice_session_not_active", 409)

    assert not hasattr(error, "next")


def test_a_call_that_was_stopped_still_takes_its_turns(api: Api, session: dict[str, Any]) -> None:
    stopped = api.post(f"/sessions/{session['session_id']}/stop").data

    kept = keep(api, session, 0, said("a")).data
    assert (kept["next"], kept["hung_up_at"]) == (1, stopped["hung_up_at"])
    assert complete(api, session) == said("a")


BAD: list[tuple[str, object]] = [
    *each("from", None, -1, 5_001, "0", 0.5, True),
    *each("turns", None, [], {}, "hello"),
    ("to", 5),
]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_a_bad_field_is_refused_by_its_path(api: Api, session: dict[str, Any], path: str, value: object) -> None:
    sent = set_at({"from": 0, "turns": said("a")}, path, value)

    answer = api.post(f"/sessions/{session['session_id']}/transcript", sent)

    assert answer.error("invalid_request", 400).paths == [path]


@pytest.mark.parametrize(
    ("turns", "paths"),
    [
        (said("a", "x" * 20_001), ["turns.1.text"]),
        (said(*["é" * 10_000] * 16), ["turns"]),
    ],
    ids=["too long a turn", "over 300 KB"],
)
def test_turns_over_the_limits_are_refused_and_nothing_of_them_is_kept(
    api: Api, session: dict[str, Any], turns: list[dict[str, str]], paths: list[str]
) -> None:
    error = keep(api, session, 0, turns).error("voice_transcript_too_large", 413)

    assert error.paths == paths
    assert complete(api, session) == []


def test_too_many_turns_at_once_are_refused(api: Api, session: dict[str, Any]) -> None:
    assert keep(api, session, 0, said(*["a"] * 501)).error("invalid_request", 400).paths == ["turns"]
    assert keep(api, session, 0, said(*["a"] * 500)).data["next"] == 500


def test_an_hour_of_talk_kept_turn_by_turn_comes_back_word_for_word(api: Api, session: dict[str, Any]) -> None:
    turns = said(*(f"{number} 语音" for number in range(120)))

    for number, turn in enumerate(turns):
        assert keep(api, session, number, [turn]).data["next"] == number + 1

    assert complete(api, session) == turns
