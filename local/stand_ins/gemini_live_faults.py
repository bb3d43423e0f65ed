"""Faults of the Live stand-in: what was reported of Google's service, and a client has to bear.

GEMINI_STAND_IN_LIVE is a list of names, separated by commas. Faults in the middle of a turn happen once a session, in
its second turn.
"""

from collections.abc import Mapping
from typing import Final

from local.errors import CannotStart

LIVE_FAULTS: Final = "GEMINI_STAND_IN_LIVE"

Faults = frozenset[str]
NO_FAULTS: Final = Faults()

FAULTS: Final[Mapping[str, str]] = {
    "sentences": "each sentence of the caller is transcribed in a message of its own",
    "late_speech": "the caller is transcribed at the end of the answer",
    "doubled_speech": "the caller is transcribed twice, at the beginning and at the end of the answer",
    "late_text": "the agent's last words arrive a moment after the end of each turn",
    "bundled": "transcriptions arrive with the audio or the end of a turn, in one message",
    "silent_greeting": "the first text of a session gets no answer",
    "go_away": "goAway arrives in the middle of a turn, 50 s before the end of the connection",
    "go_away_now": "goAway arrives in the middle of a turn, 5 s before the end of the connection",
    "drop": "the connection breaks in the middle of a turn, without a close code",
    "hang_up": "the connection is closed in the middle of a turn, with 1011",
    "resume_1011": "the first attempt to resume a session is refused with 1011",
    "resume_1007": "each attempt to resume a session is refused with 1007",
    "tool_cancelled": "the first function calls of a session are canceled after they were sent",
    "claims_tool": "instead of its first function calls in a session, the agent says that they are done",
}


def live_faults(environment: Mapping[str, str]) -> Faults:
    """Read GEMINI_STAND_IN_LIVE; raises CannotStart."""
    names = frozenset(name.strip() for name in environment.get(LIVE_FAULTS, "").split(",") if name.strip())
    if unknown := sorted(names - FAULTS.keys()):
        raise CannotStart(f"{LIVE_FAULTS} has {', '.join(unknown)}: give some of {', '.join(FAULTS)}.")
    return names
