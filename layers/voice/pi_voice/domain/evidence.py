"""Evidence: for each value, where in the call it was said, as the model claims and verified in the transcript."""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Final, Literal

from pydantic import JsonValue

from pi_voice.domain.base import JsonSchema, dotted_path
from pi_voice.domain.extractions import Evidence
from pi_voice.domain.tool_calls import ToolCall
from pi_voice.domain.transcripts import TranscriptTurn

MAX_QUOTE_CHARACTERS: Final = 500

INSTRUCTION: Final = (
    "\nAnswer with an object of two keys. `results` is what the schema asks for. `evidence` has one entry for every "
    "single value in `results`, null ones included: `path` leads to the value by keys and positions with dots between "
    "them, such as customer.name or items.0.title, and with a backslash before each dot or backslash that is part of a "
    "key, such as notes.v1\\.5 for the key v1.5 in notes; `status` is found where a speaker said it, not_mentioned "
    "where the call does not tell it, conflicting where the call tells different values and does not settle on one; "
    "`turn` is the number of the turn where it was said; `quote` is the few words of that turn that say it, copied "
    "letter by letter. Without such words `turn` and `quote` are null."
)
OF_TOOL_CALLS: Final = (
    " Where a tool call tells the value, `tool_call` is the number of that call, `quote` is copied letter by letter "
    "from its arguments or its response, and `turn` is null. Otherwise `tool_call` is null. What only a tool could "
    "know, such as a booking number, needs the tool call: the agent's words alone do not tell it."
)

_STATUSES: Final = ("found", "not_mentioned", "conflicting")
_EVIDENCE_ENTRY: Final[JsonSchema] = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "status": {"type": "string", "enum": [*_STATUSES]},
        "turn": {"type": ["integer", "null"]},
        "quote": {"type": ["string", "null"]},
    },
    "required": ["path", "status", "turn", "quote"],
    "propertyOrdering": ["path", "status", "turn", "quote"],
}
_WITH_TOOL_CALL: Final[JsonSchema] = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "status": {"type": "string", "enum": [*_STATUSES]},
        "turn": {"type": ["integer", "null"]},
        "tool_call": {"type": ["integer", "null"]},
        "quote": {"type": ["string", "null"]},
    },
    "required": ["path", "status", "turn", "tool_call", "quote"],
    "propertyOrdering": ["path", "status", "turn", "tool_call", "quote"],
}
_PLAIN_CHARACTERS: Final = str.maketrans(
    "\u2018\u2019\u201a\u201b\u2032`\u201c\u201d\u201e\u2033\u2010\u2011\u2012\u2013\u2014\u2212",
    "''''''\"\"\"\"------",
    "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff",
)
"""Other forms of quotes and dashes, and invisible characters, which are removed: joiners and marks of direction."""

_WITHOUT_SPACES: Final = (
    "BALINESE ", "BOPOMOFO ", "CJK ", "HIRAGANA ", "IDEOGRAPHIC ", "JAVANESE ", "KATAKANA", "KHMER ", "LAO ",
    "MYANMAR ", "NEW TAI LUE ", "TAI ", "THAI ", "TIBETAN ", "YI ",
)  # fmt: skip
"""Beginnings of the Unicode names of letters in scripts that do not separate words by spaces."""

_SEPARATORS: Final = ".,:/'\u2044\u066b\u066c"
"""Characters between the digits of one number, time or date: 1,500 and 10:30 and 29/11. A hyphen separates two."""

_TOKENS: Final = re.compile(
    r"UM+"  # a letter of a script without spaces, with its marks
    r"|(?:(?<![LMUD-])-(?=C?\.?D)C?)?"  # a minus sign: -5 and -$5, but not 4-5
    r"(?:(?<![LMUD.])\.(?=D))?"  # a decimal point without a digit before it: .5
    rf"[LMD]+(?:(?<=D)[{_SEPARATORS}](?=D)[LMD]+)*"
)
"""Words and numbers, in a text that has the kind of each character: see _kind."""

_START: Final = 1
_INSIDE: Final = 2


def with_evidence(sent: JsonSchema, *, has_tool_calls: bool = False) -> JsonSchema:
    """Return the schema of an answer with results and their evidence."""
    entry = _WITH_TOOL_CALL if has_tool_calls else _EVIDENCE_ENTRY
    results = {keyword: value for keyword, value in sent.items() if keyword != "$defs"}
    wrapped: JsonSchema = {
        "type": "object",
        "properties": {"results": results, "evidence": {"type": "array", "items": entry}},
        "required": ["results", "evidence"],
        "propertyOrdering": ["results", "evidence"],
    }
    return {**wrapped, "$defs": sent["$defs"]} if "$defs" in sent else wrapped


def split_answer(answer: JsonValue) -> tuple[JsonValue, JsonValue]:
    """Split an answer of that schema into results and claims."""
    if isinstance(answer, dict):
        return answer.get("results"), answer.get("evidence")
    return answer, None


def leaves(value: JsonValue, *steps: str | int) -> Iterator[tuple[str, JsonValue]]:
    """Yield each single value of results with its path; an empty list or object is also a single value."""
    match value:
        case {} if value:
            for name, inner in value.items():
                yield from leaves(inner, *steps, name)
        case [_, *_]:
            for number, inner in enumerate(value):
                yield from leaves(inner, *steps, number)
        case _:
            yield dotted_path(steps), value


