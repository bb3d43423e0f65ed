"""The Python reference client holds whole calls with the stand-in, and survives injected faults."""

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from local.running import running_api
from tests.browser.api import AGENT, SAYS, Api
from tests.browser.faults import Faults
from tests.browser.python_client import GOODBYE, python_client
from tests.browser.relay import delayed_turns

MANY: Final = [f"Line {number}." for number in range(1_000)]
"""More lines than a call needs until the agent says goodbye."""


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with running_api({**os.environ, "GEMINI_STAND_IN_PACE": "20"}) as running:
        yield Api(running.base_url, running.api_key)


def typing(says: list[str]) -> Callable[[Any], dict[str, str] | None]:
    words = iter(says)
    return lambda turns: {"text": word} if turns[-1]["text"] != GOODBYE and (word := next(words, None)) else None


async def show_table(arguments: Any) -> Any:
    return {"table": f"{arguments['area']} for {arguments['guests']}"}


def is_the_whole_call(turns: list[dict[str, str]]) -> bool:
    assert SAYS
    assert AGENT["questions"]
    spoken = [turn["text"] for turn in turns if turn["role"] == "agent"]
    asked = all(any(question in text for text in spoken) for question in AGENT["questions"])
    answered = [turn["text"] for turn in turns if turn["role"] == "user"] == SAYS
    closed = AGENT["behaviors"]["closing_message"] in spoken[-1]
    return asked and answered and closed


def test_the_python_client_holds_a_whole_call_with_checkpoints_and_results(api: Api) -> None:
    session = api.session()

    async def call() -> Any:
        async with delayed_turns(session, lambda: bool(api.state(session)["checkpoint_turns"])) as held:
            return await python_client().hold_call(held, api.url, typing(SAYS), {"show_table": show_table})

    state = asyncio.run(call())

    assert is_the_whole_call(state["transcript"]), state
    assert (state["status"], state["completed_by"], state["end_reason"]) == ("completed", "client", "agent_hung_up")
    assert (state["extraction"]["status"], state["results"]["guest_name"]) == ("succeeded", "Ana Torres")
    assert [(call["name"], call["arguments"], call["response"]) for call in state["tool_calls"][:1]] == [
        ("show_table", {"area": "terrace", "guests": 6}, {"table": "terrace for 6"})
    ]
    assert [call["name"] for call in state["tool_calls"][1:]] == ["hang_up"]
    assert min(state["usage"]["input_tokens"]["text"], state["usage"]["output_tokens"]["audio"]) > 0
    assert 0 < state["checkpoint_turns"] < len(state["transcript"])


def test_the_python_client_renews_a_refused_token(api: Api) -> None:
    session = api.session()
    session["connection"]["gemini_live"]["token"] = "auth_tokens/forged"

    state = asyncio.run(python_client().hold_call(session, api.url, typing(SAYS)))

    assert is_the_whole_call(state["transcript"]), state


def test_the_python_client_ends_the_call_at_its_cap(api: Api) -> None:
    session = {**api.session(), "max_duration_seconds": 0.2}

    state = asyncio.run(python_client().hold_call(session, api.url, lambda _: {"text": "And another thing."}))

    assert (state["status"], state["end_reason"]) == ("completed", "client_timer")


def test_the_python_client_ends_the_call_when_the_session_was_stopped(api: Api) -> None:
    session = api.session()
    session["connection"]["gemini_live"]["token"] = "auth_tokens/forged"
    api.ask(f"/sessions/{session['session_id']}/stop", {}, session["client_token"])

    with pytest.raises(ConnectionError, match="close code 1007"):
        asyncio.run(python_client().hold_call(session, api.url, typing(SAYS)))


# ---- With injected faults ----


def call_with(faults: Faults, says: list[str]) -> Any:
    async def call() -> Any:
        async with faults.served() as (session, base):
            return await python_client().hold_call(session, base, typing(says))

    return asyncio.run(call())


def test_turns_that_failed_to_send_are_sent_with_the_next_turn() -> None:
    faults = Faults(transcript=[503, None, 500])
    faults.is_done = lambda: len(faults.saved) > 2

    state = call_with(faults, MANY)

    said = [turn["text"] for turn in state["transcript"]][1::2]
    assert len(said) >= 2  # with the greeting and a reply, more than two turns
    assert said == MANY[: len(said)]
    assert len(faults.saved) > 2
    assert faults.saved == state["transcript"][: len(faults.saved)]


def test_after_a_gap_turns_are_sent_from_the_next_expected_one() -> None:
    faults = Faults(loses_turns_after=2)
    faults.is_done = lambda: faults.gaps > 0 and len(faults.saved) > 2

    state = call_with(faults, MANY)

    assert faults.gaps == 1
    assert len(faults.saved) > 2
    assert faults.saved == state["transcript"][: len(faults.saved)]


def test_a_completion_without_an_answer_is_retried_with_the_same_idempotency_key() -> None:
    faults = Faults(complete=[None, 503])

    state = call_with(faults, ["One."])

    assert state["status"] == "completed"
    assert len(faults.keys) == 3
    assert len(set(faults.keys)) == 1
    assert len(set(faults.completions)) == 1


def test_a_completion_with_a_permanent_error_is_not_retried() -> None:
    faults = Faults(complete=[413])

    with pytest.raises(ConnectionError, match="could not be completed: voice_transcript_too_large"):
        call_with(faults, ["One."])
    assert len(faults.keys) == 1


def test_a_session_that_another_client_has_completed_is_read() -> None:
    assert call_with(Faults(complete=[409]), ["One."])["completed_by"] == "another client"


def test_an_expired_token_is_renewed_and_the_conversation_resumed() -> None:
    faults = Faults(token_turns=2)

    state = call_with(faults, ["One.", "Two.", "Three.", "Four.", "Five."])

    assert [turn["text"] for turn in state["transcript"]][1::2] == ["One.", "Two.", "Three.", "Four.", "Five."]
    assert faults.renewals == [True, True]


def test_a_conversation_that_cannot_be_resumed_is_started_again() -> None:
    faults = Faults(token_turns=2, knows_handles=False)

    state = call_with(faults, ["One.", "Two.", "Three."])

    assert state["status"] == "completed"
    assert faults.renewals == [True, False]


def test_attempts_to_reach_a_gemini_that_refuses_all_tokens_are_limited() -> None:
    faults = Faults(token_turns=0)

    with pytest.raises(ConnectionError, match="close code 1011"):
        call_with(faults, ["One."])
    assert 1 < len(faults.renewals) < 10
    assert faults.completions == []
