"""Tokens of Gemini Live that a session used, as its client reports them."""

from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, Field, StringConstraints
from typing_extensions import TypeAliasType

MAX_TOKENS: Final = 1_000_000_000
"""Maximum of each number.

An hour of turns, one every two seconds, each with a full context of 131,072 tokens, uses 236 million. Sums over a
million sessions are still exact in JSON.
"""

MAX_MODALITIES: Final = 16
"""Maximum number of modalities in one field of a report."""

OTHER: Final = "other"
_MODALITIES: Final = {"text", "audio", "image", "video", "document", OTHER}


def _known_modalities(tokens: dict[str, int]) -> dict[str, int]:
    """Put names into lower case, and add up those that this version does not know, so that a session stores few."""
    known: dict[str, int] = {}
    for name, count in tokens.items():
        modality = name.lower() if name.lower() in _MODALITIES else OTHER
        known[modality] = known.get(modality, 0) + count
    if any(count > MAX_TOKENS for count in known.values()):
        message = f"should have at most {MAX_TOKENS:,} tokens of all other modalities together"
        raise ValueError(message)
    return known


TokensByModality = TypeAliasType(
    "TokensByModality",
    Annotated[
        dict[
            Annotated[str, StringConstraints(min_length=1, max_length=40)],
            Annotated[int, Field(ge=0, le=MAX_TOKENS)],
        ],
        Field(max_length=MAX_MODALITIES),
        AfterValidator(_known_modalities),
    ],
)
"""Numbers of tokens by modality: `text`, `audio`, `image`, `video`, `document`, and `other` for all other names.

A modality that is absent is unknown, not zero.
"""


class TokenUsage(NamedTuple):
    """Tokens of a session so far. A number that is absent is unknown."""

    input_tokens: Mapping[str, int]
    output_tokens: Mapping[str, int]
    tool_use_tokens: Mapping[str, int]
    cached_tokens: Mapping[str, int]
    thinking_tokens: int | None
    reported_at: int
    """When a number last changed, in Unix seconds."""

    @property
    def is_empty(self) -> bool:
        """Whether no number is known."""
        return self.thinking_tokens is None and not any(self.by_modality.values())

    @property
    def by_modality(self) -> dict[str, Mapping[str, int]]:
        """The numbers that have modalities, by field."""
        return {name: value for name, value in self._asdict().items() if isinstance(value, Mapping)}

    def with_report(self, report: "TokenUsage") -> "TokenUsage":
        """Return the larger of each number; the same object if the report has none that is larger."""
        thinking = [count for count in (self.thinking_tokens, report.thinking_tokens) if count is not None]
        merged = self._replace(
            input_tokens=_larger(self.input_tokens, report.input_tokens),
            output_tokens=_larger(self.output_tokens, report.output_tokens),
            tool_use_tokens=_larger(self.tool_use_tokens, report.tool_use_tokens),
            cached_tokens=_larger(self.cached_tokens, report.cached_tokens),
            thinking_tokens=max(thinking, default=None),
        )
        return self if merged == self else merged._replace(reported_at=max(self.reported_at, report.reported_at))


def _larger(stored: Mapping[str, int], reported: Mapping[str, int]) -> dict[str, int]:
    return {name: max(stored.get(name, 0), reported.get(name, 0)) for name in {**stored, **reported}}
