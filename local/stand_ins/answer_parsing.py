"""Parse a call's transcript by patterns: answers, numbers, days, times, yes and no."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from typing import Final

from local.stand_ins.gemini_live_voice_activity import WITHOUT_WORDS


def _each(words: str) -> list[str]:
    return words.split()


_SMALL: Final = {
    word: number
    for number, word in enumerate(
        _each(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen"
        )
    )
}
_TENS: Final = {
    word: number * 10
    for number, word in enumerate(_each("twenty thirty forty fifty sixty seventy eighty ninety"), start=2)
}
_WORDED: Final = re.compile(
    rf"\b(?:({'|'.join(_TENS)})(?:[ -]({'|'.join(list(_SMALL)[1:10])}))?|({'|'.join(_SMALL)}))\b", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")
_YES: Final = re.compile(
    r"\b(yes|yeah|yep|sure|of course|correct|right|absolutely|definitely|certainly|please|okay|ok|i do|i am|i would|"
    r"ja|natürlich|oui|bien sûr|sí|claro)\b",
    re.IGNORECASE,
)
_NO: Final = re.compile(r"\b(no|nope|nah|not|never|none|cannot|nein|nicht|non)\b|n't\b", re.IGNORECASE)
_SECOND_THOUGHT: Final = re.compile(
    r"\b(?:no,? wait|wait,? no|actually|sorry|i mean|make that)\b[ ,.:]*", re.IGNORECASE
)
_FILLER: Final = re.compile(
    r"^(?:(?:well|um+|uh+|er|oh|hi|hello|hey|yes|yeah|yep|sure|okay|ok|thanks|thank you|please|so|and)\b[ ,.!-]*)+",
    re.IGNORECASE,
)
_LEAD_IN: Final = re.compile(
    r"^(?:(?:my name is|the name is|this is|that is|that's|it is|it's|i am|i'm|call me|we are|we're|"
    r"i think|i guess|i would say|i'd say|there are|there will be|for)\s+)+",
    re.IGNORECASE,
)
_COURTESY: Final = re.compile(r"[ ,.!]+(?:please|thanks|thank you)[ .!]*$", re.IGNORECASE)
_HANG_UP: Final = "hang_up"  # its answer says nothing about the call
_MONTHS: Final = _each("january february march april may june july august september october november december")
_WEEKDAYS: Final = _each("monday tuesday wednesday thursday friday saturday sunday")
_ISO_DATE: Final = re.compile(r"\b(\d{4})-(\d\d)-(\d\d)\b")
_MONTH: Final = "|".join(_MONTHS)
_DAY_OF_MONTH: Final = re.compile(
    rf"\b(?:(?P<month>{_MONTH})\s+(?P<day>\d{{1,2}})|(?P<day_first>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?"
    rf"(?P<month_second>{_MONTH}))(?:st|nd|rd|th)?(?:,?\s+(?P<year>\d{{4}}))?\b",
    re.IGNORECASE,
)
_CLOCK: Final = re.compile(
    r"\b(?P<hour>[01]?\d|2[0-3])(?:[:. ](?P<minute>[0-5]\d))?\s*(?P<half>[ap]\.?m\b|o'clock)|"
    r"\b(?P<hour24>[01]?\d|2[0-3]):(?P<minute24>[0-5]\d)\b|\b(?P<word>noon|midnight)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """The agent's question, if any, and the caller's answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call: its exchanges in order, its date, and the texts that functions have answered, by their field."""

    exchanges: tuple[Exchange, ...]
    day: date
    answered: Mapping[str, str] = field(default_factory=dict)


def parse_call(text: str) -> Call:
    """Parse the call in a prompt: each line that is a JSON object with role and text is a turn.

    In a prompt without a transcript, all lines count as the caller's words. Speech without words answers nothing. A
    line with tool_call is a function call, whose answer counts if it succeeded.
    """
    lines = [line.strip() for line in text.replace("\u2019", "'").split("\n") if line.strip()]
    turns = [turn for line in lines if (turn := _turn(line))]
    around = [line for line in lines if not _turn(line)]
    found = _ISO_DATE.search(" ".join(around))
    day = date(*map(int, found.groups())) if found else date(2026, 1, 1)
    if not turns and not any(line.startswith("-----BEGIN") for line in lines):
        turns = [("user", line) for line in lines]
    return Call(tuple(_exchanges(turns)), day, dict(text for line in lines for text in _answered(line)))


def _turn(line: str) -> tuple[str, str] | None:
    try:
        match json.loads(line):
            case {"role": str(role), "text": str(text)}:
                return role, text
    except ValueError:
        pass
    return None


def _answered(line: str) -> list[tuple[str, str]]:
    try:
        match json.loads(line):
            case {"tool_call": int(), "name": name, "status": "succeeded", "response": dict(response)} if (
                name != _HANG_UP
            ):
                return [(name, text) for name, text in response.items() if isinstance(text, str)]
    except ValueError:
        pass
    return []


def _exchanges(turns: list[tuple[str, str]]) -> list[Exchange]:
    exchanges: list[Exchange] = []
    asked: list[str] = []
    for role, words in turns:
        text = WITHOUT_WORDS.sub("", words).strip()
        if role == "agent":
            asked.append(text)
        elif not text:
            asked = []
        elif asked or not exchanges:
            exchanges.append(Exchange(" ".join(asked), text))
            asked = []
        else:
            exchanges[-1] = Exchange(exchanges[-1].question, f"{exchanges[-1].answer} {text}")
    return exchanges


def in_digits(text: str) -> str:
    """Replace a text's number words, up to ninety-nine, by digits."""

    def digits(match: re.Match[str]) -> str:
        tens, unit, small = (word and word.lower() for word in match.groups())
        return str(_SMALL[small] if small else _TENS[tens] + _SMALL.get(unit or "", 0))

    return _WORDED.sub(digits, text)


