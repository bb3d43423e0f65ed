"""Events that outgoing webhooks deliver, and those that a session owes.

A change of a session's state owes an event: the write of the change appends it to the row, with the duty to send it.
The functions of this module say which change owes which event.
"""

import time
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, Self

from typing_extensions import TypeAliasType

from pi_voice.domain.duties import Duties
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import EventId, uuid7

SessionEventType = TypeAliasType(
    "SessionEventType",
    Literal["session.started", "session.completed", "session.failed", "extraction.succeeded", "extraction.failed"],
)
"""Type of an event of a session.

`session.started` is the first sign of life: a person joined, a turn was saved, or a tool was called.
"""

EndStatus = Literal["completed", "failed"]
"""Status of a session that has ended."""

TEST: Final = "endpoint.test"
"""Type of the event that `POST /webhook-endpoints/{endpoint_id}/test` sends."""

TOOL_CALL: Final = "tool.call"
"""Type of the request to a webhook endpoint that runs a tool. It is no event: it is not repeated, and has an answer."""

MAX_OWED_EVENTS: Final = 50
"""Maximum number of events that a session owes. Further ones are not sent; only manual extractions can make so many."""

SWEEP_SECONDS: Final = 10
"""When the sweeper queues the events of a session, counted from the newest, unless they were sent before."""

_OF_STATUS: Final[Mapping[EndStatus, SessionEventType]] = {
    "completed": "session.completed",
    "failed": "session.failed",
}
_OF_EXTRACTION: Final[Mapping[str, SessionEventType]] = {
    "succeeded": "extraction.succeeded",
    "failed": "extraction.failed",
}


class OwedEvent(NamedTuple):
    """An event of a session without deliveries yet; it is part of the write that changed the session's state."""

    event_id: EventId
    type: str
    at: int
    """When it happened, in Unix seconds."""

    @classmethod
    def new(cls, event_type: SessionEventType, now: int) -> Self:
        """Return a new event. Its id has the time in milliseconds, so that events of one second stay in their order."""
        return cls(EventId(uuid7()), event_type, now)

    def duties_after(self, before: Duties) -> Duties:
        """Return the duties of a session that owes this event too."""
        return before.plus(send_events=self.at + SWEEP_SECONDS)


def event_of_first_sign(started_at: int | None, now: int) -> OwedEvent | None:
    """Return the event of a sign of life, given when the first one was; None if this is not the first."""
    return OwedEvent.new("session.started", now) if started_at is None else None


def event_of_end(status: EndStatus, now: int) -> OwedEvent:
    """Return the event of the end of a session."""
    return OwedEvent.new(_OF_STATUS[status], now)


def event_of_extraction(before: Extraction | None, after: Extraction) -> OwedEvent | None:
    """Return the event of a stored extraction; None if it is not final, or only its history changed.

    A manual extraction that failed is such a history: it does not replace results.
    """
    event_type = _OF_EXTRACTION.get(after.status)
    if event_type is None or (before is not None and before.model_copy(update={"runs": after.runs}) == after):
        return None
    return OwedEvent.new(event_type, int(time.time()) if after.extracted_at is None else after.extracted_at)
