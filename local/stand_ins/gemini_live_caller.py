"""The caller's lines: what is transcribed for speech whose words cannot be read, as from a microphone.

The stand-in recognizes no speech. So that a call by voice has an end and results, the first utterance after a question
counts as the answer of a script: of the example with this agent's name, or one that fits many questions.
See docs/adr/0038.
"""

import re
from collections.abc import Mapping
from typing import Final

from local.stand_ins.example_scripts import plain
from local.stand_ins.gemini_live_agent import Interview

_Answers = tuple[tuple[re.Pattern[str], str], ...]
"""Patterns of questions, and the answer to each; the first that matches counts."""


def _answers(*pairs: tuple[str, str]) -> _Answers:
    return tuple((re.compile(pattern, re.IGNORECASE), answer) for pattern, answer in pairs)


_ENGLISH: Final = _answers(
    (r"\bphone\b|\bnumber can we\b", "You can reach me at 555 010 0142."),
    (r"\be-?mail\b", "It is robin@example.com."),
    (r"\bname\b|\bwho\b", "My name is Robin Miller."),
    (r"\bwhen\b|\b(what|which) (day|date|time)\b", "Tomorrow at 10 a.m., please."),
    (r"\bhow (many|much|old|long|strong|satisfied)\b|\bnumber\b|\bscale\b|\bfrom \d", "Three."),
    (r"^\W*(is|are|was|were|do|does|did|can|could|will|would|should|shall|may|have|has)\b", "Yes, please."),
    ("", "Nothing special, the usual."),
)
_BY_LANGUAGE: Final = {
    "de": _answers(
        (r"\btelefon|\bhandy", "Unter 030 23125 014."),
        (r"\be-?mail", "robin@example.com."),
        (r"\bname\b|\bheißen\b|\bwer\b", "Mein Name ist Robin Müller."),
        (r"\bwann\b|\bwelche[nmrs]? (tag|datum|uhrzeit)\b|\buhr\b", "Morgen um 10 Uhr."),
        (r"\bwie ?(viele?|alt|lange|stark|zufrieden)\b|\bnummer\b|\bskala\b|\bvon \d", "Drei."),
        (
            r"^\W*(ist|sind|war|waren|hat|haben|kann|können|wird|werden|würden?|möchten|wollen|soll|dürfen|brauchen)\b",
            "Ja, gern.",
        ),
        ("", "Nichts Besonderes, wie immer."),
    ),
    "es": _answers(
        (r"\bteléfono\b", "Es el 910 000 142."),
        (r"\bcorreo\b|\be-?mail\b", "Es robin@example.com."),
        (r"\bnombre\b|\bllama\b|\bquién\b", "Me llamo Robin Molina."),
        (r"\bcuándo\b|\bqué (día|fecha|hora)\b", "Mañana a las 10."),
        (r"\bcuánt[oa]s?\b|\bnúmero\b|\bescala\b", "Tres."),
        (r"^\W*(es|está|son|tiene|tienen|puede|quiere|desea|necesita|hay|le|les)\b", "Sí, por favor."),
        ("", "Nada especial, lo de siempre."),
    ),
    "fr": _answers(
        (r"\btéléphone\b", "C'est le 01 99 00 01 42."),
        (r"\be-?mail\b|\bcourriel\b", "C'est robin@example.com."),
        (r"\bnom\b|\bappelez\b|\bqui\b", "Je m'appelle Robin Martin."),
        (r"\bquand\b|\bquel(le)? (jour|date|heure)\b", "Demain à 10 heures."),
        (r"\bcombien\b|\bnuméro\b|\béchelle\b", "Trois."),
        (r"^\W*(est|êtes|avez|voulez|souhaitez|pouvez|désirez|y a)\b", "Oui, s'il vous plaît."),
        ("", "Rien de particulier, comme d'habitude."),
    ),
}


def line_of_caller(interview: Interview, answers: Mapping[str, str]) -> str:
    """Return what the caller is taken to have said: by the example's `answers`, or by the kind of the question.

    Empty if no question is open: between an answer and the next question, and after the closing message.
    """
    if not interview.waits_for_answer:
        return ""
    question = interview.question
    if line := answers.get(plain(question)):
        return line
    by_kind = _BY_LANGUAGE.get(interview.script.language.partition("-")[0].lower(), _ENGLISH)
    return next(answer for pattern, answer in by_kind if pattern.search(question))
