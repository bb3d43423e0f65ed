"""The faults that GEMINI_STAND_IN_LIVE switches on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import pytest

from local.errors import CannotStart
from local.stand_ins.gemini_live import LiveTimes
from local.stand_ins.gemini_live_faults import FAULTS, live_faults
from tests.local.live.callers import BareCaller, Turn
from tests.local.live.conftest import SETUP, Gemini, running_gemini
from tests.support.command_blocks import DOCUMENTS

pytestmark = pytest.mark.anyio

SAID: Final = "Five. No, wait, six."


@asynccontextmanager
async def gemini_with(*names: str) -> AsyncIterator[Gemini]:
    async with running_gemini(LiveTimes(pace=20), faults=live_faults({"GEMINI_STAND_IN_LIVE": ",".join(names)})) as it:
        yield it


async def greeted(gemini: Gemini, token: str | None = None) -> tuple[BareCaller, Turn]:
    caller = await gemini.call(token)
    await caller.type("Hello?")
    return caller, await caller.turn()


async def answered(*names: str) -> Turn:
    """Say two sentences after the greeting, and return the answer."""
    async with gemini_with(*names) as gemini:
        caller, _ = await greeted(gemini)
        await caller.say(SAID)
        return await caller.turn()


async def test_each_sentence_of_the_caller_can_be_transcribed_apart() -> None:
    assert (await answered("sentences")).content("inputTranscription") == [
        {"text": "Five."},
        {"text": "No, wait, six."},
    ]


async def test_the_caller_can_be_transcribed_at_the_end_of_the_answer() -> None:
    kinds = (await answered("late_speech")).kinds

    assert "modelTurn" not in kinds[kinds.index("inputTranscription") :]
    assert kinds.index("inputTranscription") < kinds.index("turnComplete")


async def test_the_caller_can_be_transcribed_twice() -> None:
    turn = await answered("doubled_speech")

    assert turn.content("inputTranscription") == [{"text": SAID}] * 2


async def test_the_agents_last_words_can_arrive_a_moment_after_each_turn() -> None:
    async with gemini_with("late_text") as gemini:
        caller, turn = await greeted(gemini)
        late = await caller.until("outputTranscription")

    assert turn.text == "Fjord Dental, this is Nora. What is your "
    assert late.text == "name?"


async def test_late_text_arrives_before_the_next_turn() -> None:
    async with gemini_with("late_text") as gemini:
        caller, _ = await greeted(gemini)
        await caller.type("Erik.")
        turn = await caller.turn()

    assert turn.kinds[0] == "outputTranscription"
    assert turn.text.startswith("name?Thank you.")


async def test_transcriptions_can_arrive_with_the_audio_or_the_end_of_a_turn() -> None:
    contents = [set(message.get("serverContent", {})) for message in (await answered("bundled")).messages]

    assert {"modelTurn", "inputTranscription", "outputTranscription"} in contents
    assert {"generationComplete", "turnComplete"} in contents


async def test_the_first_text_of_a_session_can_stay_without_an_answer() -> None:
    async with gemini_with("silent_greeting") as gemini:
        caller = await gemini.call()
        await caller.type("Hello?")
        await caller.type("Hello?")

        assert "interrupted" not in (await caller.turn()).kinds


@pytest.mark.parametrize(("fault", "left"), [("go_away", "50s"), ("go_away_now", "5s")])
async def test_goaway_can_arrive_in_the_middle_of_a_turn(fault: str, left: str) -> None:
    async with gemini_with(fault) as gemini:
        caller, _ = await greeted(gemini)
        await caller.type("Erik.")
        turn = await caller.turn()
        gemini.let_pass(50)
        code, _ = await caller.hangup()

    warned = turn.kinds.index("goAway")
    assert turn.messages[[list(message) for message in turn.messages].index(["goAway"])] == {
        "goAway": {"timeLeft": left}
    }
    assert {"modelTurn"} <= set(turn.kinds[:warned]) & set(turn.kinds[warned:])
    assert code == 1008


async def test_a_connection_can_be_closed_in_the_middle_of_a_turn() -> None:
    async with gemini_with("hang_up") as gemini:
        caller, _ = await greeted(gemini)
        await caller.type("Erik.")

        assert (await caller.hangup())[0] == 1011


async def test_a_connection_can_break_in_the_middle_of_a_turn() -> None:
    async with gemini_with("drop") as gemini:
        caller, _ = await greeted(gemini)
        await caller.type("Erik.")
        while (frame := await caller.socket.receive(120)).type is aiohttp.WSMsgType.BINARY:
            pass

    assert frame.type is not aiohttp.WSMsgType.CLOSE
    assert caller.socket.close_code == 1006


@pytest.mark.parametrize(("fault", "codes"), [("resume_1011", [1011, None]), ("resume_1007", [1007, 1007])])
async def test_resuming_can_be_refused(fault: str, codes: list[int | None]) -> None:
    async with gemini_with(fault) as gemini:
        token = await gemini.token()
        caller, turn = await greeted(gemini, token)
        await caller.socket.close()
        found = []
        for _ in codes:
            caller = await gemini.socket(token)
            await caller.send({"setup": {**SETUP, "sessionResumption": {"handle": turn.handle}}})
            frame: Any = await caller.socket.receive(120)
            found.append(frame.data if frame.type is aiohttp.WSMsgType.CLOSE else None)

    assert found == codes


async def test_an_ended_connection_leaves_no_late_text_behind() -> None:
    before = asyncio.all_tasks()
    async with gemini_with("late_text") as gemini:
        caller, _ = await greeted(gemini)
        await caller.socket.close()

    if left := asyncio.all_tasks() - before:
        await asyncio.wait(left, timeout=120)
    assert asyncio.all_tasks() == before


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(CannotStart, match="GEMINI_STAND_IN_LIVE has early, late: give some of sentences, "):
        live_faults({"GEMINI_STAND_IN_LIVE": "drop, late,early"})


def test_no_faults_are_the_default() -> None:
    assert live_faults({}) == live_faults({"GEMINI_STAND_IN_LIVE": " , "}) == frozenset()


def test_the_documentation_has_all_faults() -> None:
    [operations] = [page.read_text(encoding="utf-8") for page in DOCUMENTS if page.name == "operations.md"]

    assert [line for name, what in FAULTS.items() if (line := f"| `{name}` | {what} |") not in operations] == []
