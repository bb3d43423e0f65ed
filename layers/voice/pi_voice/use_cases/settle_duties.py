"""Change the duties of a session after they were done, or when they have a new time."""

from collections.abc import Callable
from typing import Final

from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import StorageError
from pi_voice.domain.sessions import Session, Tombstone
from pi_voice.ports import Sessions

_ATTEMPTS: Final = 5

Row = Session | Tombstone
Change = Callable[[Duties], Duties]


async def settle_duties(sessions: Sessions, row: Row, change: Change) -> Row | None:
    """Change the duties, again with the current ones if they changed meanwhile; return the current row.

    A tombstone is deleted with its last duty. None if there is no such row any more. Raises StorageError, also after
    five concurrent changes.
    """
    current: Row | None = row
    for _ in range(_ATTEMPTS):
        if current is None:
            return None
        after = change(current.duties)
        if after == current.duties:
            return current
        if isinstance(current, Tombstone) and not after.by_name:
            await sessions.forget(current)
            return None
        current = await sessions.set_duties(row.session_id, current.duties, after)
        if current is not None and current.duties == after:
            return current
    raise StorageError


def duty_done(row: Row, name: str) -> Change:
    """Return the change that removes a duty, unless it was set again since the row was written."""
    done = row.duties.get(name)
    return lambda duties: duties.without(name) if duties.get(name) == done else duties


def room_closed(row: Row, closed_at: int) -> Change:
    """Return the change after the room was closed, with the time at which the request to close it began.

    A token can open the room again until it expires, and LiveKit may lose the webhook of that join. So the room is
    closed once more when all tokens have expired.
    """
    done = row.duties.get("close_room")
    if closed_at >= row.tokens_end_at:
        return duty_done(row, "close_room")
    again_at = row.tokens_end_at
    return lambda duties: duties.plus(close_room=again_at) if duties.get("close_room") == done else duties
