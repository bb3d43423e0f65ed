"""Deliveries of events to webhook endpoints, as stored."""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from typing_extensions import TypeAliasType

from pi_voice.domain.ids import DeliveryId, EndpointId, EventId, SessionId, WorkspaceId

DeliveryStatus = TypeAliasType("DeliveryStatus", Literal["pending", "succeeded", "failed", "cancelled"])
"""Status of a delivery. `cancelled`: its session was deleted, or its endpoint was deleted or disabled."""

RETENTION_SECONDS: Final = 30 * 86_400
"""How long the log of deliveries goes back."""

TRY_SECONDS: Final = 15.0
"""Time limit of a try, from the lookup of the host to the first kilobyte of the response."""

PAUSES: Final = (60, 300, 1_800, 7_200, 18_000, 28_800, 28_800)
"""Longest pause after each failed try but the last, in seconds: together about a day."""

MAX_TRIES: Final = len(PAUSES) + 1

SHORTEST_PAUSE: Final = 0.8
"""Shortest pause, as a part of the longest, so that deliveries that failed together are not repeated together."""

SETTLING_SECONDS: Final = 300
"""Time after the last try in which its outcome is recorded; without one, the delivery has failed."""

HELD_SECONDS: Final = 310
"""Shortest time for which a queued try is put off: SQS drops a repeated message of a try for five minutes."""

LIFE_SECONDS: Final = 3 * 86_400
"""Age at which a delivery fails instead of being put off again, because its endpoint hangs."""

DUE_SHARDS: Final = 16
"""Number of partitions of the index of due deliveries."""


class Try(NamedTuple):
    """One try of a delivery: how often it was delivered again on request, and how often it was tried since."""

    redeliveries: int
    tries: int


class Outcome(NamedTuple):
    """What came of a try."""

    status: DeliveryStatus
    http_status: int | None = None
    milliseconds: int | None = None
    error: str | None = None
    response: str | None = None


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
    """Number of tries that were begun, since it was last delivered again on request."""
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
    redeliveries: int = 0
    """Number of times that it was delivered again on request."""
    redelivered_at: int | None = None
    """When it was last delivered again on request."""

    def is_too_old_at(self, now: float) -> bool:
        """Return whether it was made, or delivered again on request, too long ago to be put off."""
        return now >= (self.redelivered_at or self.created_at) + LIFE_SECONDS

    @property
    def next_try(self) -> Try:
        """What a message in the queue stands for; it is out of date once another try was begun."""
        return Try(self.redeliveries, self.tries)

    @property
    def due_shard(self) -> int:
        """Partition of the index of due deliveries."""
        return int(self.event_id[-2:], 16) % DUE_SHARDS


def delivery_id(event_id: EventId, endpoint_id: EndpointId) -> DeliveryId:
    """Return the id of the delivery of an event to an endpoint: the same one each time, sorted by the event's time."""
    return DeliveryId(f"{event_id}.{endpoint_id}")


def due_after(tries: int, now: int, random: float) -> int:
    """Return when a delivery is due after a number of tries; `random` is between 0 and 1.

    After the last try it is due once more, in case that the worker ends without recording an outcome.
    """
    if tries >= MAX_TRIES:
        return now + SETTLING_SECONDS
    return now + round(PAUSES[tries - 1] * (SHORTEST_PAUSE + (1 - SHORTEST_PAUSE) * random))
