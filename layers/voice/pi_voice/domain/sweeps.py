"""The result of the scheduled job."""

from pi_voice.domain.base import Document


class SweepSessionsResult(Document):
    """Result of the scheduled job: number of duties by what was done."""

    completed: int = 0
    """Sessions completed with their checkpoints."""
    failed: int = 0
    """Sessions failed because they had no checkpoints."""
    hung_up: int = 0
    """Calls hung up at their time limit."""
    rooms_closed: int = 0
    """Rooms closed of calls that had ended or been hung up."""
    queued: int = 0
    """Extractions queued again."""
    events_queued: int = 0
    """Sessions queued again whose events were not sent at once."""
    deleted: int = 0
    """Deleted sessions whose transcripts were deleted once more."""
    given_up: int = 0
    """Duties given up after their last try."""
    errors: int = 0
    """Duties that failed and will be tried again, and rows that could not be read."""
