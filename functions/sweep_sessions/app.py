"""EventBridge schedule: end abandoned sessions, enforce call limits, re-queue lost extractions."""

from pi_voice import container
from pi_voice.domain.sweeps import SweepSessionsResult
from pi_voice.entrypoints.events import schedule_handler

sweep_sessions = container.sweep_sessions()


async def handle() -> SweepSessionsResult:
    """Process due sessions, and fail the invocation if some had errors, so that the alarm fires."""
    result = await sweep_sessions()
    if result.errors:
        message = f"{result.errors} sessions had errors; the next run retries them."
        raise RuntimeError(message)
    return result


handler = schedule_handler(handle)