def verify_evidence(
    results: JsonValue,
    claims: JsonValue,
    turns: Sequence[TranscriptTurn],
    tool_calls: Sequence[ToolCall] = (),
    told: str | None = None,
) -> dict[str, Evidence]:
    """Verify the model's claim for each value against the transcript and the tool calls.

    `told` is what the agent knew before the call, if it has tools. A value is `unverified` if its quote is not where
    the model says, if the model gave no quote, or if only the agent says a value that only a tool could know.
    """
    claims_by_path = {
        claim["path"]: claim
        for claim in (claims if isinstance(claims, list) else [])
        if isinstance(claim, dict) and isinstance(claim.get("path"), str)
    }
    verifier = _Verifier(turns, tool_calls, told)
    return {path: verifier.verify(value, claims_by_path.get(path, {})) for path, value in leaves(results)}


class _Verifier:
    def __init__(self, turns: Sequence[TranscriptTurn], calls: Sequence[ToolCall], told: str | None) -> None:
        self._turns = turns
        self._calls = calls
        self._told = told
        self._turn = cache(lambda turn: _Words(turns[turn]["text"]))  # many values are quoted from one turn
        self._call = cache(lambda call: _Words(_text_of(calls[call])))

    def verify(self, value: JsonValue, claim: Mapping[str, JsonValue]) -> Evidence:
        status, quote = claim.get("status"), claim.get("quote")
        if status not in ("found", "conflicting"):
            return Evidence(status="not_mentioned" if value in (None, [], {}) else "unverified")
        verified: Literal["found", "conflicting"] = "found" if status == "found" else "conflicting"
        turn, call = _index(claim.get("turn"), self._turns), _index(claim.get("tool_call"), self._calls)
        if not isinstance(quote, str):
            return Evidence(status="unverified")
        shown = quote[:MAX_QUOTE_CHARACTERS]
        if call is not None and self._calls[call].status == "succeeded" and self._call(call).contain(quote):
            return Evidence(status=verified, tool_call=call, quote=shown)
        if turn is None or not self._turn(turn).contain(quote) or self._is_invented(value, turn):
            return Evidence(status="unverified")
        return Evidence(status=verified, turn=turn, role=self._turns[turn]["role"], quote=shown)

    def _is_invented(self, value: JsonValue, turn: int) -> bool:
        """Return whether an agent with tools says a value that it was not told, and neither the caller nor a tool said.

        Models speak at times as if they had called a function without calling it (googleapis/python-genai#2827). A
        value that is not in the turn word for word, such as a boolean, cannot be checked.
        """
        if self._told is None or self._turns[turn]["role"] != "agent":
            return False
        text = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
        if not text or not self._turn(turn).contain(text):
            return False
        heard = (number for number, each in enumerate(self._turns) if each["role"] == "user")
        answered = (number for number, each in enumerate(self._calls) if each.status == "succeeded")
        return not (
            contains_quote(self._told, text)
            or any(self._turn(number).contain(text) for number in heard)
            or any(self._call(number).contain(text) for number in answered)
        )


def _index(value: JsonValue, of: Sequence[object]) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(of) else None


def _text_of(call: ToolCall) -> str:
    """Return the texts and numbers of a tool call, in which quotes are found."""
    return "\n".join(
        f"{path}: {json.dumps(value, ensure_ascii=False)}\n{value}"
        for part in (call.arguments, call.response)
        for path, value in leaves(part)
    )


def contains_quote(text: str, quote: str) -> bool:
    """Return whether a text contains a quote as whole words and numbers.

    Case, spaces and Unicode forms are ignored. In scripts that do not separate words by spaces, any part of a text may
    be quoted.
    """
    return _Words(text).contain(quote)


class _Words:
    """The words and numbers of a text, in which quotes are found."""

    def __init__(self, text: str) -> None:
        self._text = _normalize(text)
        self._places = _places(self._text)

    def contain(self, quote: str) -> bool:
        """Return whether the quote is in the text and cuts no word or number at its start or end."""
        words = _trimmed(_normalize(quote))
        if not words:
            return False
        first, start = _places(words)[0], -1  # `-5` begins a number in the quote, but not in `4-5`
        while (start := self._text.find(words, start + 1)) >= 0:
            if self._places[start] == first and self._places[start + len(words)] != _INSIDE:
                return True
        return False


def _normalize(text: str) -> str:
    """Normalize a text for comparison: NFKC, case folding, plain quotes and dashes, single spaces."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.translate(_PLAIN_CHARACTERS)).casefold())
    return re.sub(r"\s+", " ", folded).strip()


def _trimmed(quote: str) -> str:
    """Remove punctuation around a normalized quote, but not the sign or the point of a number."""
    punctuation = " .,;:!?\"'-"
    start, first = len(quote) - len(quote.lstrip(punctuation)), _places(quote).find(_START)
    return quote[start if first < 0 else min(start, first) :].rstrip(punctuation)


def _places(text: str) -> bytearray:
    """Return for each character of a normalized text, and for its end, where in a word or number it is."""
    places = bytearray(len(text) + 1)
    for match in _TOKENS.finditer("".join(map(_kind, text))):
        start, end = match.span()
        places[start:end] = bytes((_START, *[_INSIDE] * (end - start - 1)))
    return places


@lru_cache(4096)
def _kind(character: str) -> str:
    """Return the kind of a character: D digit, L letter, U letter of a script without spaces, M mark, C currency.

    A character that may belong to a number is its own kind; a space stands for any other.
    """
    match unicodedata.category(character):
        case "Nd":
            return "D"
        case "Lu" | "Ll" | "Lt" | "Lm" | "Lo":
            return "U" if unicodedata.name(character, "").startswith(_WITHOUT_SPACES) else "L"
        case "Mn" | "Mc" | "Me":
            return "M"
        case "Sc":
            return "C"
        case _:
            return character if character in "-" + _SEPARATORS else " "
