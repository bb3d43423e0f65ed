"""The agent calls its functions, waits for their answers or goes on speaking, and hangs up."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from local.stand_ins.gemini_live import LiveTimes
from local.stand_ins.gemini_live_access import LiveSession
from local.stand_ins.gemini_live_agent import Interview
from local.stand_ins.gemini_live_conversation import Conversation
from local.stand_ins.gemini_live_faults import NO_FAULTS
from pi_voice.domain.base import JsonObject
from pi_voice.domain.prompts import instruction_to_continue
from pi_voice.domain.tool_calls import ToolCall
from pi_voice.domain.transcripts import TranscriptTurn
from tests.local.live.callers import BareCaller, Message, Sent, Turn, audio_messages, spoken
from tests.local.live.conftest import MODEL, Gemini, running_gemini
from tests.unit.examples import agent

pytestmark = pytest.mark.anyio

STABLE: Final = "models/gemini-3.8-live"
THINKING: Final = "models/gemini-3.8-live-extended-thinking"
MODELS: Final = [MODEL, STABLE, THINKING]

PAGE: Final = {"where": "client"}
SHOW_TABLE: Final[Message] = {
    "name": "show_table",
    "description": "Show a free table.",
    "parameters": {
        "type": "object",
        "properties": {"guests": {"type": "integer"}, "area": {"enum": ["inside", "outside"]}},
        "required": ["guests", "area"],
    },
    "run": PAGE,
}
SEND_MENU: Final[Message] = {
    "name": "send_menu",
    "description": "Send the menu.",
    "parameters": {"type": "object", "properties": {"by": {"enum": ["email", "text message"]}}, "required": ["by"]},
    "run": PAGE,
}
LINES: Final[dict[str, Any]] = {
    "name": "Mia",
    "questions": ["For how many people?", "Anything else?", "Is that all?"],
    "behaviors": {"greeting": "Linden.", "closing_message": "See you soon."},
}
MIA: Final = agent(**LINES, tools=[SHOW_TABLE, SEND_MENU])
BUSY_MIA: Final = agent(**LINES, tools=[{**SHOW_TABLE, "speaks": "when_idle"}, {**SEND_MENU, "speaks": "when_idle"}])
"""Goes on speaking while her functions run, with a model that can."""

TOOLS: Final = [
    {
        "functionDeclarations": [
            {
                "name": "show_table",
                "parameters": {
                    "type": "OBJECT",
                    "properties": {"area": {"type": "STRING", "enum": ["inside", "outside"]}},
                },
            }
        ]
    }
]
"""Tools of a setup."""

MIA_WHO_HANGS_UP: Final = agent(
    **{**LINES, "behaviors": {**LINES["behaviors"], "may_hang_up": True}, "questions": ["For how many people?"]}
)


@pytest.fixture
async def unhurried() -> AsyncIterator[Gemini]:
    async with running_gemini(LiveTimes(pace=4)) as gemini:
        yield gemini


async def called(caller: BareCaller, words: str = "Six, outside please.") -> Message:
    """Say something, and return the one function call that follows."""
    await caller.say(words)
    [call] = (await caller.until("toolCall")).calls
    return call


# ---- Functions for which the agent waits ----


@pytest.mark.parametrize("model", MODELS)
async def test_words_that_name_a_choice_call_the_function_before_the_agent_speaks(gemini: Gemini, model: str) -> None:
    caller = await gemini.call_of(MIA, model)
    await caller.say("Six, outside please.")
    turn = await caller.until("toolCall")

    assert turn.calls == [
        {"id": "function-call-1-1", "name": "show_table", "args": {"guests": 6, "area": "outside"}},
    ]
    assert turn.kinds == ["sessionResumptionUpdate", "inputTranscription", "toolCall"]
    assert turn.heard == "Six, outside please."


async def test_the_agent_speaks_about_the_answer_and_goes_on_with_its_next_question(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    await caller.answer(await called(caller), {"table": "T12"})

    assert (await caller.turn()).text == "Done: T12. Anything else?"


async def test_the_agent_says_that_a_function_has_failed(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    await caller.answer(await called(caller), {"error": "No table is free."})

    assert (await caller.turn()).text == "That did not work: No table is free. Anything else?"


async def test_functions_are_called_together_and_the_agent_waits_for_all_of_them(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    await caller.say("Six, outside, and the menu by text message.")
    first, second = (await caller.until("toolCall")).calls
    await caller.answer(second, {"status": "sent"})
    await caller.answer(first, {"table": "T12"})

    assert [call["name"] for call in (first, second)] == ["show_table", "send_menu"]
    assert second["args"] == {"by": "text message"}
    assert (await caller.turn()).text == "Done: sent. Done: T12. Anything else?"


async def test_each_utterance_calls_again_and_ids_are_not_repeated(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    ids = []
    for words in ("Six, outside please.", "Inside, after all.", "Outside, and inside."):
        call = await called(caller, words)
        ids.append(call["id"])
        await caller.answer(call)
        await caller.turn()

    assert ids == ["function-call-1-1", "function-call-1-2", "function-call-1-3"]


async def test_sessions_have_different_ids(gemini: Gemini) -> None:
    calls = [await called(await gemini.call_of(MIA)) for _ in range(2)]

    assert calls[0]["id"] != calls[1]["id"]


@pytest.mark.parametrize("words", ["Six of us.", "An outsider.", "The insides."])
async def test_other_words_call_nothing(gemini: Gemini, words: str) -> None:
    caller = await gemini.call_of(MIA)
    await caller.say(words)

    assert (await caller.turn()).calls == []


async def test_typed_words_call_functions(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    await caller.type("OUTSIDE!")

    assert (await caller.until("toolCall")).calls[0]["args"]["area"] == "outside"


async def test_a_whole_turn_as_text_calls_functions(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    turn = {"role": "user", "parts": [{"text": "Outside."}]}
    await caller.send({"clientContent": {"turns": [turn], "turnComplete": True}})

    assert (await caller.until("toolCall")).calls


async def test_texts_that_make_the_agent_speak_are_no_words_of_the_caller(gemini: Gemini) -> None:
    switch: JsonObject = {"type": "object", "properties": {"to": {"enum": ["on", "off", "now"]}}}
    lamp = agent(**LINES, tools=[{**SHOW_TABLE, "parameters": switch}])
    caller = await gemini.call_of(lamp)
    await caller.type("The connection was interrupted and is back. Go on with the call now, from where it broke off.")

    assert (await caller.turn()).calls == []


async def test_an_agent_that_waits_for_an_answer_for_ever_does_nothing_meanwhile() -> None:
    sent = Sent()
    async with asyncio.TaskGroup() as tasks:  # waits for all tasks of the conversation
        setup = {"model": MODEL, "tools": TOOLS}
        conversation = Conversation(setup, (LiveSession(), None), sent, tasks, NO_FAULTS, {})
        for message in audio_messages(spoken("Outside.")):
            await conversation.receive(message)

    assert sent.turn.kinds == ["toolCall"]


# ---- Functions during which the agent goes on speaking ----


@pytest.mark.parametrize("model", [STABLE, THINKING])
async def test_the_agent_goes_on_while_a_function_runs_and_speaks_about_its_answer_after_the_turn(
    unhurried: Gemini, model: str
) -> None:
    caller = await unhurried.call_of(BUSY_MIA, model)
    call = await called(caller)
    said = await caller.until("modelTurn")
    await caller.answer(call, {"table": "T12"})
    said.messages += (await caller.turn()).messages
    news = await caller.turn()

    assert said.text == "Thank you. Anything else?"
    assert "interrupted" not in said.kinds
    assert news.text == "Done: T12."


async def test_an_answer_after_the_turn_is_spoken_at_once(gemini: Gemini) -> None:
    caller = await gemini.call_of(BUSY_MIA, STABLE)
    call = await called(caller)
    await caller.turn()
    await caller.answer(call, {"table": "T12"}, scheduling="WHEN_IDLE")

    assert (await caller.turn()).text == "Done: T12."
    await caller.say("No.")
    assert (await caller.turn()).text.endswith("Is that all?")


async def test_an_answer_can_interrupt_the_agent(unhurried: Gemini) -> None:
    caller = await unhurried.call_of(BUSY_MIA, STABLE)
    call = await called(caller)
    await caller.until("modelTurn")
    await caller.answer(call, {"table": "T12"}, scheduling="INTERRUPT")
    cut = await caller.until("turnComplete")
    await caller.until("sessionResumptionUpdate")

    assert cut.kinds[-3:] == ["interrupted", "turnComplete", "usageMetadata"]
    assert "Done: T12." in (await caller.turn()).text


@pytest.mark.parametrize(("asked", "again"), [(0, "For how many people?"), (3, "See you soon.")])
async def test_after_an_interruption_by_an_answer_the_agent_says_again_what_it_had_not_said(
    asked: int, again: str
) -> None:
    sent, state = Sent(held=1), replace(Interview.of(instruction_to_continue(BUSY_MIA)), asked=asked)
    setup = {"model": STABLE, "tools": TOOLS, "outputAudioTranscription": {}}
    async with asyncio.TaskGroup() as tasks:
        conversation = Conversation(setup, (LiveSession(), state), sent, tasks, NO_FAULTS, {})
        await conversation.receive({"realtimeInput": {"text": "Outside."}})
        await sent.has_sounded.wait()  # and no further: the pacer holds the turn
        [call] = sent.turn.calls
        answer = {"id": call["id"], "response": {"table": "T12"}, "scheduling": "INTERRUPT"}
        await conversation.receive({"toolResponse": {"functionResponses": [answer]}})

    kinds = sent.turn.kinds
    after = Turn(sent.turn.messages[kinds.index("interrupted") :])
    assert after.text == f"Done: T12. {again}"


async def test_an_answer_can_be_silent(gemini: Gemini) -> None:
    caller = await gemini.call_of(BUSY_MIA, STABLE)
    await caller.answer(await called(caller), {"table": "T12"}, scheduling="SILENT")
    turns = [await caller.turn()]
    await caller.say("No.")
    turns.append(await caller.turn())

    assert [turn.text for turn in turns] == ["Thank you. Anything else?", "All right. Is that all?"]


async def test_nothing_is_told_while_the_caller_speaks(gemini: Gemini) -> None:
    caller = await gemini.call_of(BUSY_MIA, STABLE)
    call = await called(caller)
    await caller.turn()
    await caller.sound(spoken("No, ", rest=0))
    await caller.answer(call, {"table": "T12"}, scheduling="INTERRUPT")
    await caller.sound(spoken("thank you."))

    assert (await caller.turn()).text == "Done: T12. Is that all?"


async def test_a_function_can_answer_in_parts(gemini: Gemini) -> None:
    caller = await gemini.call_of(BUSY_MIA, STABLE)
    call = await called(caller)
    await caller.turn()
    said = []
    for number, more in enumerate((True, True, False)):
        await caller.answer(call, {"part": f"Part {number}"}, willContinue=more)
        said.append((await caller.turn()).text)

    assert said == ["Done: Part 0.", "Done: Part 1.", "Done: Part 2."]


async def test_the_model_that_always_waits_ignores_scheduling(gemini: Gemini) -> None:
    caller = await gemini.call_of(BUSY_MIA, MODEL)
    await caller.answer(await called(caller), {"table": "T12"}, scheduling="SILENT")

    assert (await caller.turn()).text == "Done: T12. Anything else?"


# ---- Cancellations ----


@pytest.mark.parametrize("words", ["Hello? Are you there?", "Inside, sorry."])
async def test_the_callers_voice_cancels_the_calls_for_which_the_agent_waits(gemini: Gemini, words: str) -> None:
    caller = await gemini.call_of(MIA)
    call = await called(caller)
    await caller.say(words)
    cut = await caller.until("turnComplete")

    assert cut.cancelled == [call["id"]]
    assert cut.kinds == ["toolCallCancellation", "interrupted", "turnComplete", "usageMetadata"]


async def test_after_a_cancellation_the_callers_turn_is_answered_and_a_late_answer_ignored(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    call = await called(caller)
    await caller.say("Hello? Are you there?")
    await caller.until("toolCallCancellation")
    await caller.answer(call, {"table": "T12"})
    await caller.turn()
    turn = await caller.turn()

    assert (turn.heard, turn.text) == ("Hello? Are you there?", "Thank you. Anything else?")


async def test_a_text_cancels_a_call(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    call = await called(caller)
    await caller.type("Hello?")

    assert (await caller.until("turnComplete")).cancelled == [call["id"]]


async def test_the_callers_voice_cancels_no_call_for_which_the_agent_does_not_wait(gemini: Gemini) -> None:
    caller = await gemini.call_of(BUSY_MIA, STABLE)
    call = await called(caller)
    await caller.turn()
    await caller.say("No.")
    turn = await caller.turn()
    await caller.answer(call, {"table": "T12"})

    assert turn.cancelled == []
    assert (await caller.turn()).text == "Done: T12."


async def test_a_call_without_an_answer_is_cancelled_when_the_session_is_resumed(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    call = await called(caller)
    await caller.answer(call)
    handle = await caller.handle()
    second = await called(caller, "Inside, please.")
    await caller.socket.close()
    again = await gemini.resume(caller.token, handle)
    cancelled = (await again.until("toolCallCancellation")).cancelled
    await again.answer(second)
    third = await called(again, "Inside, please.")

    assert cancelled == [second["id"]]
    assert third == {**second, "id": "function-call-1-3"}


async def test_a_resumed_session_knows_what_was_said_before(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    await caller.say("Six.")
    handle = await caller.handle()
    await caller.socket.close()
    again = await gemini.resume(caller.token, handle)

    assert (await called(again, "Outside."))["args"] == {"guests": 6, "area": "outside"}


# ---- Calls that go on in a new session ----


async def test_a_continued_call_does_not_repeat_what_was_done(gemini: Gemini) -> None:
    said: list[TranscriptTurn] = [
        {"role": "agent", "text": "Linden. For how many people?"},
        {"role": "user", "text": "Six, outside please."},
    ]
    arguments: JsonObject = {"guests": 6, "area": "outside"}
    done = ToolCall(
        call_id="function-call-1-1",
        name="show_table",
        arguments=arguments,
        status="succeeded",
        response={"table": "T12"},
        called_at=1,
    )
    caller = await gemini.call_of(MIA, instruction=instruction_to_continue(MIA, said, [done]))
    calls: list[Any] = []
    for words in ("Six, outside please.", "Inside."):
        await caller.say(words)
        turn = await caller.until("modelTurn" if not calls else "toolCall")
        calls.append([call["args"] for call in turn.calls])
        if not turn.calls:
            await caller.turn()

    assert calls == [[], [{"guests": 6, "area": "inside"}]]


# ---- Answers that are refused ----


ANSWERS: Final[dict[str, tuple[Message, str]]] = {
    "an unknown id": ({"id": "call-9"}, 'tool_response: there is no function call with the id "call-9".'),
    "no id": ({"id": None}, "tool_response: a function_response needs the id of its function call."),
    "an empty id": ({"id": ""}, "tool_response: a function_response needs the id of its function call."),
    "no response": ({"response": None}, "tool_response: the response of a function_response has to be an object."),
    "a text": ({"response": "T12"}, "Invalid value at 'tool_response.function_responses[0].response' (TYPE_MESSAGE)"),
    "a list": ({"response": []}, "Invalid value at 'tool_response.function_responses[0].response' (TYPE_MESSAGE)"),
    "an unknown field": ({"status": "ok"}, 'Invalid JSON payload received. Unknown name "status" at '),
    "an unknown scheduling": ({"scheduling": "SOON"}, "Invalid value at 'tool_response.function_responses[0].sch"),
}


@pytest.mark.parametrize(("changes", "reason"), ANSWERS.values(), ids=ANSWERS)
async def test_an_invalid_answer_ends_the_call(gemini: Gemini, changes: Message, reason: str) -> None:
    caller = await gemini.call_of(MIA)
    call = await called(caller)
    answer = {"id": call["id"], "name": call["name"], "response": {"ok": True}, **changes}
    await caller.send({"toolResponse": {"functionResponses": [answer]}})

    code, said = await caller.hangup()
    assert code == 1007
    assert said.startswith(reason)


async def test_one_invalid_answer_refuses_all_of_a_message(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    call = await called(caller)
    answers: list[Message] = [
        {"id": number, "name": "show_table", "response": {}} for number in (call["id"], "another")
    ]
    await caller.send({"toolResponse": {"functionResponses": answers}})

    assert (await caller.hangup())[0] == 1007


@pytest.mark.parametrize("depth", [100, 900, 960, 980, 990, 5_000])
async def test_a_deeply_nested_answer_is_taken_or_refused(gemini: Gemini, depth: int) -> None:
    caller = await gemini.call_of(MIA)
    call = await called(caller)
    nested = f'{{"id": "{call["id"]}", "response": {{"a": {"[" * depth}{"]" * depth}}}}}'
    await caller.socket.send_str(f'{{"toolResponse": {{"functionResponses": [{nested}]}}}}')
    frame = await caller.socket.receive(120)

    assert frame.data == 1007 or json.loads(frame.data) == {"sessionResumptionUpdate": {"resumable": False}}


async def test_a_second_answer_to_a_call_is_ignored(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    call = await called(caller)
    for table in ("T12", "T13"):
        await caller.answer(call, {"table": table})

    assert (await caller.turn()).text == "Done: T12. Anything else?"


# ---- hang_up ----


@pytest.mark.parametrize("model", MODELS)
async def test_the_agent_hangs_up_after_the_last_audio_of_its_closing_message(gemini: Gemini, model: str) -> None:
    caller = await gemini.call_of(MIA_WHO_HANGS_UP, model)
    await caller.say("Six.")
    turn = await caller.turn()

    assert turn.calls == [{"id": "function-call-1-1", "name": "hang_up", "args": {"reason": "Everything was said."}}]
    assert turn.words == "See you soon."
    after = turn.kinds[turn.kinds.index("toolCall") :]
    assert "modelTurn" not in after
    assert "turnComplete" in after


async def test_nothing_is_said_about_the_answer_of_hang_up_and_it_is_called_once(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA_WHO_HANGS_UP)
    await caller.say("Six.")
    [call] = (await caller.turn()).calls
    await caller.answer(call)
    await caller.say("Are you still there?")
    turn = await caller.turn()

    assert (turn.text, turn.calls) == ("See you soon.", [])


async def test_a_caller_who_goes_on_speaking_cancels_hang_up_until_the_next_goodbye(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA_WHO_HANGS_UP)
    await caller.say("Six.")
    [call] = (await caller.turn()).calls
    await caller.say("One more thing.")
    turn = await caller.turn()

    assert turn.cancelled == [call["id"]]
    assert [(again["id"], again["name"]) for again in turn.calls] == [("function-call-1-2", "hang_up")]


async def test_an_agent_that_may_not_hang_up_does_not(gemini: Gemini) -> None:
    caller = await gemini.call_of(agent(**{**LINES, "questions": []}, tools=[SEND_MENU]))
    await caller.say("Goodbye.")
    turn = await caller.turn()

    assert (turn.text, turn.calls) == ("See you soon.", [])


async def test_an_interrupted_goodbye_does_not_hang_up() -> None:
    sent, state = Sent(held=1), replace(Interview.of(instruction_to_continue(MIA)), asked=3)
    setup = {"model": MODEL, "tools": [{"functionDeclarations": [{"name": "hang_up"}]}]}
    async with asyncio.TaskGroup() as tasks:
        conversation = Conversation(setup, (LiveSession(), state), sent, tasks, NO_FAULTS, {})
        await conversation.receive({"realtimeInput": {"text": "Six."}})
        await sent.has_sounded.wait()
        await conversation.receive({"realtimeInput": {"text": "Wait!"}})

    assert sent.turn.calls == [{"id": "function-call-1-1", "name": "hang_up", "args": {}}]
    assert sent.turn.kinds.index("interrupted") < sent.turn.kinds.index("toolCall")


# ---- Faults, usage and examples ----


async def test_a_call_can_be_cancelled_after_it_was_sent() -> None:
    async with running_gemini(faults=frozenset({"tool_cancelled"})) as gemini:
        caller = await gemini.call_of(MIA)
        call = await called(caller)
        turn = await caller.turn()
        again = await called(caller, "Inside, please.")
        await caller.answer(again, {"table": "T12"})

        assert turn.cancelled == [call["id"]]
        assert turn.text == "Thank you. Anything else?"
        assert (await caller.turn()).text == "Done: T12. Is that all?"


async def test_the_agent_can_claim_what_it_did_not_do() -> None:
    async with running_gemini(faults=frozenset({"claims_tool"})) as gemini:
        caller = await gemini.call_of(MIA)
        await caller.say("Six, outside please.")
        turn = await caller.turn()

        assert turn.calls == []
        assert turn.text == "Done: show table. Anything else?"
        assert (await called(caller, "Inside, please."))["args"]["area"] == "inside"


@pytest.mark.parametrize("fault", ["tool_cancelled", "claims_tool"])
async def test_hang_up_is_not_spoiled(fault: str) -> None:
    async with running_gemini(faults=frozenset({fault})) as gemini:
        caller = await gemini.call_of(MIA_WHO_HANGS_UP)
        await caller.say("Six.")
        turn = await caller.turn()

    assert (len(turn.calls), turn.cancelled) == (1, [])


async def test_calls_and_answers_count_as_text_in_the_usage(gemini: Gemini) -> None:
    caller = await gemini.call_of(MIA)
    await caller.answer(await called(caller), {"table": "T" * 396})
    turn = await caller.turn()
    [usage] = [message["usageMetadata"] for message in turn.messages if "usageMetadata" in message]
    [audio, text] = usage["responseTokensDetails"]

    assert usage["promptTokensDetails"][1] == {"modality": "TEXT", "tokenCount": 11 + 102}
    assert (audio["modality"], text["modality"]) == ("AUDIO", "TEXT")
    assert audio["tokenCount"] == pytest.approx(turn.seconds * 25, abs=1)
    assert 10 < text["tokenCount"] < 40
    assert usage["responseTokenCount"] == audio["tokenCount"] + text["tokenCount"]
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["responseTokenCount"]


async def test_an_example_calls_what_its_script_says(tmp_path: Path) -> None:
    scripted = {"name": "show_table", "arguments": {"guests": 6, "area": "on the roof"}}
    caller_file = {"says": [{"text": "Six, please.", "calls": [scripted]}, "Outside."]}
    (tmp_path / "mia.json").write_text(json.dumps(LINES), encoding="utf-8")
    (tmp_path / "mia.caller.json").write_text(json.dumps(caller_file), encoding="utf-8")
    async with running_gemini(examples=tmp_path) as gemini:
        caller = await gemini.call_of(MIA)
        call = await called(caller, "six please")
        await caller.answer(call)
        turns = [await caller.turn()]
        await caller.say("Outside!")
        turns.append(await caller.turn())
        other = await called(caller, "No, inside.")

    assert call["args"] == scripted["arguments"]
    assert turns[1].calls == []  # the script has no call for this line
    assert other["args"]["area"] == "inside"
