"""Errors of the API.

    VoiceError
    ├── InvalidRequest 400
    │   ├── TtlTooShort
    │   ├── InvalidCursor
    │   ├── InvalidOutputSchema
    │   └── InvalidVariables
    ├── MissingApiKey · InvalidApiKey · InvalidWebhookSignature 401
    ├── AgentNotFound · SessionNotFound · ApiKeyNotFound 404
    │   └── AgentVersionNotFound
    ├── WebhookEndpointNotFound · WebhookDeliveryNotFound 404
    ├── SessionNotActive · SessionActive · SessionNotCompleted 409
    ├── TranscriptGap · TranscriptConflict · AgentVersionConflict · ToolCallInProgress · IdempotencyInProgress 409
    ├── RequestTooLarge · TranscriptTooLarge 413
    ├── UnsupportedMediaType 415
    ├── IdempotencyKeyReused 422
    ├── RateLimited 429
    ├── InternalError 500
    │   └── StorageError
    └── ProviderError
        ├── LiveKitError · GeminiError 502            request refused, or response unusable
        │   └── GeminiMisconfigured                    key, permission or model of the deployment
        ├── LiveKitUnavailable · GeminiUnavailable 503 down, unreachable or busy
        └── UpstreamTimeout 504                        no response in time

Messages say what to do next. They never contain a provider's text, a stack trace or a secret.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict, with_config

MAX_DETAILS: Final = 50
MAX_DETAIL_CHARACTERS: Final = 300
"""Maximum length of the path and of the message of a detail: both may quote names of the request."""

Misconfiguration = Literal["key", "permission", "model"]
"""What Gemini refuses: the API key; the project, its billing or its region; the model, which may be shut down, or its
thinking level.
"""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """One error or warning about a request, with its place. Long texts are cut."""

    path: str
    """Place in the request or in the results: keys and positions joined by dots, a dot in a key as `\\.`; or a JSON
    pointer into a strict schema."""
    message: str
    """What is wrong, and what to write instead."""

    def __post_init__(self) -> None:
        for name in ("path", "message"):
            if len(text := getattr(self, name)) > MAX_DETAIL_CHARACTERS:
                object.__setattr__(self, name, f"{text[: MAX_DETAIL_CHARACTERS - 1]}\u2026")


class AlreadyProcessed(Exception):
    """The same request, by its Idempotency-Key, was processed before."""

    def __init__(self, resource_id: str) -> None:
        self.resource_id = resource_id
        super().__init__()


class SettingsError(Exception):
    """A setting is missing or not valid; the message says what to set, without the setting's value."""


class SchemaTooComplex(Exception):
    """Evaluating a schema takes more steps than its budget."""


class VoiceError(Exception):
    """An error that is returned to the caller, with up to MAX_DETAILS details."""

    status: ClassVar[int]
    code: ClassVar[str]
    default_message: ClassVar[str]
    retryable: ClassVar[bool] = False
    retry_after_seconds: float | None = None
    """Time to wait before a retry, if known."""
    next: int | None = None
    """Index of the turn to send next, for transcript errors."""

    def __init__(self, message: str | None = None, details: Iterable[ErrorDetail] = ()) -> None:
        self.message = message or self.default_message
        self.details = tuple(islice(details, MAX_DETAILS))
        super().__init__(self.message)


class InvalidRequest(VoiceError):
    """A field is missing, unknown, of the wrong type or out of bounds."""

    status = 400
    code = "invalid_request"
    default_message = "The request is not valid. Correct the fields named in details and send it again."


class TtlTooShort(InvalidRequest):
    """`ttl_seconds` is shorter than the time limit of the call."""

    code = "voice_session_ttl_too_short"

    def __init__(self, ttl_seconds: int, max_duration_seconds: int) -> None:
        super().__init__(
            f"ttl_seconds is {ttl_seconds}, but the call may last {max_duration_seconds} seconds. "
            f"Ask for a ttl_seconds of at least {max_duration_seconds}."
        )


class InvalidCursor(InvalidRequest):
    """The cursor was not returned by a list."""

    code = "invalid_cursor"
    default_message = "The cursor is not valid. Use the next_cursor of the previous page, or omit it to start over."


class InvalidOutputSchema(InvalidRequest):
    """The output schema cannot be used for extraction."""

    code = "invalid_output_schema"
    default_message = "The output schema cannot be used. Correct the places named in details and send it again."


