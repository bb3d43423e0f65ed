from itertools import count

import pytest

from pi_voice.domain import errors
from pi_voice.domain.errors import (
    ErrorDetail,
    ProviderError,
    RateLimited,
    RequestTooLarge,
    TranscriptConflict,
    TranscriptGap,
    TtlTooShort,
    VoiceError,
)

CONTRACT: list[tuple[type[VoiceError], int, str, bool]] = [
    (errors.InvalidRequest, 400, "invalid_request", False),
    (errors.TtlTooShort, 400, "voice_session_ttl_too_short", False),
    (errors.InvalidCursor, 400, "invalid_cursor", False),
    (errors.InvalidOutputSchema, 400, "invalid_output_schema", False),
    (errors.InvalidVariables, 400, "invalid_variables", False),
    (errors.MissingApiKey, 401, "missing_api_key", False),
    (errors.InvalidApiKey, 401, "invalid_api_key", False),
    (errors.InvalidWebhookSignature, 401, "invalid_webhook_signature", False),
    (errors.AgentNotFound, 404, "voice_agent_not_found", False),
    (errors.AgentVersionNotFound, 404, "voice_agent_not_found", False),
    (errors.SessionNotFound, 404, "voice_session_not_found", False),
    (errors.WebhookEndpointNotFound, 404, "webhook_endpoint_not_found", False),
    (errors.WebhookDeliveryNotFound, 404, "webhook_delivery_not_found", False),
    (errors.ApiKeyNotFound, 404, "api_key_not_found", False),
    (errors.SessionNotActive, 409, "voice_session_not_active", False),
    (errors.RenewalLimitReached, 409, "renewal_limit_reached", False),
    (errors.SessionActive, 409, "voice_session_active", False),
    (errors.SessionNotCompleted, 409, "voice_session_not_completed", False),
    (errors.TranscriptGap, 409, "voice_transcript_gap", False),
    (errors.TranscriptConflict, 409, "voice_transcript_conflict", False),
    (errors.AgentVersionConflict, 409, "agent_version_conflict", False),
    (errors.ToolCallInProgress, 409, "tool_call_in_progress", True),
    (errors.IdempotencyInProgress, 409, "idempotency_in_progress", True),
    (errors.RequestTooLarge, 413, "request_too_large", False),
    (errors.ToolCallsTooLarge, 413, "request_too_large", False),
    (errors.TranscriptTooLarge, 413, "voice_transcript_too_large", False),
    (errors.IdempotencyKeyReused, 422, "idempotency_key_reused", False),
    (errors.UnsupportedMediaType, 415, "unsupported_media_type", False),
    (errors.RateLimited, 429, "rate_limited", True),
    (errors.InternalError, 500, "internal_error", True),
    (errors.StorageError, 500, "internal_error", True),
    (errors.UnreadableRow, 500, "internal_error", True),
    (errors.LiveKitError, 502, "livekit_error", False),
    (errors.GeminiError, 502, "gemini_error", False),
    (errors.GeminiMisconfigured, 502, "gemini_error", False),
    (errors.LiveKitUnavailable, 503, "livekit_unavailable", True),
    (errors.GeminiUnavailable, 503, "gemini_unavailable", True),
    (errors.UpstreamTimeout, 504, "upstream_timeout", True),
]


@pytest.mark.parametrize(("error", "status", "code", "retryable"), CONTRACT, ids=str)
def test_an_error_has_the_status_and_the_code_of_the_contract(
    error: type[VoiceError], status: int, code: str, *, retryable: bool
) -> None:
    assert (error.status, error.code, error.retryable) == (status, code, retryable)


def test_the_contract_lists_every_error() -> None:
    listed = {error for error, _, _, _ in CONTRACT}

    assert _leaves(VoiceError) <= listed


def _leaves(error: type[VoiceError]) -> set[type[VoiceError]]:
    children = error.__subclasses__()
    return {error} if not children else set().union(*(_leaves(child) for child in children))


COMPUTED_MESSAGES = (
    TtlTooShort,
    errors.AgentVersionConflict,
    TranscriptGap,
    TranscriptConflict,
    RequestTooLarge,
    RateLimited,
)


@pytest.mark.parametrize(
    "error",
    [error for error, *_ in CONTRACT if error not in (*COMPUTED_MESSAGES, errors.GeminiMisconfigured)],
    ids=lambda error: error.__name__,
)
def test_an_error_has_a_default_message(error: type[VoiceError]) -> None:
    assert error().message.endswith(".")
    assert error("Do this.").message == "Do this."
    assert str(error("Do this.")) == "Do this."


def test_ttl_too_short_names_the_smallest_valid_ttl() -> None:
    error = TtlTooShort(ttl_seconds=600, max_duration_seconds=900)

    assert error.message == (
        "ttl_seconds is 600, but the call may last 900 seconds. Ask for a ttl_seconds of at least 900."
    )


def test_a_version_conflict_names_the_current_version() -> None:
    error = errors.AgentVersionConflict(7)

    assert error.message == (
        "The agent has changed: its current version is 7. Get it, make your change again, and send it with "
        'If-Match: "7".'
    )


def test_a_busy_provider_and_an_unexpected_error_say_to_try_again() -> None:
    assert errors.GeminiUnavailable().message == "Gemini cannot be reached or is busy. Try again in a moment."
    assert errors.LiveKitUnavailable().message == "LiveKit cannot be reached or is busy. Try again in a moment."
    assert errors.InternalError().message == (
        "An unexpected error occurred. Try again; if it persists, report the request_id."
    )


def test_request_too_large_names_the_limit() -> None:
    assert RequestTooLarge(1_048_576).message == "The body is too large. Send at most 1,048,576 bytes."


def test_request_too_large_may_name_a_number_of_values() -> None:
    assert RequestTooLarge(16_384, "values").message == "The body is too large. Send at most 16,384 values."


def test_an_error_has_at_most_fifty_details_with_short_texts() -> None:
    endless = (ErrorDetail("p" * 10_000, "m" * 10_000) for _ in count())

    details = errors.InvalidRequest(details=endless).details

    assert len(details) == 50
    assert {(len(detail.path), len(detail.message)) for detail in details} == {(300, 300)}
    assert details[0].path.endswith("p\u2026")


def test_transcript_gap_and_conflict_name_the_next_turn_to_send() -> None:
    gap, conflict = TranscriptGap(7), TranscriptConflict(3, 7)

    assert (gap.next, gap.message) == (7, "Turns are missing. Send turn 7 and all turns after it.")
    assert conflict.next == 7
    assert conflict.message.startswith("Turn 3 is already saved with a different text.")
    assert conflict.message.endswith("the next turn to send is 7.")


def test_rate_limited_names_the_limit_and_has_the_time_to_wait() -> None:
    error = RateLimited("creates", 6_000, 12.5)

    assert error.retry_after_seconds == 12.5
    assert error.message == (
        "The limit of 6,000 creates per minute is reached. Wait for Retry-After seconds and try again."
    )


def test_a_provider_error_has_the_time_to_wait_if_it_is_known() -> None:
    assert errors.GeminiUnavailable(retry_after_seconds=3.5).retry_after_seconds == 3.5
    assert errors.GeminiUnavailable().retry_after_seconds is None
    assert issubclass(errors.UpstreamTimeout, ProviderError)
