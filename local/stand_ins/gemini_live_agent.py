"""The Live stand-in's agent: greet, ask the questions in order, close.

It parses Pi Voice's system instruction for its lines, and does not interpret the caller's words: anything that the
caller says counts as the answer to the last question. In a call that has begun already, it goes on after the last
question that was answered. News, such as the answer of a function, comes before the next question.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Final, Self

from local.stand_ins.answer_parsing import Call, Exchange, parse_call

_SECTION: Final = re.compile(
    r"^# (Who you are|Purpose of the call|How to speak|How to begin|How to go on|What to ask|What you can do|"
    r"How to end|What was said so far|What was done so far|Filled-in texts)$\n?",
    re.MULTILINE,
)
_DONE_CALL: Final = re.compile(r'^\{"tool_call": .+\}$', re.MULTILINE)
_TURN: Final = re.compile(r'^\{"turn": .+\}$', re.MULTILINE)
_NAME: Final = re.compile(r"^You are (.+), on a live voice call\.$", re.MULTILINE)
_LANGUAGE: Final = re.compile(r"^- Speak (\S+) \(a BCP 47 language tag\)", re.MULTILINE)
_SAYING: Final = re.compile(r"by saying, in the language of the call: (.+?)(?:\n\n|\Z)", re.DOTALL)
_MARKS: Final = str.maketrans("", "", "\u27e6\u27e7")
"""Removes the marks around filled-in texts, which are not said if the instruction explains them."""

_NOTHING_SAID: Final = parse_call("")
_SPEEDS: Final = {"- Speak slowly": 0.85, "- Speak briskly": 1.2}


@dataclass(frozen=True, slots=True)
class _Phrases:
    hello: str
    thanks: tuple[str, ...]
    goodbye: str
    done: str
    failed: str


_ENGLISH: Final = _Phrases(
    "Hello, this is {}.",
    ("Thank you.", "All right.", "Good."),
    "Thank you, and goodbye.",
    "Done",
    "That did not work",
)
_PHRASES: Final = {
    "de": _Phrases(
        "Guten Tag, hier ist {}.",
        ("Danke.", "In Ordnung.", "Gut."),
        "Vielen Dank und auf Wiederhören.",
        "Erledigt",
        "Das hat nicht geklappt",
    ),
    "en": _ENGLISH,
    "es": _Phrases(
        "Hola, soy {}.",
        ("Gracias.", "De acuerdo.", "Bien."),
        "Muchas gracias, hasta luego.",
        "Hecho",
        "No ha funcionado",
    ),
    "fr": _Phrases(
        "Bonjour, ici {}.",
        ("Merci.", "D'accord.", "Bien."),
        "Merci beaucoup, au revoir.",
        "C'est fait",
        "Cela n'a pas marché",
    ),
}


@dataclass(frozen=True, slots=True)
class Script:
    """An agent's name, lines, language and speed (1 is natural)."""

    name: str
    greeting: str
    questions: tuple[str, ...]
    thanks: tuple[str, ...]
    closing: str
    done: str
    failed: str
    language: str
    speed: float

    @classmethod
    def of(cls, instruction: str) -> Self:
        """Parse a system instruction, with defaults for the parts that it lacks."""
        sections = _sections(instruction)
        if "Filled-in texts" in sections:
            sections = {heading: text.translate(_MARKS) for heading, text in sections.items()}
        manner = sections.get("How to speak", "")
        language = _found(_LANGUAGE, manner) or "en-US"
        phrases = _PHRASES.get(language.partition("-")[0].lower(), _ENGLISH)
        name = _found(_NAME, sections.get("Who you are", "")) or "Gemini"
        return cls(
            name=name,
            greeting=_found(_SAYING, sections.get("How to begin", "")) or phrases.hello.format(name),
            questions=tuple(_numbered(sections.get("What to ask", ""))),
            thanks=phrases.thanks,
            closing=_found(_SAYING, sections.get("How to end", "")) or phrases.goodbye,
            done=phrases.done,
            failed=phrases.failed,
            language=language,
            speed=next((speed for words, speed in _SPEEDS.items() if words in manner), 1.0),
        )


