"""The transcript of a call, assembled from fragments.

Gemini sends transcriptions in fragments, in no fixed order relative to the audio or between the two speakers. The
caller's last words often arrive after the answer has begun. So the caller's turn stays open until the answer is
complete.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["agent", "user"]


@dataclass(slots=True)
class Turn:
    """One turn: speaker, text, and start and end in seconds since the call began."""

    role: Role
    text: str
    start: float
    end: float
    is_cut: bool = False

    @property
    def message(self) -> dict[str, Any]:
        """The turn as `POST /sessions/{session_id}/complete` takes it."""
        start_ms, end_ms = round(self.start * 1000), round(self.end * 1000)
        return {"role": self.role, "text": self.text.strip(), "start_ms": start_ms, "end_ms": end_ms}


class Transcript:
    """All turns of a call so far; `clock` returns the seconds since the call began."""

    def __init__(self, clock: Callable[[], float], on_turn: Callable[[Turn], None]) -> None:
        self.turns: list[Turn] = []
        self._clock = clock
        self._on_turn = on_turn
        self._open: dict[Role, Turn] = {}

    @property
    def unfinished(self) -> list[Turn]:
        """The turns in progress, by their start."""
        return sorted(self._open.values(), key=lambda turn: turn.start)

    def begin(self, role: Role) -> None:
        """Begin a speaker's turn, and complete their previous one."""
        self._close(role)
        self._open[role] = Turn(role, "", self._clock(), self._clock())

    def add(self, role: Role, fragment: str) -> None:
        """Add the next fragment of a speaker's turn."""
        if role not in self._open:
            self.begin(role)
        self._open[role].text += fragment
        self._open[role].end = self._clock()

    def end_agents_turn(self, *, is_cut: bool) -> None:
        """End the agent's turn and the caller's before it; after an interruption the caller's new turn stays open."""
        if agents := self._open.get("agent"):
            agents.is_cut, agents.end = is_cut, self._clock()
            for turn in self.unfinished:
                if turn.start <= agents.start:
                    self._close(turn.role)

    def end(self) -> None:
        """Complete the turns in progress at the end of the call."""
        for turn in self.unfinished:
            self._close(turn.role)

    def _close(self, role: Role) -> None:
        turn = self._open.pop(role, None)
        if turn and turn.text.strip():
            self.turns.append(turn)
            self._on_turn(turn)
