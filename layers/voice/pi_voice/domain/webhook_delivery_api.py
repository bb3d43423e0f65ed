"""Response and query models of deliveries to webhook endpoints."""

from pi_voice.domain import webhook_deliveries
from pi_voice.domain.base import Document
from pi_voice.domain.ids import DeliveryId, EndpointId, EventId, SessionId
from pi_voice.domain.pagination import PageQuery
from pi_voice.domain.webhook_deliveries import DeliveryStatus


class ListWebhookDeliveriesQuery(PageQuery):
    """Query of GET /webhook-endpoints/{endpoint_id}/deliveries."""

    session_id: str | None = None
    """Only deliveries of this session's events."""


class WebhookDelivery(Document):
    """The delivery of one event or one tool call to one endpoint, without its content."""

    delivery_id: DeliveryId
    """Delivery id: the event's id, a dot, and the endpoint's id."""
    event_id: EventId
    """Event id, which is sent as `webhook-id`, the same at each try."""
    endpoint_id: EndpointId
    """Endpoint that receives the event."""
    type: str
    """Type of the event, or `tool.call`."""
    session_id: SessionId | None
    """Session of the event or call; null for `endpoint.test`."""
    status: DeliveryStatus
    """`pending`, `succeeded`, `failed` after the last try, or `cancelled`."""
    tries: int
    """Number of tries, up to 8, since the event was last redelivered. A tool call has one, or another after a crash."""
    created_at: int
    """When the delivery was created."""
    next_try_at: int | None
    """When the next try is due, unless it is in progress; null once the status is final."""
    tried_at: int | None
    """When the last try was begun."""
    http_status: int | None
    """HTTP status of the last response; null without one."""
    milliseconds: int | None
    """Duration of the last try in milliseconds."""
    error: str | None
    """Why the last try failed: `timeout`, `connection_failed`, `tls_failed`, `address_refused`, `redirected`,
    `http_error`, or `internal_error` for an error in Pi Voice; null if it did not.

    Of a tool call also `refused` (4xx with an object), `invalid_response` and `response_too_large`.
    """
    response: str | None
    """First kilobyte of the last response; only for `endpoint.test`."""

    @classmethod
    def of(cls, delivery: webhook_deliveries.Delivery) -> "WebhookDelivery":
        """Build the view of a stored delivery."""
        names = cls.model_fields.keys() - {"next_try_at"}
        tries_left = delivery.tries < webhook_deliveries.MAX_TRIES
        return cls.model_construct(
            **{name: getattr(delivery, name) for name in names},
            next_try_at=delivery.due_at if tries_left else None,
        )
