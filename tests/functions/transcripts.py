"""A transcript, and the body that completes a session with it."""

from typing import Any, Final

TRANSCRIPT: Final = [
    {"role": "agent", "text": "For how many people?", "start_ms": 0, "end_ms": 1200},
    {"role": "user", "text": "For 4, please."},
    {"role": "agent", "text": "At what time?"},
    {"role": "user", "text": "At seven, ¿de acuerdo? 谢谢"},
]
ENDING: Final[dict[str, Any]] = {"transcript": TRANSCRIPT, "duration_seconds": 93.5, "end_reason": "client_timer"}
