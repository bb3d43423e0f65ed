"""How long tests wait where all is well. What happens at a limit is tested by itself, with real silence."""

from typing import Any, Final

LONG: Final = 120.0
"""More seconds than any machine needs for what takes milliseconds."""

PATIENT: Final[dict[str, Any]] = {"time_limit_seconds": LONG, "patience_seconds": 10 * LONG}
"""The limits of an AWS service that is to answer, however slow the machine is."""
