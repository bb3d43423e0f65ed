"""Speech whose words cannot be read, as from a microphone, counts as the caller's line of a script."""

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from local.stand_ins.example_scripts import EXAMPLES, example_scripts, plain
from local.stand_ins.gemini_live import LiveTimes
from local.stand_ins.gemini_live_agent import Interview
from local.stand_ins.gemini_live_caller import line_of_caller
from pi_voice.domain.prompts import instruction_for, instruction_to_continue
from tests.local.live.callers import BareCaller, audio_message, spoken, unmarked
from tests.local.live.conftest import NORAS_AGENT, Gemini, running_gemini
from tests.local.live.sounds import pcm_of, silent, voice
from tests.unit.examples import agent

pytestmark = pytest.mark.anyio

SPEECH: Final = pcm_of([*voice(1.2), *silent(0.8)])
WITHOUT_WORDS: Final = "[1.2 s of speech]"


def example(name: str) -> Any:
    return json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))


def lines_of(name: str) -> list[str]:
    return [line if isinstance(line, str) else line["text"] for line in example(f"{name}.caller")["says"]]


async def heard(caller: BareCaller, pcm: bytes = SPEECH) -> str:
    """Speak, and return what was transcribed."""
    await caller.sound(pcm)
    return (await caller.turn()).heard


# ---- Whole calls ----


@pytest.mark.parametrize("name", ["intake", "support", "survey"])
async def test_a_call_by_voice_with_an_examples_agent_has_the_lines_of_its_caller(gemini: Gemini, name: str) -> None:
    caller = await gemini.call_of(agent(**example(name)))

    assert [await heard(caller) for _ in lines_of(name)] == lines_of(name)


async def test_the_agent_calls_the_functions_of_a_line_closes_and_hangs_up(gemini: Gemini) -> None:
    caller = await gemini.call_of(agent(**{**example("booking"), "variables": None}))
    script, said, called = example_scripts()["Mia"].calls, [], []
    for line in lines_of("booking"):
        await caller.sound(SPEECH)
        turn = await caller.until("toolCall" if script[plain(line)] else "turnComplete")
        for call in turn.calls:
            await caller.answer(call)
        called += [(call["name"], call["args"]) for call in turn.calls]
        said.append(turn.heard)
        if "turnComplete" not in turn.kinds:
            turn = await caller.until("turnComplete")
            called += [(call["name"], call["args"]) for call in turn.calls]

    assert said == lines_of("booking")
    assert called == [
        *(call for line in lines_of("booking") for call in script[plain(line)]),
        ("hang_up", {"reason": "Everything was said."}),
    ]
    assert [name for name, _ in called] == ["find_slots", "show_table", "book_table", "hang_up"]
    assert turn.words.endswith("Thank you, see you soon!")


async def test_a_call_by_voice_with_another_agent_has_answers_that_fit_its_questions(gemini: Gemini) -> None:
    caller = await gemini.call_of(NORAS_AGENT)

    assert [await heard(caller) for _ in range(2)] == ["My name is Robin Miller.", "Yes, please."]


async def test_speech_after_the_closing_message_is_transcribed_by_its_duration(gemini: Gemini) -> None:
    caller = await gemini.call_of(agent(name="Nora", questions=["Are you in pain?"]))

    assert [await heard(caller) for _ in range(2)] == ["Yes, please.", WITHOUT_WORDS]


async def test_typed_text_is_taken_as_it_is_and_answers_its_question(gemini: Gemini) -> None:
    caller = await gemini.call_of(NORAS_AGENT)
    await caller.type("Erik Dahl.")
    typed = await caller.turn()

    assert (typed.heard, typed.text) == ("", "Thank you. Are you in pain?")
    assert await heard(caller) == "Yes, please."


async def test_in_a_call_whose_audio_has_words_speech_without_them_gets_no_line(gemini: Gemini) -> None:
    caller = await gemini.call_of(NORAS_AGENT)

    assert await heard(caller, spoken("Erik Dahl.")) == "Erik Dahl."
    assert await heard(caller) == WITHOUT_WORDS


async def test_speech_that_lost_its_words_gets_a_line(gemini: Gemini) -> None:
    caller = await gemini.call_of(NORAS_AGENT)

    assert await heard(caller, unmarked(spoken("Something else, you see."))) == "My name is Robin Miller."


