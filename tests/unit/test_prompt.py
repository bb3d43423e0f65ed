from pathlib import Path
from typing import Final

import pytest
from pydantic import JsonValue

from pi_voice.prompt import instruction_for
from tests.unit.examples import agent

GOLDEN: Final = Path(__file__).parent / "golden"

FULL: dict[str, JsonValue] = {
    "name": "Nora of Fjord Dental",
    "instructions": "You take calls for a dental practice in Bergen.\nYou cannot give medical advice.",
    "language": "nb-NO",
    "purpose": "Book an appointment.",
    "questions": ["What is your name?", "Are you in pain?", "Which day suits you?"],
    "behaviors": {
        "max_duration_seconds": 600,
        "speaking_pace": "slow",
        "response_length": "brief",
        "greeting": "Fjord Dental, this is Nora.",
        "closing_message": "We look forward to seeing you.",
    },
    "output_schema": {"name": "string", "pain": "boolean"},
    "voice": {"name": "Kore", "language_code": "nb-NO"},
    "metadata": {"team": "front desk"},
}

AGENTS: dict[str, dict[str, JsonValue]] = {
    "minimal": {},
    "full": FULL,
    "another_language": {"language": "pt-BR"},
    "the_voice_s_language": {"language": "fr-FR", "voice": {"language_code": "fr-CA"}},
    "slow_and_brief": {"behaviors": {"speaking_pace": "slow", "response_length": "brief"}},
    "fast_and_detailed": {"behaviors": {"speaking_pace": "fast", "response_length": "detailed"}},
    "questions_without_a_closing_message": {"questions": ["Which city?"]},
    "a_closing_message_without_questions": {"behaviors": {"closing_message": "Bye for now."}},
}


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_is_told_exactly_this(name: str) -> None:
    expected = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")

    assert instruction_for(agent(**AGENTS[name])) + "\n" == expected


def test_every_text_that_is_kept_is_compared() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(AGENTS)


def test_the_same_agent_is_always_told_the_same() -> None:
    assert instruction_for(agent(**FULL)) == instruction_for(agent(**FULL))


def test_what_the_agent_need_not_know_changes_nothing_that_it_is_told() -> None:
    told = instruction_for(agent(**FULL))

    others: dict[str, JsonValue] = {
        "output_schema": None,
        "output_schema_strict": {"type": "object"},
        "metadata": {},
        "voice": {"name": "Puck", "language_code": "nb-NO"},
    }
    assert instruction_for(agent(version=9, **{**FULL, **others})) == told


def test_nobody_s_words_are_taken_for_a_pattern() -> None:
    told = instruction_for(agent(instructions="Say {name} and %s.", questions=["{0}?"]))

    assert "Say {name} and %s." in told
    assert "1. {0}?" in told
