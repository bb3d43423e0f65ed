"""EventBridge schedule: queue the deliveries to webhook endpoints whose next try is due."""

from pi_voice import container
from pi_voice.domain.delivery_sweeps import SweepDeliveriesResult
from pi_voice.entrypoints.events import schedule_handler

sweep_deliveries = container.sweep_deliveries()


async def handle() -> SweepDeliveriesResult:
    """Queue due deliveries, and fail the invocation if some had errors, so that the alarm fires."""
    result = await sweep_deliveries()
    if result.errors:
        message = f"{result.errors} deliveries had errors; a later run retries them."
        raise RuntimeError(message)
    return result


handler = schedule_handler(handle)