async def test_a_resumed_call_goes_on_with_the_next_line(gemini: Gemini) -> None:
    caller = await gemini.call_of(NORAS_AGENT)
    await caller.sound(SPEECH)
    handle = (await caller.turn()).handle
    await caller.socket.close()
    resumed = await gemini.resume(caller.token, handle)

    assert await heard(resumed) == "Yes, please."


@pytest.fixture
async def unhurried() -> AsyncIterator[Gemini]:
    async with running_gemini(LiveTimes(pace=4)) as gemini:
        yield gemini


async def test_a_voice_without_words_interrupts_the_agent(unhurried: Gemini) -> None:
    caller = await unhurried.call()
    await caller.type("The caller is on the line.")
    await caller.until("modelTurn")
    await caller.sound(SPEECH)

    assert "interrupted" in (await caller.turn()).kinds
    assert (await caller.turn()).words.endswith("What is your name?")


async def test_a_long_message_of_audio_is_heard_as_a_whole(gemini: Gemini) -> None:
    caller = await gemini.call_of(NORAS_AGENT)
    await caller.send(audio_message(SPEECH))

    assert (await caller.turn()).heard == "My name is Robin Miller."


# ---- The line for a question ----


def interview(language: str = "en-US", **fields: Any) -> Interview:
    """Return a call in which the agent has asked its first question."""
    spec = agent(**{"name": "Nora", "language": language, **fields})
    return Interview.of(instruction_for(spec)).reply().with_question


def answer_to(question: str, language: str = "en-US") -> str:
    return line_of_caller(interview(language, questions=[question]), {})


@pytest.mark.parametrize(
    ("language", "question", "answer"),
    [
        ("en-GB", "May I have your full name?", "My name is Robin Miller."),
        ("en-US", "For how many people?", "Three."),
        ("en-US", "On which day and at what time?", "Tomorrow at 10 a.m., please."),
        ("en-US", "Which phone number can we reach you at?", "You can reach me at 555 010 0142."),
        ("en-US", "Would you like to sit inside?", "Yes, please."),
        ("en-US", "What has happened?", "Nothing special, the usual."),
        ("nl-NL", "Wat is er gebeurd?", "Nothing special, the usual."),
        ("de-DE", "Wie ist Ihr Name?", "Mein Name ist Robin Müller."),
        ("de-AT", "Würden Sie uns weiterempfehlen?", "Ja, gern."),
        ("es-ES", "¿Cuántas personas son?", "Tres."),
        ("es-MX", "¿Tiene dolor?", "Sí, por favor."),
        ("fr-FR", "Quel jour vous convient ?", "Demain à 10 heures."),
        ("fr-FR", "Est-ce urgent ?", "Oui, s'il vous plaît."),
    ],
)
def test_the_answer_fits_the_kind_and_the_language_of_the_question(language: str, question: str, answer: str) -> None:
    assert answer_to(question, language) == answer


def test_the_examples_line_comes_first_and_is_found_by_the_question() -> None:
    answers = example_scripts()["Mia"].answers
    asked = interview(questions=["For how many people?"])

    assert line_of_caller(asked, answers) == "Five. No, wait, six of us."


def test_a_question_is_answered_once() -> None:
    asked = interview(questions=["For how many people?", "Inside?"])
    answered = asked.hear(line_of_caller(asked, {}))

    assert line_of_caller(answered, {}) == ""
    assert line_of_caller(answered.reply().without_question, {}) == ""
    assert line_of_caller(answered.reply().with_question, {}) == "Nothing special, the usual."


def test_before_the_first_question_there_is_no_line() -> None:
    begun = Interview.of(instruction_for(agent(name="Nora", questions=["Inside?"])))

    assert line_of_caller(begun, {}) == ""
    assert line_of_caller(begun.reply().without_question, {}) == ""


def test_an_agent_without_questions_hears_one_line() -> None:
    greeted = interview(questions=[])

    assert line_of_caller(greeted, {}) == "Nothing special, the usual."
    assert line_of_caller(greeted.hear("Nothing."), {}) == ""


def test_a_renewed_call_goes_on_with_the_line_for_the_open_question() -> None:
    spec = agent(name="Nora", questions=["What is your name?", "Are you in pain?"])
    renewed = Interview.of(
        instruction_to_continue(
            spec,
            [
                {"role": "agent", "text": "Hello. What is your name?"},
                {"role": "user", "text": "Erik."},
                {"role": "agent", "text": "Thank you. Are you in pain?"},
            ],
        )
    )

    assert line_of_caller(renewed, {}) == ""  # the agent repeats its question first
    assert line_of_caller(renewed.reply().with_question, {}) == "Yes, please."
