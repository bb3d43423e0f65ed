"""Time limits of tests without faults. Tests of the limits themselves use servers that do not respond."""

from typing import Final

LONG: Final = 120.0
"""More seconds than any machine needs for an operation of milliseconds."""

DEADLINE: Final = 10 * LONG
"""Deadline of a request to AWS, retries included, that has to succeed even on a slow machine."""