class InvalidVariables(InvalidRequest):
    """A text names an unknown variable, or the values of a session do not fit the agent's variables."""

    code = "invalid_variables"
    default_message = "The variables do not fit the agent. Correct the places named in details and send it again."


class MissingApiKey(VoiceError):
    """The Authorization header has no bearer token."""

    status = 401
    code = "missing_api_key"
    default_message = 'Send your API key in the header "Authorization: Bearer pi_live_...".'


class InvalidApiKey(VoiceError):
    """The API key is malformed, unknown or revoked, or the client token is expired or not valid for this route."""

    status = 401
    code = "invalid_api_key"
    default_message = "The API key is mistyped, unknown or revoked. Check it, or ask your operator for another."


class InvalidWebhookSignature(VoiceError):
    """The webhook's signature is missing, expired or does not match the body."""

    status = 401
    code = "invalid_webhook_signature"
    default_message = (
        "The webhook's signature does not match. Sign the raw body with the key and secret "
        "that this deployment knows as LIVEKIT_WEBHOOK_API_KEY and LIVEKIT_WEBHOOK_API_SECRET."
    )


class AgentNotFound(VoiceError):
    """The agent does not exist in this workspace."""

    status = 404
    code = "voice_agent_not_found"
    default_message = "There is no such agent. List yours with GET /api/v1/voice/agents."


class AgentVersionNotFound(AgentNotFound):
    """The agent has no such version."""

    default_message = (
        "The agent has no such version. List its versions with GET /api/v1/voice/agents/{agent_id}/versions."
    )


class SessionNotFound(VoiceError):
    """The session does not exist in this workspace."""

    status = 404
    code = "voice_session_not_found"
    default_message = "There is no such session. List yours with GET /api/v1/voice/sessions."


class WebhookEndpointNotFound(VoiceError):
    """The webhook endpoint does not exist in this workspace."""

    status = 404
    code = "webhook_endpoint_not_found"
    default_message = "There is no such webhook endpoint. List yours with GET /api/v1/voice/webhook-endpoints."


class WebhookDeliveryNotFound(VoiceError):
    """The webhook endpoint has no such delivery."""

    status = 404
    code = "webhook_delivery_not_found"
    default_message = (
        "The webhook endpoint has no such delivery; the log has those of 30 days. "
        "List them with GET /api/v1/voice/webhook-endpoints/{endpoint_id}/deliveries."
    )


class ApiKeyNotFound(VoiceError):
    """The API key does not exist in this workspace."""

    status = 404
    code = "api_key_not_found"
    default_message = "There is no such API key in this workspace. List them with the ListApiKeys function."


class SessionNotActive(VoiceError):
    """The session has ended, was hung up or has expired."""

    status = 409
    code = "voice_session_not_active"
    default_message = "The session is not active any more. GET it to see how it ended."


class RenewalLimitReached(VoiceError):
    """The session was renewed as often as a session may be."""

    status = 409
    code = "renewal_limit_reached"
    default_message = "The session was renewed 20 times, which is the limit. Create another session."


class SessionActive(VoiceError):
    """The session has not ended."""

    status = 409
    code = "voice_session_active"
    default_message = "The session is still active. Complete it first, then delete it."


class SessionNotCompleted(VoiceError):
    """The session was never completed, so it has no transcript."""

    status = 409
    code = "voice_session_not_completed"
    default_message = "The session has no transcript. Complete it first."


class TranscriptGap(VoiceError):
    """Turns are missing between the saved ones and the sent ones."""

    status = 409
    code = "voice_transcript_gap"

    def __init__(self, next_turn: int) -> None:
        self.next = next_turn
        super().__init__(f"Turns are missing. Send turn {next_turn} and all turns after it.")


class TranscriptConflict(VoiceError):
    """A saved turn was sent again with a different text."""

    status = 409
    code = "voice_transcript_conflict"

    def __init__(self, number: int, next_turn: int) -> None:
        self.next = next_turn
        super().__init__(
            f"Turn {number} is already saved with a different text. Another client may be writing this transcript; "
            f"the next turn to send is {next_turn}."
        )


