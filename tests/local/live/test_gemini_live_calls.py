"""Whole calls with the Live stand-in: the agent greets, asks and closes, and streams its turns as Gemini does."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from local.speech import Speech, Voice, silence
from local.stand_ins.gemini_live import LiveTimes
from local.stand_ins.gemini_live_access import LiveSession
from local.stand_ins.gemini_live_conversation import Conversation
from local.stand_ins.gemini_live_faults import NO_FAULTS
from tests.local.live.callers import RATE_IN, RATE_OUT, Caller, SdkCaller, Sent, spoken
from tests.local.live.conftest import NORA, Gemini, running_gemini
from tests.support.tls import LoopbackTls

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),  # google-genai's
]


@pytest.fixture(params=["a bare WebSocket", "google-genai"])
async def caller(request: pytest.FixtureRequest, tls: LoopbackTls) -> AsyncIterator[Caller]:
    async with running_gemini(tls=tls) as gemini:
        yield await gemini.sdk_call() if request.param == "google-genai" else await gemini.call()


async def test_the_agent_greets_asks_its_questions_in_order_and_closes(caller: Caller) -> None:
    await caller.type("The caller is on the line.")
    said = [await caller.turn()]
    for answer in ("My name is Erik Dahl.", "Yes, rather."):
        await caller.say(answer)
        said.append(await caller.turn())

    assert [turn.text for turn in said] == [
        "Fjord Dental, this is Nora. What is your name?",
        "Thank you. Are you in pain?",
        "Get well soon.",
    ]
    assert [turn.heard for turn in said] == ["", "My name is Erik Dahl.", "Yes, rather."]
    assert [turn.words for turn in said] == [turn.text for turn in said]


async def test_googles_sdk_can_send_a_whole_turn_as_text(tls: LoopbackTls) -> None:
    async with running_gemini(tls=tls) as gemini:
        caller = await gemini.sdk_call()
        assert isinstance(caller, SdkCaller)
        await caller.send_turn("Hello?")

        assert (await caller.turn()).text == "Fjord Dental, this is Nora. What is your name?"


async def test_the_agent_does_not_speak_first(gemini: Gemini) -> None:
    caller = await gemini.call()
    await caller.sound(silence(RATE_IN, 5))
    await caller.type("The caller is on the line.")
    usage = [message["usageMetadata"] for message in (await caller.turn()).messages if "usageMetadata" in message]

    assert [use["promptTokensDetails"][0]["tokenCount"] for use in usage] == [125]  # all audio arrived before the turn


async def test_a_turn_is_audio_and_transcription_then_generation_complete_then_turn_complete(gemini: Gemini) -> None:
    caller = await gemini.call()
    await caller.type("The caller is on the line.")
    turn = await caller.until("turnComplete")

    first, *middle, last_but_one, last, usage = turn.kinds
    assert first == "sessionResumptionUpdate"
    assert set(middle) == {"modelTurn", "outputTranscription"}
    assert (last_but_one, last, usage) == ("generationComplete", "turnComplete", "usageMetadata")


async def test_transcription_fragments_are_ahead_of_the_audio_or_behind_it(gemini: Gemini) -> None:
    caller = await gemini.call()
    await caller.type("The caller is on the line.")
    turn = await caller.turn()
    first = turn.kinds.index("outputTranscription")

    assert len(turn.fragments) > 2
    assert turn.kinds[first - 1] == "modelTurn"
    assert turn.kinds[:first].count("modelTurn") == 1
    assert len(turn.fragments[0].split()) == 2  # after 40 ms of audio


async def test_in_every_second_turn_the_last_words_are_transcribed_after_its_end(gemini: Gemini) -> None:
    caller = await gemini.call()
    kinds = []
    for text in ("The caller is on the line.", "Erik Dahl."):
        await caller.type(text)
        turn = await caller.turn()
        kinds.append(turn.kinds)

    assert "outputTranscription" not in kinds[0][kinds[0].index("turnComplete") :]
    assert kinds[1][-4:] == ["turnComplete", "usageMetadata", "outputTranscription", "sessionResumptionUpdate"]
    assert turn.fragments[-1] == "pain?"


async def test_an_utterance_is_transcribed_in_one_message_after_the_answer_has_begun(gemini: Gemini) -> None:
    caller = await gemini.call()
    await caller.type("The caller is on the line.")
    await caller.turn()
    await caller.say("My name is Erik Dahl.")
    turn = await caller.turn()

    assert turn.content("inputTranscription") == [{"text": "My name is Erik Dahl."}]
    assert turn.kinds.index("modelTurn") < turn.kinds.index("inputTranscription") < turn.kinds.index("turnComplete")


async def test_the_audio_arrives_completely_in_pieces_of_at_most_forty_milliseconds(gemini: Gemini) -> None:
    caller = await gemini.call()
    await caller.type("The caller is on the line.")
    turn = await caller.turn()
    words = list(Speech(RATE_OUT, Voice()).say(turn.text))

    assert len(turn.pcm) == pytest.approx(sum(len(word.pcm) for word in words), rel=0.05)
    assert len(turn.content("modelTurn")) >= turn.seconds / 0.04


async def test_usage_is_counted_at_25_tokens_a_second_of_audio(gemini: Gemini) -> None:
    caller = await gemini.call()
    await caller.sound(silence(RATE_IN, 2))
    await caller.type("Hello there!")
    turn = await caller.turn()
    [usage] = [message["usageMetadata"] for message in turn.messages if "usageMetadata" in message]

    assert usage["promptTokensDetails"] == [
        {"modality": "AUDIO", "tokenCount": 50},
        {"modality": "TEXT", "tokenCount": 3},
    ]
    assert usage["responseTokenCount"] == pytest.approx(turn.seconds * 25, abs=1)
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["responseTokenCount"]


async def test_nothing_is_transcribed_unless_the_setup_asks_for_it(gemini: Gemini) -> None:
    token = await gemini.token(bidiGenerateContentSetup={"model": "models/gemini-live"}, fieldMask="model")
    caller = await gemini.call(token)
    await caller.say("Hello?")
    turn = await caller.until("turnComplete")

    assert turn.pcm
    assert turn.heard == turn.text == ""


# ---- Begin and end of the caller's turn ----


async def test_a_pause_between_two_sentences_does_not_end_a_turn(gemini: Gemini) -> None:
    caller = await gemini.call()
    await caller.sound(spoken("One moment.", rest=0.3) + spoken("It is Erik."))

    assert (await caller.turn()).heard == "One moment.It is Erik."


async def test_the_setup_can_shorten_the_silence_that_ends_a_turn(gemini: Gemini) -> None:
    token = await gemini.token(unlocked="realtimeInputConfig")
    caller = await gemini.call(token, realtimeInputConfig={"automaticActivityDetection": {"silenceDurationMs": 200}})
    await caller.sound(spoken("Hello?", rest=0.3))

    assert (await caller.turn()).heard == "Hello?"


async def test_the_end_of_the_audio_stream_ends_a_turn_immediately(gemini: Gemini) -> None:
    caller = await gemini.call()
    await caller.sound(spoken("Hello?", rest=0))
    await caller.send({"realtimeInput": {"audioStreamEnd": True}})

    assert (await caller.turn()).heard == "Hello?"


async def test_initial_history_is_not_answered(gemini: Gemini) -> None:
    token = await gemini.token(unlocked="historyConfig")
    caller = await gemini.call(token, historyConfig={"initialHistoryInClientContent": True})
    history = {"turns": [{"role": "user", "parts": [{"text": "Hello?"}]}], "turnComplete": True}
    await caller.send({"clientContent": history})
    await caller.send({"clientContent": {"turns": history["turns"]}})
    await caller.type("Hello!")
    await caller.turn()
    await caller.type("Erik.")

    assert (await caller.turn()).text == "Thank you. Are you in pain?"


# ---- Interruptions ----


@pytest.fixture
async def unhurried() -> AsyncIterator[Gemini]:
    async with running_gemini(LiveTimes(pace=4)) as gemini:
        yield gemini


async def test_the_callers_speech_interrupts_the_agent_in_the_middle_of_a_word(unhurried: Gemini) -> None:
    caller = await unhurried.call()
    await caller.type("The caller is on the line.")
    await caller.until("modelTurn")
    await caller.sound(spoken("Excuse me!"))
    cut = await caller.until("turnComplete")

    assert cut.kinds[-3:] == ["interrupted", "turnComplete", "usageMetadata"]
    assert "generationComplete" not in cut.kinds
    assert cut.seconds < 2 < len(spoken("Fjord Dental, this is Nora. What is your name?")) / 2 / RATE_IN
    await caller.until("sessionResumptionUpdate")
    assert (await caller.turn()).heard == "Excuse me!"


async def test_a_text_interrupts_the_agent(unhurried: Gemini) -> None:
    caller = await unhurried.call()
    await caller.type("The caller is on the line.")
    await caller.until("modelTurn")
    await caller.type("Stop!")

    assert "interrupted" in (await caller.turn()).kinds


async def test_a_second_text_before_the_agents_first_sound_is_no_interruption() -> None:
    setup = {"systemInstruction": {"parts": [{"text": NORA}]}, "outputAudioTranscription": {}}
    sent = Sent()
    async with asyncio.TaskGroup() as tasks:
        conversation = Conversation(setup, (LiveSession(), None), sent, tasks, NO_FAULTS, {})
        for _ in range(2):
            await conversation.receive({"realtimeInput": {"text": "The caller is on the line."}})
        await sent.is_over.wait()

    assert "interrupted" not in sent.turn.kinds
    assert sent.turn.text == "Fjord Dental, this is Nora. What is your name?"


async def test_an_interrupted_question_is_asked_again_if_no_word_was_said(unhurried: Gemini) -> None:
    caller = await unhurried.call()
    await caller.type("The caller is on the line.")
    await caller.until("modelTurn")
    await caller.type("Yes?")
    await caller.turn()

    assert (await caller.turn()).text.endswith("What is your name?")


async def test_an_interrupted_question_counts_as_asked_if_a_word_was_said(unhurried: Gemini) -> None:
    caller = await unhurried.call()
    await caller.type("The caller is on the line.")
    turn = await caller.until("modelTurn")
    while not turn.words.endswith("What is "):
        turn.messages.append(await caller.receive())
    await caller.type("Erik Dahl.")
    await caller.turn()

    assert (await caller.turn()).text.endswith("Are you in pain?")
