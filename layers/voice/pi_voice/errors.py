"""Every way a request can fail, in the words of the API contract.

    VoiceError
    ├── InvalidRequest 400
    │   ├── TtlTooShort
    │   ├── InvalidCursor
    │   └── InvalidOutputSchema
    ├── MissingApiKey · InvalidApiKey · InvalidWebhookSignature 401
    ├── AgentNotFound · SessionNotFound · ApiKeyNotFound 404
    ├── SessionNotActive · SessionActive · SessionNotCompleted 409
    ├── TranscriptGap · TranscriptConflict · IdempotencyInProgress 409
    ├── RequestTooLarge · TranscriptTooLarge 413
    ├── UnsupportedMediaType 415
    ├── IdempotencyKeyReused 422
    ├── RateLimited 429
    ├── InternalError 500
    │   └── StorageError
    └── ProviderError
        ├── LiveKitError · GeminiError 502            the provider refused, or answered nonsense
        ├── LiveKitUnavailable · GeminiUnavailable 503 the provider is down, unreachable or busy
        └── UpstreamTimeout 504                        the provider did not answer in time

Messages say what to do next. They never carry a provider's text, a stack or a secret.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request: where, and what."""

    path: str
    message: str


class CarriedOut(Exception):
    """This very request was carried out before, and what it made is there."""

    def __init__(self, made_id: str) -> None:
        self.made_id = made_id
        super().__init__()


class VoiceError(Exception):
    """A failure that a caller is told about."""

    status: ClassVar[int]
    code: ClassVar[str]
    advice: ClassVar[str]
    retryable: ClassVar[bool] = False
    retry_after_seconds: float | None = None
    """How long to wait before trying again, where that is known."""
    next: int | None = None
    """Which turn a transcript goes on with, where that is what the caller has to know."""

    def __init__(self, message: str | None = None, faults: Iterable[Fault] = ()) -> None:
        self.message = message or self.advice
        self.faults = tuple(faults)
        super().__init__(self.message)


class InvalidRequest(VoiceError):
    """A field is missing, unknown, of the wrong type or out of bounds."""

    status = 400
    code = "invalid_request"
    advice = "The request is not valid. Correct the fields named in details and send it again."


class TtlTooShort(InvalidRequest):
    """The connections would expire before the call may end."""

    code = "voice_session_ttl_too_short"

    def __init__(self, ttl_seconds: int, max_duration_seconds: int) -> None:
        super().__init__(
            f"ttl_seconds is {ttl_seconds}, but the call may last {max_duration_seconds} seconds. "
            f"Ask for a ttl_seconds of at least {max_duration_seconds}."
        )


class InvalidCursor(InvalidRequest):
    """The cursor is not one that a list handed out."""

    code = "invalid_cursor"
    advice = "The cursor is not valid. Use the next_cursor of the page before, or leave it out to start over."


class InvalidOutputSchema(InvalidRequest):
    """The agent's output schema cannot be used for extraction."""

    code = "invalid_output_schema"
    advice = "The output schema cannot be used. Correct the places named in details and send it again."


class MissingApiKey(VoiceError):
    """There is no bearer key."""

    status = 401
    code = "missing_api_key"
    advice = 'Send your API key in the header "Authorization: Bearer pi_live_...".'


class InvalidApiKey(VoiceError):
    """The API key is mistyped, unknown or revoked, or the client token has expired or does not open this route."""

    status = 401
    code = "invalid_api_key"
    advice = "The API key is mistyped, unknown or revoked. Check it, or ask your operator for another."


class InvalidWebhookSignature(VoiceError):
    """The webhook does not carry LiveKit's signature of exactly these bytes."""

    status = 401
    code = "invalid_webhook_signature"
    advice = (
        "The webhook's signature does not match. Sign the raw body with the key and secret "
        "that this deployment knows as LIVEKIT_WEBHOOK_API_KEY and LIVEKIT_WEBHOOK_API_SECRET."
    )


class AgentNotFound(VoiceError):
    """The workspace has no such agent."""

    status = 404
    code = "voice_agent_not_found"
    advice = "There is no such agent. List yours with GET /api/v1/voice/agents."


class SessionNotFound(VoiceError):
    """The workspace has no such session."""

    status = 404
    code = "voice_session_not_found"
    advice = "There is no such session. List yours with GET /api/v1/voice/sessions."


