"""Time limits of tests without faults. Tests of the limits themselves use servers that do not respond."""

from typing import Any, Final

LONG: Final = 120.0
"""More seconds than any machine needs for an operation of milliseconds."""

PATIENT: Final[dict[str, Any]] = {"time_limit_seconds": LONG, "patience_seconds": 10 * LONG}
"""The limits of an AWS service that has to answer even on a slow machine."""
