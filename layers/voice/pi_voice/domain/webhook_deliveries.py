"""Deliveries of events to webhook endpoints, as stored."""

from dataclasses import dataclass
from typing import Final, Literal

from typing_extensions import TypeAliasType

from pi_voice.domain.ids import DeliveryId, EndpointId, EventId, SessionId, WorkspaceId

DeliveryStatus = TypeAliasType("DeliveryStatus", Literal["pending", "succeeded", "failed", "cancelled"])
"""Status of a delivery. `cancelled`: its session was deleted, or its endpoint was deleted or disabled."""

RETENTION_SECONDS: Final = 30 * 86_400
"""How long the log of deliveries goes back."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The delivery of one event to one endpoint. All instants are Unix seconds. It has no content of the session."""

    endpoint_id: EndpointId
    delivery_id: DeliveryId
    workspace: WorkspaceId
    event_id: EventId
    """Sent as `webhook-id`, the same over all tries."""
    type: str
    event_at: int
    """When the event happened: the `timestamp` of its body."""
    created_at: int
    session_id: SessionId | None = None
    status: DeliveryStatus = "pending"
    tries: int = 0
    due_at: int | None = None
    """When the next try is due; None once the status is final."""
    tried_at: int | None = None
    http_status: int | None = None
    """Status of the last response."""
    milliseconds: int | None = None
    """Duration of the last try."""
    error: str | None = None
    """Why the last try failed: a code."""
    response: str | None = None
    """First kilobyte of the last response; of `endpoint.test` only."""


def delivery_id(event_id: EventId, endpoint_id: EndpointId) -> DeliveryId:
    """Return the id of the delivery of an event to an endpoint: the same one each time, sorted by the event's time."""
    return DeliveryId(f"{event_id}.{endpoint_id}")