class ApiKeyNotFound(VoiceError):
    """The workspace has no such API key."""

    status = 404
    code = "api_key_not_found"
    advice = "There is no such API key in this workspace. List them with the ListApiKeys function."


class SessionNotActive(VoiceError):
    """The session has ended, so nothing more can happen in it."""

    status = 409
    code = "voice_session_not_active"
    advice = "The session is not active any more. GET it to see how it ended."


class SessionActive(VoiceError):
    """The session is still running, so it cannot be deleted."""

    status = 409
    code = "voice_session_active"
    advice = "The session is still active. Complete it first, then delete it."


class SessionNotCompleted(VoiceError):
    """The session has no transcript to extract from."""

    status = 409
    code = "voice_session_not_completed"
    advice = "The session has no transcript. Complete it first, with what was said."


class TranscriptGap(VoiceError):
    """Turns are missing between those that are kept and those that were sent."""

    status = 409
    code = "voice_transcript_gap"

    def __init__(self, wanted: int) -> None:
        self.next = wanted
        super().__init__(f"Turns are missing. The next one wanted is {wanted}: send from there on.")


class TranscriptConflict(VoiceError):
    """Turns that are kept were sent again, and differ."""

    status = 409
    code = "voice_transcript_conflict"

    def __init__(self, number: int, wanted: int) -> None:
        self.next = wanted
        super().__init__(
            f"Turn {number} is kept already and says something else. Another client may be writing this transcript; "
            f"the next turn wanted is {wanted}."
        )


class IdempotencyInProgress(VoiceError):
    """The first request with this key has not been answered yet."""

    status = 409
    code = "idempotency_in_progress"
    advice = "A request with this Idempotency-Key is being carried out. Try again in a moment."
    retryable = True


class IdempotencyKeyReused(VoiceError):
    """The key belongs to another request."""

    status = 422
    code = "idempotency_key_reused"
    advice = "This Idempotency-Key was used with another body. Use a new key for a new request."


class RequestTooLarge(VoiceError):
    """The body is larger than this route takes."""

    status = 413
    code = "request_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The body is too large. Send at most {limit_bytes:,} bytes.")


class TranscriptTooLarge(VoiceError):
    """The transcript is over one of its three limits."""

    status = 413
    code = "voice_transcript_too_large"
    advice = "The transcript is too large. Shorten what details names and send it again."


class UnsupportedMediaType(VoiceError):
    """The body is declared to be something other than JSON in UTF-8."""

    status = 415
    code = "unsupported_media_type"
    advice = 'Send the body as JSON in UTF-8, with the header "Content-Type: application/json".'


class RateLimited(VoiceError):
    """The workspace has asked for too much in a short time."""

    status = 429
    code = "rate_limited"
    advice = "Too many extractions were asked for by hand. Try again when Retry-After says."
    retryable = True

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__()
        self.retry_after_seconds = retry_after_seconds


class InternalError(VoiceError):
    """Something of ours is broken."""

    status = 500
    code = "internal_error"
    advice = "Something went wrong on our side. Try again; if it stays, report the request_id."
    retryable = True


class StorageError(InternalError):
    """DynamoDB refused a request, could not be reached or did not answer in time."""


class ProviderError(VoiceError):
    """LiveKit or Gemini failed us; they may have asked for a pause."""

    def __init__(self, message: str | None = None, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class LiveKitError(ProviderError):
    """LiveKit refused a request of ours, or answered with something that cannot be used."""

    status = 502
    code = "livekit_error"
    advice = "LiveKit refused the request. The operator should check LIVEKIT_URL and its key and secret."


class LiveKitUnavailable(ProviderError):
    """LiveKit is down, unreachable or busy."""

    status = 503
    code = "livekit_unavailable"
    advice = "LiveKit cannot be reached or is busy. Try again in a moment."
    retryable = True


class GeminiError(ProviderError):
    """Gemini refused a request of ours, or answered with something that cannot be used."""

    status = 502
    code = "gemini_error"
    advice = "Gemini refused the request. The operator should check GEMINI_API_KEY and the model settings."


class GeminiUnavailable(ProviderError):
    """Gemini is down, unreachable or busy."""

    status = 503
    code = "gemini_unavailable"
    advice = "Gemini cannot be reached or is busy. Try again in a moment."
    retryable = True


class UpstreamTimeout(ProviderError):
    """A provider did not answer within the time that we give it."""

    status = 504
    code = "upstream_timeout"
    advice = "A provider did not answer in time. Try again in a moment."
    retryable = True
