"""Extractions: how results were obtained from a transcript, and where each value was said."""

from typing import Literal, Self

from pydantic import Field, JsonValue
from typing_extensions import TypeAliasType

from pi_voice.domain.base import Document
from pi_voice.domain.errors import ErrorDetail


class ErrorInfo(Document):
    """Why a session or an extraction failed."""

    code: str
    """Error code, for programs."""
    message: str
    """Explanation, for people."""
    details: list[ErrorDetail] = Field(default=[])
    """Individual errors by path, if there are several."""


TurnRole = TypeAliasType("TurnRole", Literal["agent", "user"])
"""Who said a turn."""


class Evidence(Document):
    """Where in the call one value of the results was said."""

    status: Literal["found", "not_mentioned", "conflicting", "unverified"]
    """`unverified`: the call does not contain the quote, or the model gave none, or only the agent says the value.

    What only the agent says counts as unverified if the agent has tools, was not told it, and no tool answered it.
    """
    turn: int | None = None
    """Index of the turn, counted from 0."""
    role: TurnRole | None = None
    """Speaker of the turn: `agent` or `user`; null without a turn, and in evidence stored before it had a role."""
    quote: str | None = None
    """Words of that turn or tool call, verified to be in it."""
    tool_call: int | None = None
    """Index of the tool call that tells the value, counted from 0; null if a turn tells it."""


EvidenceByPath = TypeAliasType("EvidenceByPath", dict[str, Evidence])
"""Evidence of each value of the results, by its path."""


class TranscriptQuality(Document):
    """Signs of missing or repeated speech in a transcript."""

    agent_turns: int
    """Number of turns of the agent."""
    user_turns: int
    """Number of turns of the caller."""
    user_is_silent: bool
    """Whether no turn of the caller contains a letter or a digit."""
    repeated_turns: int
    """Number of turns with the same role and text as the turn before."""
    gaps: int
    """Number of pauses between turns longer than ten seconds."""
    longest_gap_seconds: float | None
    """Longest pause between two turns in seconds; null if the turns have no times."""
    coverage: float | None
    """Share of `duration_seconds` before the end of the last turn, 0 to 1; null without times or duration."""
    warnings: list[str] = Field(default=[])
    """What is probably wrong with the times of the turns, or with `duration_seconds`."""


class ExtractionRun(Document):
    """One extraction in the history of a session."""

    at: int | None
    """When the extraction ended."""
    status: Literal["succeeded", "failed"]
    """Whether the extraction returned results."""
    agent_version: int | None
    """Agent version whose schema was used; null if the request carried its own schema."""
    model: str | None
    """Model that answered, or that was asked last."""
    results: JsonValue
    """Results of this run."""
    error: ErrorInfo | None
    """Why there are no results."""


class Extraction(Document):
    """State and cost of the extraction of a session's results."""

    status: Literal["succeeded", "pending", "failed", "skipped"]
    """`pending`: the extraction will be retried. `skipped`: no output schema, or nothing was said."""
    model: str | None = None
    """Model that answered, or that was asked last."""
    attempts: int = 0
    """Number of requests to the model, repair requests included."""
    error: ErrorInfo | None = None
    """Why there are no results."""
    agent_version: int | None = None
    """Agent version whose schema was used; null if the request carried its own schema."""
    extracted_at: int | None = None
    """When the extraction ended."""
    milliseconds: int = 0
    """Duration of the extraction in milliseconds."""
    input_tokens: int = 0
    """Number of tokens the model read."""
    output_tokens: int = 0
    """Number of tokens the model wrote, thoughts included."""
    cost_usd: float | None = None
    """Cost in US dollars by the deployment's price table; null if the model is not in it."""
    fields: EvidenceByPath | None = None
    """Evidence for each value, by its path; null for an agent without `evidence`."""
    transcript: TranscriptQuality | None = None
    """Quality of the transcript."""
    runs: list[ExtractionRun] = Field(default=[])
    """Latest ten extractions, newest first; empty until results are extracted again for the first time."""

    def after(self, before: "Extraction | None") -> Self:
        """Add the cost of an earlier extraction of the same session, and take over its runs."""
        if before is None:
            return self
        costs = [cost for cost in (before.cost_usd, self.cost_usd) if cost is not None]
        counters = ("attempts", "milliseconds", "input_tokens", "output_tokens")
        sums = {name: getattr(before, name) + getattr(self, name) for name in counters}
        return self.model_copy(update={**sums, "cost_usd": sum(costs) if costs else None, "runs": before.runs})
