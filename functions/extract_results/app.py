"""The queue of extractions that did not work out while the caller of complete waited."""

from typing import Final

from pi_voice.ids import SessionId
from pi_voice.results import Budget
from pi_voice.wiring import results
from pi_voice.work import worker

SECONDS: Final = 60.0  # of the function's 90

calls = results()


async def extract_results(session_id: SessionId, is_last: bool) -> None:  # noqa: FBT001 (the worker's two facts)
    """Extract one session's results, unless they are there."""
    await calls.retry(session_id, Budget(SECONDS, is_last))


handler = worker(extract_results)