class AgentVersionConflict(VoiceError):
    """The agent's current version is not one of those in `If-Match`."""

    status = 409
    code = "agent_version_conflict"

    def __init__(self, version: int) -> None:
        super().__init__(
            f"The agent has changed: its current version is {version}. Get it, make your change again, and send it "
            f'with If-Match: "{version}".'
        )


class ToolCallInProgress(VoiceError):
    """Another request runs this tool call."""

    status = 409
    code = "tool_call_in_progress"
    default_message = "This tool call is in progress. Try again in a moment, with the same call_id, to get its answer."
    retryable = True


class IdempotencyInProgress(VoiceError):
    """Another request with this Idempotency-Key is in progress."""

    status = 409
    code = "idempotency_in_progress"
    default_message = "A request with this Idempotency-Key is in progress. Try again in a moment."
    retryable = True


class IdempotencyKeyReused(VoiceError):
    """The Idempotency-Key was used with another body."""

    status = 422
    code = "idempotency_key_reused"
    default_message = "This Idempotency-Key was used with another body. Use a new key for a new request."


class RequestTooLarge(VoiceError):
    """The body exceeds the limit of the route, in bytes or in values."""

    status = 413
    code = "request_too_large"

    def __init__(self, limit: int, unit: str = "bytes") -> None:
        super().__init__(f"The body is too large. Send at most {limit:,} {unit}.")


class TranscriptTooLarge(VoiceError):
    """The transcript exceeds a limit: turns, characters per turn or bytes."""

    status = 413
    code = "voice_transcript_too_large"
    default_message = "The transcript is too large. Shorten what details names and send it again."


class ToolCallsTooLarge(VoiceError):
    """The tool call, or all tool calls of the session, exceed a limit."""

    status = 413
    code = "request_too_large"
    default_message = "The tool call exceeds a limit of the session. Shorten what details names, or record no more."


class UnsupportedMediaType(VoiceError):
    """The Content-Type is not JSON in UTF-8."""

    status = 415
    code = "unsupported_media_type"
    default_message = 'Send the body as JSON in UTF-8, with the header "Content-Type: application/json".'


class RateLimited(VoiceError):
    """The caller exceeded its rate limit for requests of one kind."""

    status = 429
    code = "rate_limited"
    retryable = True

    def __init__(self, operation: str, per_minute: int, retry_after_seconds: float) -> None:
        super().__init__(
            f"The limit of {per_minute:,} {operation} per minute is reached. "
            "Wait for Retry-After seconds and try again."
        )
        self.retry_after_seconds = retry_after_seconds


class InternalError(VoiceError):
    """An unexpected error in Pi Voice."""

    status = 500
    code = "internal_error"
    default_message = "An unexpected error occurred. Try again; if it persists, report the request_id."
    retryable = True


class StorageError(InternalError):
    """An AWS request was refused, failed or timed out."""


class UnreadableRow(StorageError):
    """A stored row is broken, so that this version of the code cannot read it."""


class ProviderError(VoiceError):
    """A request to LiveKit or Gemini failed."""

    def __init__(self, message: str | None = None, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class LiveKitError(ProviderError):
    """LiveKit refused the request, or its response was not usable."""

    status = 502
    code = "livekit_error"
    default_message = "LiveKit refused the request. The operator should check LIVEKIT_URL and its key and secret."


class LiveKitUnavailable(ProviderError):
    """LiveKit is down, unreachable or busy."""

    status = 503
    code = "livekit_unavailable"
    default_message = "LiveKit cannot be reached or is busy. Try again in a moment."
    retryable = True


class GeminiError(ProviderError):
    """Gemini refused the request, or its response was not usable."""

    status = 502
    code = "gemini_error"
    default_message = "Gemini refused the request. The operator should check GEMINI_API_KEY and the model settings."


class GeminiMisconfigured(GeminiError):
    """Gemini refused the key, the permission or the model of this deployment. An operator has to correct it."""

    def __init__(self, cause: Misconfiguration) -> None:
        super().__init__()
        self.cause = cause


class GeminiUnavailable(ProviderError):
    """Gemini is down, unreachable or busy."""

    status = 503
    code = "gemini_unavailable"
    default_message = "Gemini cannot be reached or is busy. Try again in a moment."
    retryable = True


class UpstreamTimeout(ProviderError):
    """A provider did not respond in time."""

    status = 504
    code = "upstream_timeout"
    default_message = "A provider did not respond in time. Try again in a moment."
    retryable = True
