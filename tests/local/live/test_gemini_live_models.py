"""What single Live models refuse, and how they end a turn."""

from typing import Any, Final

import pytest

from pi_voice.domain.agents import Agent
from tests.local.live.callers import BareCaller, Message, Turn
from tests.local.live.conftest import MODEL, SETUP, Gemini
from tests.unit.examples import agent

pytestmark = pytest.mark.anyio

STABLE: Final = "models/gemini-3.8-live"
THINKING: Final = "models/gemini-3.8-live-extended-thinking"
MODELS: Final = [MODEL, STABLE, THINKING]
WITH_TOOLS: Final = agent(
    behaviors={"may_hang_up": True},
    tools=[
        {"name": "wave", "description": "Wave.", "run": {"where": "client"}},
        {"name": "dance", "description": "Dance.", "run": {"where": "client"}, "speaks": "interrupt"},
    ],
)


@pytest.mark.parametrize("tools_of", [None, WITH_TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize("model", MODELS)
async def test_each_model_accepts_the_setup_of_its_token(gemini: Gemini, model: str, tools_of: Agent | None) -> None:
    caller = await gemini.call(await gemini.token(model=model, tools_of=tools_of), model=model)
    await caller.type("The caller is on the line.")

    assert (await caller.until("modelTurn")).messages


@pytest.mark.parametrize("model", MODELS)
async def test_a_browser_cannot_change_what_the_token_locks(gemini: Gemini, model: str) -> None:
    """Each of these would be refused, or change the call, if it came through."""
    setup: Message = {
        "model": model,
        "generationConfig": {"thinkingConfig": {"thinkingLevel": "MINIMAL"}},
        "realtimeInputConfig": {"activityHandling": "NO_INTERRUPTION"},
        "tools": [{"functionDeclarations": [{"name": "f"}]}],
    }

    await gemini.call(await gemini.token(model=model), **setup)


def thinking(level: str | None) -> Message:
    return {"generationConfig": {"thinkingConfig": {"thinkingLevel": level}} if level else {}}


@pytest.mark.parametrize(
    ("model", "setup", "reason"),
    [
        (STABLE, thinking("LOW"), "thinking_level is not supported for models/gemini-3.8-live."),
        (STABLE, {"proactivity": {"proactiveAudio": False}}, "proactive_audio cannot be switched off"),
        (THINKING, thinking(None), f"{THINKING} needs a thinking_level: LOW, MEDIUM, HIGH."),
        (THINKING, thinking("MINIMAL"), f"{THINKING} needs a thinking_level: LOW, MEDIUM, HIGH."),
        (THINKING, {**thinking("LOW"), "proactivity": {"proactiveAudio": False}}, "proactive_audio cannot be"),
    ],
)
async def test_a_setup_that_its_model_refuses_closes_with_1007(
    gemini: Gemini, model: str, setup: Message, reason: str
) -> None:
    caller = await gemini.socket(await gemini.token(bidiGenerateContentSetup=None, fieldMask=None))
    await caller.send({"setup": {**SETUP, "model": model, **setup}})

    code, said = await caller.hangup()
    assert code == 1007
    assert said.startswith(reason)


@pytest.mark.parametrize(
    ("model", "setup"),
    [
        (MODEL, {"proactivity": {"proactiveAudio": False}}),
        (STABLE, {"proactivity": {"proactiveAudio": True}}),
        (THINKING, thinking("HIGH")),
    ],
)
async def test_a_setup_that_its_model_takes_is_accepted(gemini: Gemini, model: str, setup: Message) -> None:
    await gemini.call(await gemini.token(bidiGenerateContentSetup=None, fieldMask=None), model=model, **setup)


def response(**more: Any) -> Message:
    return {"toolResponse": {"functionResponses": [{"id": "1", "name": "f", "response": {"ok": True}, **more}]}}


async def called(gemini: Gemini, model: str) -> BareCaller:
    return await gemini.call(await gemini.token(model=model), model=model)


async def test_extended_thinking_refuses_the_scheduling_of_a_function_response(gemini: Gemini) -> None:
    caller = await called(gemini, THINKING)
    await caller.send(response(scheduling="WHEN_IDLE"))

    assert await caller.hangup() == (1007, f"scheduling is not supported for {THINKING}.")


@pytest.mark.parametrize("model", [STABLE, MODEL])
async def test_other_models_take_the_scheduling_of_a_function_response(gemini: Gemini, model: str) -> None:
    caller = await called(gemini, model)
    await caller.send(response(scheduling="SILENT"))

    assert await caller.hangup() == (1007, 'tool_response: there is no function call with the id "1".')


def ends(turn: Turn) -> list[Any]:
    return [
        (content.get("turnComplete"), content.get("interactionStatus"))
        for message in turn.messages
        if "turnComplete" in (content := message.get("serverContent", {}))
    ]


async def test_a_turn_of_extended_thinking_ends_when_it_is_idle_and_not_at_its_first_turn_complete(
    gemini: Gemini,
) -> None:
    caller = await called(gemini, THINKING)
    await caller.type("The caller is on the line.")

    turn = Turn()
    while (True, "IDLE") not in ends(turn):
        turn.messages.append(await caller.receive())

    assert ends(turn) == [(True, "IN_PROGRESS"), (True, "IDLE")]
    assert turn.words == "Fjord Dental, this is Nora. What is your name?"


@pytest.mark.parametrize("model", [MODEL, STABLE])
async def test_the_turns_of_other_models_have_no_status(gemini: Gemini, model: str) -> None:
    caller = await called(gemini, model)
    await caller.type("The caller is on the line.")

    assert ends(await caller.turn()) == [(True, None)]
