"""Queue a session that owes events, so that they are sent at once and not by the sweeper."""

import asyncio
from typing import Final

from pi_voice.domain.ids import SessionId
from pi_voice.logs import exception_fields, logger
from pi_voice.ports import SessionQueue

QUEUE_SECONDS: Final = 2.0
"""Time limit for queueing, because a caller may be waiting."""

PAUSE_SECONDS: Final = 2
"""Pause before a message is delivered that is sent beside the write of its event, so that the write is first."""


async def queue_events(queue: SessionQueue, session_id: SessionId, delay_seconds: int = 0) -> None:
    """Queue a session whose row owes events. Never raises: the sweeper queues it if this fails."""
    try:
        async with asyncio.timeout(QUEUE_SECONDS):
            await queue.put(session_id, delay_seconds)
    except Exception as error:  # noqa: BLE001 (the change is stored, and the response must say so)
        logger.error("events_not_queued", session_id=session_id, **exception_fields(error))
