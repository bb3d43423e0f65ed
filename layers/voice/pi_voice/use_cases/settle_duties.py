"""Change the duties of a session after they were done, or when they have a new time."""

from collections.abc import Callable
from typing import Final

from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import StorageError
from pi_voice.domain.sessions import Session, Tombstone
from pi_voice.ports import Sessions

_ATTEMPTS: Final = 5


async def settle_duties(
    sessions: Sessions, row: Session | Tombstone, change: Callable[[Duties], Duties]
) -> Session | Tombstone | None:
    """Change the duties, again with the current ones if they changed meanwhile; return the current row.

    None if there is no such row any more. Raises StorageError, also after five concurrent changes.
    """
    current: Session | Tombstone | None = row
    for _ in range(_ATTEMPTS):
        if current is None:
            return None
        after = change(current.duties)
        if after == current.duties:
            return current
        current = await sessions.set_duties(row.session_id, current.duties, after)
        if current is not None and current.duties == after:
            return current
    raise StorageError


async def remove_duty(sessions: Sessions, row: Session | Tombstone, name: str) -> Session | Tombstone | None:
    """Remove a duty that is done, unless it was set again since the row was written; return the current row."""
    done = row.duties.get(name)
    return await settle_duties(
        sessions, row, lambda duties: duties.without(name) if duties.get(name) == done else duties
    )
