"""The schedule: what nobody else has done is done."""

from pi_voice.sweeping import Swept
from pi_voice.wiring import sweeping
from pi_voice.work import scheduled

sessions = sweeping()


async def sweep_sessions() -> Swept:
    """End sessions that nobody completed, hang up calls over their cap, have extractions done that were left."""
    swept = await sessions.sweep()
    if swept.errors:  # for the alarm, which only hears of runs that fail
        message = f"{swept.errors} sessions could not be seen to; the next run tries again."
        raise RuntimeError(message)
    return swept


handler = scheduled(sweep_sessions)