@dataclass(frozen=True, slots=True)
class Interview:
    """The state of a call: what was said, whether the agent has greeted, and how many questions it has asked.

    `done` are the names and arguments of the function calls that the instruction lists as done.
    """

    script: Script
    has_greeted: bool = False
    asked: int = 0
    said: Call = _NOTHING_SAID
    done: tuple[tuple[str, dict[str, Any]], ...] = ()

    @classmethod
    def of(cls, instruction: str) -> Self:
        """Begin a call, or go on with one that has begun already."""
        script, sections = Script.of(instruction), _sections(instruction)
        history = sections.get("What was said so far", "")
        turns = [json.loads(line) for line in _TURN.findall(history)]
        said = " ".join(" ".join(turn["text"] for turn in turns if turn["role"] == "agent").split())
        asked = len(list(takewhile(lambda question: question in said, script.questions)))
        last = turns[-1] if turns else {"role": "user", "text": ""}
        waits = asked > 0 and last["role"] == "agent" and script.questions[asked - 1] in " ".join(last["text"].split())
        calls = [json.loads(line) for line in _DONE_CALL.findall(sections.get("What was done so far", ""))]
        return cls(
            script,
            has_greeted="How to go on" in sections,
            asked=asked - waits,
            said=replace(parse_call(history), day=parse_call(instruction).day),
            done=tuple((call["name"], call["arguments"]) for call in calls),
        )

    @property
    def question(self) -> str:
        """The question that was asked last; empty if none was."""
        return self.script.questions[self.asked - 1] if self.asked else ""

    @property
    def waits_for_answer(self) -> bool:
        """Whether the caller has not answered the last question; without questions, whether they have said nothing."""
        is_asking = self.asked > 0 or not self.script.questions
        return is_asking and not any(exchange.question.endswith(self.question) for exchange in self.said.exchanges)

    def hear(self, words: str) -> Self:
        """Return the state after words of the caller, which answer the last question."""
        exchanges = (*self.said.exchanges, Exchange(self.question, words))
        return replace(self, said=replace(self.said, exchanges=exchanges))

    def reply(self, news: Sequence[str] = ()) -> "Reply":
        """Return the agent's reply to the caller's turn, with news instead of thanks."""
        script = self.script
        question = " ".join(script.questions[self.asked : self.asked + 1])
        if not self.has_greeted:
            before = " ".join((script.greeting, *news))
        elif question:
            before = " ".join(news) or script.thanks[(self.asked - 1) % len(script.thanks)]
        else:
            before = " ".join((*news, script.closing))
        here = replace(self, has_greeted=True)
        after = replace(here, asked=self.asked + bool(question))
        return Reply(f"{before} {question}".strip(), len(before), here, after, closes=self.has_greeted and not question)

    def report(self, news: Sequence[str]) -> "Reply":
        """Return a turn of the agent that has only news."""
        text = " ".join(news)
        return Reply(text, len(text), self, self)


@dataclass(frozen=True, slots=True)
class Reply:
    """One turn of the agent, and the states of the call after it; `closes` says whether it is the closing message."""

    text: str
    question_at: int
    without_question: Interview
    with_question: Interview
    closes: bool = False

    def cut_after(self, said: str) -> Interview:
        """Return the state after an interruption: a question of which no word was said is asked again."""
        return self.with_question if len(said) > self.question_at + 1 else self.without_question


def _sections(instruction: str) -> dict[str, str]:
    """Split an instruction at its headings; the last of a name wins, because the agent's own text comes first."""
    _, *parts = _SECTION.split(instruction)
    return dict(zip(parts[::2], (text.strip() for text in parts[1::2]), strict=True))


def _numbered(text: str) -> list[str]:
    """Return the items of a numbered list; other lines continue the previous item."""
    items: list[str] = []
    for line in text.splitlines():
        number, _, item = line.partition(". ")
        if number == str(len(items) + 1):
            items.append(item)
        elif items:
            items[-1] = f"{items[-1]} {line}"
    return [" ".join(item.split()) for item in items]


def _found(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return " ".join(match[1].split()) if match else None
