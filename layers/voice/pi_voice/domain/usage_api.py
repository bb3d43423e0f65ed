"""Request model of the route that takes the usage of a session."""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from pi_voice.domain.base import Document
from pi_voice.domain.usage import MAX_TOKENS, TokensByModality, TokenUsage


class ReportUsageRequest(Document):
    """Request body of POST /sessions/{session_id}/usage: totals since the session was created, over all connections.

    At least one number is required. The names of modalities are Gemini's, in any letter case.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    input_tokens: TokensByModality = Field(default={})
    """Sum of `promptTokensDetails`, the conversation so far in each turn included."""
    output_tokens: TokensByModality = Field(default={})
    """Sum of `responseTokensDetails`."""
    tool_use_tokens: TokensByModality = Field(default={})
    """Sum of `toolUsePromptTokensDetails`."""
    cached_tokens: TokensByModality = Field(default={})
    """Sum of `cacheTokensDetails`, which are a part of the input."""
    thinking_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    """Sum of `thoughtsTokenCount`; null or absent: unknown."""

    @model_validator(mode="after")
    def _require_a_number(self) -> Self:
        if self.reported(0).is_empty:
            message = "should have at least one number of tokens"
            raise ValueError(message)
        return self

    def reported(self, now: int) -> TokenUsage:
        """Return the numbers of this request."""
        return TokenUsage(**{name: getattr(self, name) for name in type(self).model_fields}, reported_at=now)
