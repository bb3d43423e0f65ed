"""Evidence: for each value, where in the call it was said, as the model claims and verified in the transcript."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydantic import JsonValue

from pi_voice.domain.extractions import Evidence
from pi_voice.domain.schema_reader import JsonSchema
from pi_voice.domain.transcripts import TranscriptTurn

MAX_QUOTE_CHARACTERS: Final = 500

INSTRUCTION: Final = (
    "\nAnswer with an object of two keys. `results` is what the schema asks for. `evidence` has one entry for every "
    "single value in `results`, null ones included: `path` leads to the value by keys and positions with dots between "
    "them, such as customer.name or items.0.title; `status` is found where a speaker said it, not_mentioned where the "
    "call does not tell it, conflicting where the call tells different values and does not settle on one; `turn` is "
    "the number of the turn where it was said; `quote` is the few words of that turn that say it, copied letter by "
    "letter. Without such words `turn` and `quote` are null."
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
_PLAIN_CHARACTERS: Final = str.maketrans(
    "\u2018\u2019\u201a\u201b\u2032`\u201c\u201d\u201e\u2033\u2010\u2011\u2012\u2013\u2014\u2212",
    "''''''\"\"\"\"------",
)


def with_evidence(sent: JsonSchema) -> JsonSchema:
    """Return the schema of an answer with results and their evidence."""
    results = {keyword: value for keyword, value in sent.items() if keyword != "$defs"}
    wrapped: JsonSchema = {
        "type": "object",
        "properties": {"results": results, "evidence": {"type": "array", "items": _EVIDENCE_ENTRY}},
        "required": ["results", "evidence"],
        "propertyOrdering": ["results", "evidence"],
    }
    return {**wrapped, "$defs": sent["$defs"]} if "$defs" in sent else wrapped


def split_answer(answer: JsonValue) -> tuple[JsonValue, JsonValue]:
    """Split an answer of that schema into results and claims."""
    if isinstance(answer, dict):
        return answer.get("results"), answer.get("evidence")
    return answer, None


def leaves(value: JsonValue, path: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Yield each single value of results with its path; an empty list or object is also a single value."""
    match value:
        case {} if value:
            for name, inner in value.items():
                yield from leaves(inner, f"{path}.{name}" if path else name)
        case [_, *_]:
            for number, inner in enumerate(value):
                yield from leaves(inner, f"{path}.{number}" if path else str(number))
        case _:
            yield path, value


def verify_evidence(results: JsonValue, claims: JsonValue, turns: Sequence[TranscriptTurn]) -> dict[str, Evidence]:
    """Verify the model's claim for each value against the transcript.

    A value is `unverified` if its quote is not in its turn, or if the model gave no quote.
    """
    claims_by_path = {
        claim["path"]: claim
        for claim in (claims if isinstance(claims, list) else [])
        if isinstance(claim, dict) and isinstance(claim.get("path"), str)
    }
    return {path: _verify(value, claims_by_path.get(path, {}), turns) for path, value in leaves(results)}


def _verify(value: JsonValue, claim: Mapping[str, JsonValue], turns: Sequence[TranscriptTurn]) -> Evidence:
    is_empty = value in (None, [], {})
    status, turn, quote = claim.get("status"), claim.get("turn"), claim.get("quote")
    if status not in ("found", "conflicting"):
        return Evidence(status="not_mentioned" if is_empty else "unverified")
    if (
        isinstance(turn, bool)
        or not isinstance(turn, int)
        or not isinstance(quote, str)
        or not 0 <= turn < len(turns)
        or not contains_quote(turns[turn]["text"], quote)
    ):
        return Evidence(status="unverified")
    return Evidence(
        status="found" if status == "found" else "conflicting", turn=turn, quote=quote[:MAX_QUOTE_CHARACTERS]
    )


def contains_quote(text: str, quote: str) -> bool:
    """Return whether a text contains a quote as whole words; case, spaces and Unicode forms are ignored."""
    words = _normalize(quote).strip(" .,;:!?\"'-\u2026")
    if not words:
        return False
    spoken, start = _normalize(text), -1
    while (start := spoken.find(words, start + 1)) >= 0:
        end = start + len(words)
        if not _in_word(spoken[start - 1 : start], words[0]) and not _in_word(words[-1], spoken[end : end + 1]):
            return True
    return False


def _normalize(text: str) -> str:
    """Normalize a text for comparison: NFKC, case folding, plain quotes and dashes, single spaces."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.translate(_PLAIN_CHARACTERS)).casefold())
    return re.sub(r"\s+", " ", folded).strip()


def _in_word(left: str, right: str) -> bool:
    """Return whether two adjacent characters belong to one word, in scripts that separate words by spaces."""
    return _is_word_character(left) and _is_word_character(right)


def _is_word_character(letter: str) -> bool:
    return letter.isdecimal() or letter.lower() != letter.upper()
