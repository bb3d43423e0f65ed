"""SQS queue: extract results that complete_session did not obtain in time."""

from typing import Final

from pi_voice import container
from pi_voice.domain.ids import SessionId
from pi_voice.entrypoints.events import queue_handler

SECONDS: Final = 60.0  # of the function's 90

extract_results = container.extract_results()


async def handle(session_id: SessionId, is_last: bool) -> None:  # noqa: FBT001 (called by queue_handler)
    """Extract the results of one session."""
    await extract_results(session_id, SECONDS, is_last=is_last)


handler = queue_handler(handle, container.extraction_queue())
