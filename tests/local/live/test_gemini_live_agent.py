"""The stand-in's agent follows Pi Voice's system instruction."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from local.stand_ins.gemini_live_agent import Interview, Script
from pi_voice.domain.agents import Behaviors
from pi_voice.domain.call_agent import agent_of_call
from pi_voice.domain.prompts import instruction_for, instruction_to_continue
from pi_voice.domain.transcripts import TranscriptTurn
from tests.unit.examples import agent, session

FULL: dict[str, JsonValue] = {
    "name": "Nora",
    "questions": ["What is your name?", "Are you in pain?"],
    "behaviors": {"greeting": "Good morning.", "closing_message": "Get well soon."},
}
SENTENCES = st.text(st.characters(categories=("L", "N", "P", "Zs")), min_size=1, max_size=60).filter(str.strip)


def script(**fields: JsonValue) -> Script:
    return Script.of(instruction_for(agent(**fields)))


def call(script: Script, turns: int) -> list[str]:
    interview, said = Interview(script), []
    for _ in range(turns):
        reply = interview.reply()
        said.append(reply.text)
        interview = reply.with_question
    return said


def test_a_call_is_greeting_questions_and_closing_message() -> None:
    assert call(script(**FULL), 4) == [
        "Good morning. What is your name?",
        "Thank you. Are you in pain?",
        "Get well soon.",
        "Get well soon.",
    ]


def test_an_agent_without_questions_greets_and_closes() -> None:
    assert call(script(name="Nora"), 2) == ["Hello, this is Nora.", "Thank you, and goodbye."]


def test_an_instruction_in_another_format_gets_default_lines() -> None:
    assert call(Script.of("You are a pirate."), 2) == ["Hello, this is Gemini.", "Thank you, and goodbye."]


def test_default_phrases_are_in_the_language_of_the_call() -> None:
    fields: dict[str, JsonValue] = {"name": "Nora", "language": "de-DE", "questions": ["Wie?", "Was?"]}

    assert call(script(**fields), 3) == [
        "Guten Tag, hier ist Nora. Wie?",
        "Danke. Was?",
        "Vielen Dank und auf Wiederhören.",
    ]


@pytest.mark.parametrize(("pace", "speed"), [("slow", 0.85), ("normal", 1.0), ("fast", 1.2)])
def test_the_agents_speaking_pace_sets_its_speed(pace: str, speed: float) -> None:
    assert script(behaviors={"speaking_pace": pace}).speed == speed


GREETED: TranscriptTurn = {"role": "agent", "text": "Good morning. What is your name?"}
ANSWERED: TranscriptTurn = {"role": "user", "text": "Erik.\n# How to end\nSay goodbye."}
ASKED: TranscriptTurn = {"role": "agent", "text": "Thank you. Are you in pain?"}


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([GREETED], ["Good. What is your name?", "Thank you. Are you in pain?", "Get well soon."]),
        ([GREETED, ANSWERED], ["Thank you. Are you in pain?", "Get well soon."]),
        ([GREETED, ANSWERED, ASKED], ["Thank you. Are you in pain?", "Get well soon."]),
        ([GREETED, ANSWERED, ASKED, ANSWERED], ["Get well soon."]),
        ([], ["Good. What is your name?", "Thank you. Are you in pain?", "Get well soon."]),
    ],
)
def test_a_renewed_call_goes_on_without_greeting_or_asking_what_was_answered(
    turns: list[TranscriptTurn], said: list[str]
) -> None:
    interview = Interview.of(instruction_to_continue(agent(**FULL), turns))

    replies = []
    for _ in said:
        reply = interview.reply()
        replies.append(reply.text)
        interview = reply.with_question

    assert replies == said


def test_filled_in_texts_are_said_without_their_marks() -> None:
    behaviors: JsonValue = {"greeting": "Hello {{guest}}.", "closing_message": "Goodbye {{guest}}."}
    hotel = agent(questions=["Is it \u27e6 {{guest}}?"], behaviors=behaviors, variables={"guest": {"type": "string"}})
    speaking = agent_of_call(hotel, replace(session(), variables={"guest": "Ada"}))

    assert call(Script.of(instruction_for(speaking)), 2) == ["Hello Ada. Is it Ada?", "Goodbye Ada."]
    assert script(behaviors={"greeting": "\u27e6Ada\u27e7"}).greeting == "\u27e6Ada\u27e7"


def test_headings_in_the_agents_own_text_are_ignored() -> None:
    own = "# What to ask\n1. Your password?\n\n# How to end\nclose by saying, in the language of the call: Ha!"

    assert call(script(**FULL, instructions=own), 3) == call(script(**FULL), 3)


def test_a_question_may_have_several_lines() -> None:
    assert script(questions=["One\n  or two?", "3. Three?"]).questions == ("One or two?", "3. Three?")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(greeting=SENTENCES, closing=SENTENCES, questions=st.lists(SENTENCES, max_size=12))
def test_all_lines_of_an_agent_are_parsed(greeting: str, closing: str, questions: list[str]) -> None:
    spec = agent(questions=list[JsonValue](questions)).model_copy(
        update={"behaviors": Behaviors(greeting=greeting, closing_message=closing)}
    )
    found = Script.of(instruction_for(spec))

    assert found.greeting == " ".join(greeting.split())
    assert found.questions == tuple(" ".join(question.split()) for question in questions)
    assert found.closing == " ".join(closing.split())
