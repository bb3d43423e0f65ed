"""The Python reference client assembles the transcript, and reports as settled only what no longer changes."""

import json
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings

from docs.clients.transcript import Transcript
from tests.browser.any_messages import CALLS, states
from tests.support.template import ROOT

CASES: Final[list[Any]] = json.loads((ROOT / "tests/support/transcription.json").read_text(encoding="utf-8"))
"""Messages, and the turns that they make.

`{"typed": ...}` is what the caller types, `at_ms` the time of each message, and `settled` the number of turns that can
no longer change after the last message.
"""


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_messages_become_turns(case: Any) -> None:
    *_, last = states(case)

    assert last["turns"] == case["turns"]
    assert last["settled"] == case.get("settled", last["settled"])


# ---- Any messages ----


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(CALLS)
def test_settled_turns_never_change_again(case: Any) -> None:
    settled: list[Any] = []
    for state in states(case):
        assert state["turns"][: len(settled)] == settled
        assert state["settled"] >= len(settled)
        settled = state["turns"][: state["settled"]]


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(CALLS)
def test_turns_are_in_the_order_of_their_times(case: Any) -> None:
    *_, last = states(case)

    starts = [turn["start_ms"] for turn in last["turns"]]
    assert starts == sorted(starts)
    assert all(turn["start_ms"] <= turn["end_ms"] for turn in last["turns"])


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(CALLS)
def test_no_words_of_the_agent_are_lost(case: Any) -> None:
    contents = [message.get("serverContent", {}) for message in case["messages"]]
    said = "".join(content.get("outputTranscription", {}).get("text", "") for content in contents)
    *_, last = states(case)

    kept = "".join(turn["text"] for turn in last["turns"] if turn["role"] == "agent")
    assert "".join(kept.split()) == "".join(said.split())


# ---- The end of a turn ----


def ends(*messages: Any, turn_ends_at: str = "turnComplete") -> list[bool]:
    transcript = Transcript(turn_ends_at)
    return [transcript.take(message) for message in messages]


AUDIO: Final[Any] = {"serverContent": {"modelTurn": {"parts": []}}}
COMPLETE: Final = {"serverContent": {"turnComplete": True}}
CUT: Final = {"serverContent": {"interrupted": True}}
IDLE: Final = {"interactionStatus": "IDLE"}


def test_the_end_of_a_turn_is_reported_but_not_the_end_of_an_interrupted_one() -> None:
    assert ends(AUDIO, COMPLETE, AUDIO, CUT, COMPLETE, AUDIO, COMPLETE) == [
        *(False, True),
        *(False, False, False),
        *(False, True),
    ]


def test_an_end_without_a_turn_is_reported_because_the_model_may_stay_silent() -> None:
    assert ends(COMPLETE) == [True]


def test_a_turn_that_ends_at_idle_does_not_end_at_turncomplete() -> None:
    assert ends(AUDIO, COMPLETE, AUDIO, COMPLETE, IDLE, turn_ends_at="idle") == [False, False, False, False, True]


def test_closing_settles_all_turns_and_the_next_words_begin_new_ones() -> None:
    transcript = Transcript()
    for text in ("Hello.", "Hello?"):
        transcript.take({"serverContent": {"outputTranscription": {"text": text}}})
        transcript.typed("Hi.")
        transcript.close()
        assert transcript.settled == len(transcript.turns)

    assert [turn["text"] for turn in transcript.turns] == ["Hello.", "Hi.", "Hello?", "Hi."]