def without_retractions(text: str) -> str:
    """Return the text after the last retraction, such as "actually" or "no, wait"."""
    parts = [part for part in _SECOND_THOUGHT.split(text) if part.strip(" .,!")]
    return parts[-1] if parts else text


def without_fillers(text: str) -> str:
    """Remove filler words at the start and the end of an answer."""
    cleaned = _LEAD_IN.sub("", _FILLER.sub("", _COURTESY.sub("", text.strip()))).strip(" .,!?;:-")
    return cleaned or text.strip()


def numbers(text: str) -> list[float]:
    """Return the numbers in a text, in order."""
    return [float(number.replace(",", "")) for number in _NUMBER.findall(in_digits(text))]


def is_yes(text: str) -> bool | None:
    """Return whether the first yes or no word of an answer is a yes; None if it has neither."""
    yes, no = _YES.search(text), _NO.search(text)
    if yes and no:
        return yes.start() < no.start()
    return None if not yes and not no else yes is not None


def day(text: str, today: date) -> date | None:
    """Return the day that a text names; without a year or a week, the next such day."""
    text = in_digits(text.lower())
    if iso := _ISO_DATE.search(text):
        return _date(*map(int, iso.groups()))
    if named := _DAY_OF_MONTH.search(text):
        month = _MONTHS.index(named["month"] or named["month_second"]) + 1
        number, year = int(named["day"] or named["day_first"]), int(named["year"] or today.year)
        found = _date(year, month, number)
        return found if not found or named["year"] or found >= today else _date(year + 1, month, number)
    for word, days in (("day after tomorrow", 2), ("tomorrow", 1), ("today", 0), ("tonight", 0)):
        if word in text:
            return today + timedelta(days=days)
    for number, weekday in enumerate(_WEEKDAYS):
        if weekday in text:
            return today + timedelta(days=(number - today.weekday() - 1) % 7 + 1)
    return None


def _date(year: int, month: int, number: int) -> date | None:
    try:
        return date(year, month, number)
    except ValueError:
        return None


def clock(text: str) -> time | None:
    """Return the time of day that a text names."""
    found = _CLOCK.search(in_digits(text))
    if not found:
        return None
    if found["word"]:
        return time(12 if found["word"].lower() == "noon" else 0)
    if found["hour24"]:
        return time(int(found["hour24"]), int(found["minute24"]))
    hour, half = int(found["hour"]), found["half"].lower()
    if half[0] in "ap":
        hour = hour % 12 + (12 if half[0] == "p" else 0)
    return time(hour, int(found["minute"] or 0))
