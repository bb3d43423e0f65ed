"""Bodies of the requests to webhook endpoints."""

from typing import Any, Final, Literal

from pydantic import ConfigDict, JsonValue

from pi_voice.domain import session_api, sessions
from pi_voice.domain.base import Document
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import EndpointId
from pi_voice.domain.tool_calls import ToolCall
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.domain.webhook_deliveries import Delivery
from pi_voice.domain.webhook_endpoints import WebhookEndpoint
from pi_voice.domain.webhook_events import SessionEventType

TRANSCRIPT: Final = "transcript"
RESULTS: Final = "results"
_PARTS: Final = {TRANSCRIPT: ("transcript", "tool_calls"), RESULTS: ("results",)}
"""Fields of a session that are sent only to an endpoint that includes them."""


def _with_optional_parts(schema: dict[str, Any]) -> None:
    """Say in the reference that an event has the parts of the session that its endpoint includes."""
    optional = {name for names in _PARTS.values() for name in names}
    schema["required"] = [name for name in schema["required"] if name not in optional]


class EventSession(session_api.Session):
    """A session when the event is sent, which may be later than the event. It may have changed since."""

    model_config = ConfigDict(json_schema_extra=_with_optional_parts)

    transcript: list[TranscriptTurn] | None
    """Turns of the call, null until the session is completed; only if the endpoint includes `transcript`."""
    tool_calls: list[ToolCall]
    """Tool calls in the order in which they were recorded; only if the endpoint includes `transcript`."""
    results: JsonValue
    """Results in the agent's output schema, null if there are none; only if the endpoint includes `results`."""
    extraction: Extraction | None
    """State and cost of the extraction; null until the session is completed. Without `results`, its fields and runs
    and the details of its error are left out."""


class SessionEvent(Document):
    """Body of a request to a webhook endpoint: an event of a session."""

    type: SessionEventType
    """Type of the event."""
    timestamp: int
    """When the event happened."""
    data: EventSession
    """The session when the event is sent."""


class EndpointTest(Document):
    """The endpoint that is tested."""

    endpoint_id: EndpointId
    """Endpoint id."""


class EndpointTestEvent(Document):
    """Body of a request to a webhook endpoint: a test that you asked for."""

    type: Literal["endpoint.test"]
    """Type of the event."""
    timestamp: int
    """When the test was asked for."""
    data: EndpointTest
    """The endpoint that is tested."""


def endpoint_test_body(delivery: Delivery) -> bytes:
    """Return the body of a test."""
    data = EndpointTest(endpoint_id=delivery.endpoint_id)
    event = EndpointTestEvent(type="endpoint.test", timestamp=delivery.event_at, data=data)
    return event.model_dump_json().encode()


def session_event_body(
    delivery: Delivery,
    endpoint: WebhookEndpoint,
    session: sessions.Session,
    transcript: list[TranscriptTurn] | None,
    tool_calls: list[ToolCall],
) -> bytes:
    """Return the body of an event of a session, with the parts of the session that the endpoint includes."""
    left_out = {name for part, names in _PARTS.items() if part not in endpoint.include for name in names}
    fields = dict(session_api.Session.of_stored(session, transcript, tool_calls))
    if RESULTS not in endpoint.include and session.extraction is not None:
        fields["extraction"] = without_content(session.extraction)
    data = EventSession.model_construct(**fields)
    event = SessionEvent.model_construct(
        type=delivery.type,  # type: ignore[arg-type]  # a type of another version is sent as well
        timestamp=delivery.event_at,
        data=data,
    )
    return event.model_dump_json(exclude={"data": left_out}).encode()


def without_content(extraction: Extraction) -> Extraction:
    """Return an extraction without what was said: evidence, earlier results, and details that may quote values."""
    error = extraction.error and extraction.error.model_copy(update={"details": []})
    return extraction.model_copy(update={"fields": None, "runs": [], "error": error})
