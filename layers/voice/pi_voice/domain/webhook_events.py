"""Events that outgoing webhooks deliver, and those that a session still owes."""

from typing import Final, Literal, NamedTuple, Self

from typing_extensions import TypeAliasType

from pi_voice.domain.ids import EventId, uuid7

SessionEventType = TypeAliasType(
    "SessionEventType",
    Literal["session.started", "session.completed", "session.failed", "extraction.succeeded", "extraction.failed"],
)
"""Type of an event of a session.

`session.started` is the first sign of life: a person joined, a turn was saved, or a tool was called.
"""

TEST: Final = "endpoint.test"
"""Type of the event that `POST /webhook-endpoints/{endpoint_id}/test` sends."""


class OwedEvent(NamedTuple):
    """An event of a session without deliveries yet; it is part of the write that changed the session's state."""

    event_id: EventId
    type: str
    at: int
    """When it happened, in Unix seconds."""

    @classmethod
    def new(cls, event_type: SessionEventType, now: float) -> Self:
        """Return a new event."""
        return cls(EventId(uuid7(lambda: now)), event_type, int(now))
