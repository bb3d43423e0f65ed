"""SQS queue: make the webhook deliveries of the events that a session owes."""

from typing import Final

from pi_voice import container
from pi_voice.domain.ids import SessionId
from pi_voice.entrypoints.events import queue_handler

SECONDS: Final = 5.0  # for each of up to ten messages, of the function's 60

dispatch_events = container.dispatch_events()


async def handle(session_id: SessionId, _: bool) -> None:  # noqa: FBT001 (called by queue_handler)
    """Dispatch the events of one session."""
    await dispatch_events(session_id, SECONDS)


handler = queue_handler(handle, container.event_queue())
