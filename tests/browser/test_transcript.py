"""Both reference clients assemble the same transcript, and report as settled only what no longer changes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from docs.clients.transcript import Transcript
from tests.browser.site import Site, needs_chromium
from tests.support.template import ROOT

CASES: Final[list[Any]] = json.loads((ROOT / "tests/support/transcription.json").read_text(encoding="utf-8"))
"""Messages, and the turns that they make.

`{"typed": ...}` is what the caller types, `at_ms` the time of each message, and `settled` the number of turns that can
no longer change after the last message.
"""

IN_THE_BROWSER: Final = """
const { Transcript } = await import("/transcript.js");
return given.cases.map(({ messages, turn_ends_at, at_ms }) => {
  let now = 0;
  const transcript = new Transcript(turn_ends_at, at_ms && (() => now));
  messages.forEach((message, number) => {
    now = at_ms?.[number];
    if (message.typed === undefined) transcript.take(message);
    else transcript.typed(message.typed);
  });
  return { turns: transcript.turns, settled: transcript.settled };
});
"""


def states(case: Any) -> Iterator[Any]:
    """Yield the turns and the number of settled ones, before the first message and after each."""
    now = 0.0
    transcript = Transcript(case.get("turn_ends_at", "turnComplete"), (lambda: now) if "at_ms" in case else None)
    yield {"turns": [], "settled": 0}
    for number, message in enumerate(case["messages"]):
        now = case["at_ms"][number] if "at_ms" in case else 0.0
        if "typed" in message:
            transcript.typed(message["typed"])
        else:
            transcript.take(message)
        yield {"turns": transcript.turns, "settled": transcript.settled}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_messages_become_turns(case: Any) -> None:
    *_, last = states(case)

    assert last["turns"] == case["turns"]
    assert last["settled"] == case.get("settled", last["settled"])


@needs_chromium
def test_the_browser_client_makes_the_same_turns(site: Site, tmp_path: Path) -> None:
    found = site.result(tmp_path, {"cases": CASES}, IN_THE_BROWSER)

    names = [case["name"] for case in CASES]
    assert dict(zip(names, [each["turns"] for each in found], strict=True)) == {
        case["name"]: case["turns"] for case in CASES
    }
    expected = {case["name"]: case["settled"] for case in CASES if "settled" in case}
    assert {name: each["settled"] for name, each in zip(names, found, strict=True) if name in expected} == expected


# ---- Any messages ----


TEXTS: Final = st.sampled_from(
    [
        "Five.",
        " No",
        "six",
        ", please",
        " ",
        "",
        "¿Sí",
        "(",
        ")",
        "“ja”",
        "六人",
        "です。",
        "หก",
        "여섯 명",
        "…",
        "'s",
        "Ok?",
        "- no",
        "I",
    ]
)
CONTENTS: Final = st.fixed_dictionaries(
    {},
    optional={
        "modelTurn": st.just({"parts": []}),
        "inputTranscription": st.fixed_dictionaries({}, optional={"text": TEXTS, "finished": st.just(True)}),
        "outputTranscription": st.fixed_dictionaries({}, optional={"text": TEXTS}),
        "turnComplete": st.just(True),
        "interrupted": st.just(True),
        "generationComplete": st.just(True),
        "interactionStatus": st.sampled_from(["IDLE", "ACTIVE"]),
    },
)
MESSAGES: Final = st.one_of(
    CONTENTS.map(lambda content: {"serverContent": content}),
    st.sampled_from([{"setupComplete": {}}, {"goAway": {}}, {"interactionStatus": "INTERACTION_STATUS_IDLE"}]),
    TEXTS.map(lambda text: {"typed": text}),
)
CALLS: Final = st.builds(
    lambda messages, ends: {
        "messages": messages,
        "turn_ends_at": ends,
        "at_ms": [100 * number for number, _ in enumerate(messages)],
    },
    st.lists(MESSAGES, max_size=25),
    st.sampled_from(["turnComplete", "idle"]),
)


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


@needs_chromium
def test_the_browser_client_makes_the_same_turns_of_any_messages(site: Site, tmp_path: Path) -> None:
    cases: list[Any] = []

    @settings(deadline=None, max_examples=500, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(CALLS)
    def collect(case: Any) -> None:
        cases.append(case)

    collect()
    found = site.result(tmp_path, {"cases": cases}, IN_THE_BROWSER)

    assert len(cases) >= 100
    for case, each in zip(cases, found, strict=True):
        *_, last = states(case)
        assert each == last, case


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
