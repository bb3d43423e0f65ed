"""Duties of a session: work that must follow a change of its state, each with its own time and number of tries.

A change of state and its duties are one write, so that the work is done even if the function dies. The function does
the work at once where it can, and removes the duty. Otherwise the sweeper does it when the duty is due. It claims a
duty before it performs it, so even a process that is killed at every try runs out of tries.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

DutyName = Literal["end_call", "hang_up", "close_room", "extract", "delete_again", "send_events"]
"""Name of a duty.

`end_call`: complete the session with its checkpoints, or fail it. `hang_up`: end a call at its time limit.
`close_room`: close the LiveKit room. `extract`: queue the extraction. `delete_again`: delete what a racing request
wrote after the session was deleted. `send_events`: queue the session, so that its events are sent.
"""


class Duty(NamedTuple):
    """When a duty is due, in Unix seconds, and how often it was tried."""

    due_at: int
    tries: int = 0


class Backoff(NamedTuple):
    """Pauses after a try in seconds, doubled from the first to the longest, and the maximum number of tries."""

    first_seconds: int
    longest_seconds: int
    max_tries: int

    def after(self, tries: int) -> int:
        """Return the pause after a number of tries."""
        return int(min(self.first_seconds * 2 ** (tries - 1), self.longest_seconds))


_A_DAY_OF_TRIES: Final = Backoff(first_seconds=60, longest_seconds=3_600, max_tries=30)

BACKOFF: Final[Mapping[str, Backoff]] = {
    "end_call": _A_DAY_OF_TRIES,
    "hang_up": _A_DAY_OF_TRIES,
    "close_room": _A_DAY_OF_TRIES,
    # Fewer, because each one is followed by the retries of the queue.
    "extract": Backoff(first_seconds=60, longest_seconds=3_600, max_tries=10),
    "delete_again": _A_DAY_OF_TRIES,
    "send_events": _A_DAY_OF_TRIES,
}


class Duties(NamedTuple):
    """The duties of one session by name. Names that a newer version wrote are kept, and left to it."""

    by_name: Mapping[str, Duty] = MappingProxyType({})

    @property
    def due_at(self) -> int | None:
        """The earliest time of a duty; None if there are none."""
        return min((duty.due_at for duty in self.by_name.values()), default=None)

    def get(self, name: str) -> Duty | None:
        """Return a duty, if there is one of this name."""
        return self.by_name.get(name)

    def due(self, now: int) -> list[str]:
        """Return the names of the duties that are due, those of newer versions included."""
        return [name for name, duty in self.by_name.items() if duty.due_at <= now]

    def plus(self, **due_at: int) -> "Duties":
        """Return the duties with new ones, which have not been tried."""
        return Duties({**self.by_name, **{name: Duty(at) for name, at in due_at.items()}})

    def moved(self, name: str, due_at: int) -> "Duties":
        """Return the duties with another time of one of them; its number of tries stays."""
        return Duties({**self.by_name, name: self.by_name.get(name, Duty(due_at))._replace(due_at=due_at)})

    def without(self, *names: str) -> "Duties":
        """Return the duties without those of some names."""
        return Duties({name: duty for name, duty in self.by_name.items() if name not in names})

    def claimed(self, name: str, now: int) -> "Duties":
        """Return the duties with one more try of one of them, and its next time if that try fails."""
        tries = self.by_name[name].tries + 1
        backoff = BACKOFF.get(name, _A_DAY_OF_TRIES)
        return Duties({**self.by_name, name: Duty(now + backoff.after(tries), tries)})

    def is_exhausted(self, name: str) -> bool:
        """Return whether a duty has had its maximum number of tries."""
        return name in BACKOFF and self.by_name[name].tries >= BACKOFF[name].max_tries
