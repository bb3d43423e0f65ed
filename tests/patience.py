"""How long tests wait where all is well. What happens at a limit is tested by itself, with real silence."""

from typing import Final

LONG: Final = 120.0
"""More seconds than any machine needs for what takes milliseconds."""
