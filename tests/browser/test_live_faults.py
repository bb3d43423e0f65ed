"""The Python reference client bears each fault of Gemini Live that was reported: the transcript is right."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Final

import pytest

from local.stand_ins.gemini_live import LiveTimes
from local.stand_ins.gemini_live_faults import FAULTS, live_faults
from tests.browser.faults import Faults
from tests.browser.python_client import python_client
from tests.browser.stand_in import SAYS, WHOLE_CALL, StandInCall, spoken_input
from tests.local.live.conftest import MODEL, running_gemini

CALLER: Final = [text for role, text in WHOLE_CALL if role == "user"]
WHOLE: Final = ["sentences", "late_speech", "doubled_speech", "late_text", "bundled", "silent_greeting", "go_away", ""]
"""Faults by which no word is lost; with none the stand-in is as unordered as Gemini usually is."""

CUT: Final[dict[str, list[bool]]] = {
    "go_away_now": [],
    "drop": [],
    "hang_up": [True],
    "go_away_now,resume_1011": [True],
    "drop,resume_1011": [True],
    "drop,resume_1007": [False, False],  # the new session breaks, too
}
"""Faults that cut off a turn of the agent, with the renewals that follow: whether there is a handle to resume with."""

OF_FUNCTIONS: Final = {"tool_cancelled", "claims_tool"}
"""Faults of function calls, of which the agent here makes none; test_tool_calls.py has them."""

TOGETHER: Final = "sentences,doubled_speech,late_text,bundled,silent_greeting,go_away"


async def held_by_the_client(given: Any, **constants: object) -> Any:
    """Hold a call with what the program is given, and constants of the client."""
    says = iter(given["says"])

    def reply(turns: Any) -> Any:
        return None if turns[-1]["text"] == "Goodbye." else next(says, None)

    return await python_client(**constants).hold_call(given["session"], given["base"], reply)


@asynccontextmanager
async def call_with(faults: str, model: str) -> AsyncIterator[StandInCall]:
    named = live_faults({"GEMINI_STAND_IN_LIVE": faults})
    async with running_gemini(LiveTimes(pace=20), faults=named) as gemini:
        yield StandInCall(gemini_url=gemini.url, mint=gemini.token, model=model)


def held(faults: str, model: str = MODEL) -> tuple[Any, StandInCall]:
    """Hold a call of two spoken answers, and return the completed session and what the API has seen."""
    constants: dict[str, float] = {"PROMPT_SECONDS": 0.2} if "silent_greeting" in faults else {}
    if "late_text" in faults:
        constants["LATE_SECONDS"] = 6  # for a machine that stands still at the wrong moment

    async def hold() -> tuple[Any, StandInCall]:
        async with call_with(faults, model) as call, call.served() as (session, base):
            given = {"session": session, "base": base, "says": [*map(spoken_input, SAYS)]}
            return await held_by_the_client(given, **constants), call

    return asyncio.run(hold())


def turns_of(state: Any) -> list[tuple[str, str]]:
    return [(turn["role"], turn["text"]) for turn in state["transcript"]]


@pytest.mark.parametrize("faults", [*WHOLE, TOGETHER])
def test_a_call_with_a_fault_has_the_transcript_of_a_call_without(faults: str) -> None:
    state, call = held(faults)

    assert turns_of(state) == WHOLE_CALL
    assert state["end_reason"] == "completed"
    assert call.renewals == []  # after goAway the old connection was closed before the new one was opened
    assert call.saved == state["transcript"][: len(call.saved)]
    assert len(call.saved) >= 3


@pytest.mark.parametrize("faults", ["", TOGETHER])
def test_a_call_with_a_model_that_thinks_between_its_words_has_the_same_transcript(faults: str) -> None:
    state, _ = held(faults, model="models/gemini-3.8-live-extended-thinking")

    assert turns_of(state) == WHOLE_CALL


@pytest.mark.parametrize("faults", CUT)
def test_a_call_that_is_cut_off_goes_on_where_it_was(faults: str) -> None:
    state, call = held(faults)

    turns = turns_of(state)
    cut = [
        turn for turn, after in pairwise(turns) if turn[0] == after[0] == "agent" and after[1].startswith(turn[1] + " ")
    ]
    assert cut
    assert [turn for turn in turns if turn not in cut] == WHOLE_CALL
    assert state["end_reason"] == "completed"
    assert call.renewals == CUT[faults]
    assert call.saved == state["transcript"][: len(call.saved)]


def test_all_faults_are_tested() -> None:
    assert {name for faults in (*WHOLE, *CUT) for name in faults.split(",") if name} | OF_FUNCTIONS == FAULTS.keys()


# ---- What the stand-in cannot do ----


def typed(faults: Faults, says: list[str], **constants: object) -> Any:
    async def hold() -> Any:
        async with faults.served() as (session, base):
            says_in_text = [{"text": text} for text in says]
            return await held_by_the_client({"session": session, "base": base, "says": says_in_text}, **constants)

    return asyncio.run(hold())


def test_a_turn_that_ends_at_idle_gets_one_reply() -> None:
    state = typed(Faults(ends_at_idle=True), ["One.", "Two."])

    assert turns_of(state) == [
        ("agent", "Hello."),
        ("user", "One."),
        ("agent", "Yes?"),
        ("user", "Two."),
        ("agent", "Yes?"),
    ]


def test_a_connection_that_is_not_set_up_in_time_is_given_up() -> None:
    faults = Faults(mute=1)

    state = typed(faults, ["One."], OPENING_SECONDS=2)

    assert turns_of(state)[:2] == [("agent", "Hello."), ("user", "One.")]
    assert set(faults.renewals) == {False}


def test_typed_text_without_an_answer_is_sent_again_on_the_next_connection() -> None:
    faults = Faults(token_turns=1)

    state = typed(faults, ["One.", "Two."])

    assert [text for role, text in turns_of(state) if role == "user"] == ["One.", "Two."]
    assert [said["text"] for said in faults.received if "line" not in said["text"]] == ["One.", "Two."]


def test_without_a_connection_all_text_and_the_latest_audio_are_held_back() -> None:
    faults = Faults(refused=1)
    audio = [{"audio": {"data": str(number), "mimeType": "audio/pcm;rate=16000"}} for number in range(1_200)]
    says: list[Any] = [{"text": "Hello?"}, *audio, {"text": "Are you there?"}]

    async def in_python(session: Any, base: str) -> Any:
        client = python_client()
        async with client.aiohttp.ClientSession() as http:
            call = client.Call(http, session, base)

            async def hang_up() -> None:
                call.hang_up("completed")

            call.on_turn = hang_up
            for realtime_input in says:
                await call.send(realtime_input)
            return await call.complete(await call.hold(600))

    async def hold() -> Any:
        async with faults.served() as (session, base):
            return await in_python(session, base)

    state = asyncio.run(hold())

    assert turns_of(state)[0] == ("user", "Hello? Are you there?")
    assert [said["text"] for said in faults.received if "text" in said] == ["Hello?", "Are you there?"]
    assert [said for said in faults.received if "audio" in said] == audio[-1_000:]


@pytest.mark.parametrize("error", [ValueError, ConnectionError, TimeoutError])
def test_an_error_of_the_python_clients_user_ends_the_call(error: type[Exception]) -> None:
    def reply(_: Any) -> Any:
        raise error("mine")

    async def hold() -> Any:
        async with Faults().served() as (session, base):
            return await python_client().hold_call(session, base, reply)

    with pytest.raises(Exception, match=r"mine|failed") as raised:
        asyncio.run(hold())
    assert isinstance(raised.value.__cause__ or raised.value, error)
