"""Result of a run of the job that queues due deliveries."""

from pi_voice.domain.base import Document


class SweepDeliveriesResult(Document):
    """What one run of the job did."""

    queued: int = 0
    """Number of deliveries that were queued again."""
    left: int = 0
    """Number of deliveries that were left to a later run, because their endpoint has many, or hangs."""
    hanging: int = 0
    """Number of endpoints with due deliveries that hang; one is queued for each of up to 30 whose rest is over."""
    errors: int = 0
    """Number of deliveries that could not be queued; a later run tries again."""
