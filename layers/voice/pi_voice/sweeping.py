"""Sweeping: what nobody else has done is done on a schedule, so that no call stays half-ended for good."""

import asyncio
import random
import time
from typing import Final

from pi_voice.completion import SWEEPER, Closing
from pi_voice.documents import Document
from pi_voice.errors import ProviderError, SessionNotActive, VoiceError
from pi_voice.hanging_up import HangingUp
from pi_voice.ids import Clock, SessionId
from pi_voice.logs import logger, trace
from pi_voice.ports import ExtractionQueue, Sessions
from pi_voice.results import QUEUED_SECONDS
from pi_voice.sessions import SHARDS, Ending, Problem, Session

BUDGET_SECONDS: Final = 45.0
"""What one run may take; what is left over is still due at the next."""

_SIDE_BY_SIDE: Final = 8
_EXPIRED: Final = Problem(
    code="expired", message="The session was never completed, and no turn of it was sent while the call went on."
)


class Swept(Document):
    """What one run did, by kind."""

    completed: int = 0
    """Sessions that ended with the turns that were kept."""
    failed: int = 0
    """Sessions of which nothing was kept."""
    hung_up: int = 0
    """Calls over their cap, and rooms that may still have been open."""
    queued: int = 0
    """Extractions that were left behind."""
    errors: int = 0
    """What did not work, and is tried again by the next run."""


class Sweeping:
    """Does what is due. Every step is conditional, so two runs at once do nothing twice."""

    def __init__(
        self,
        sessions: Sessions,
        closing: Closing,
        hanging_up: HangingUp,
        queue: ExtractionQueue,
        clock: Clock = time.time,
    ) -> None:
        self._sessions = sessions
        self._closing = closing
        self._hanging_up = hanging_up
        self._queue = queue
        self._clock = clock

    async def sweep(self) -> Swept:
        """Do all that is due, shard by shard, as far as the time allows; what fails is left for the next run."""
        deadline = self._clock() + BUDGET_SECONDS
        counts = dict.fromkeys(Swept.model_fields, 0)
        for shard in random.sample(range(SHARDS), SHARDS):  # so that a full one does not always come before the others
            waiting: list[SessionId] = []
            async for session_id in self._sessions.due(shard, int(self._clock())):
                waiting.append(session_id)
                if len(waiting) == _SIDE_BY_SIDE:
                    await self._all(waiting, counts)
                    waiting = []
                if self._clock() >= deadline:
                    break
            await self._all(waiting, counts)
            if self._clock() >= deadline:
                logger.warning("the sweeper ran out of time", shard=shard)
                break
        swept = Swept(**counts)
        log = logger.info if any(counts.values()) else logger.debug
        log("swept", **swept.model_dump())
        return swept

    async def _all(self, session_ids: list[SessionId], counts: dict[str, int]) -> None:
        for done in await asyncio.gather(*map(self._one, session_ids)):
            if done:
                counts[done] += 1

    async def _one(self, session_id: SessionId) -> str | None:
        """Do what is due for one session and name it; one that fails must not keep the others waiting."""
        try:
            session = await self._sessions.get(session_id)
            return await self._see_to(session) if session else None
        except SessionNotActive:
            return None  # somebody else was faster
        except VoiceError as error:
            logger.error("sweeping failed", session_id=session_id, code=error.code)
        except Exception as error:  # noqa: BLE001 (a broken row must not stop the sweeper)
            logger.error("sweeping broke", session_id=session_id, **trace(error))
        return "errors"

    async def _see_to(self, session: Session) -> str | None:
        now = int(self._clock())
        if session.due_at is None or session.due_at > now:
            return None  # the index is a little behind the table
        if session.status == "active":
            return await self._see_to_active(session, now)
        return await self._see_to_ended(session, now)

    async def _see_to_active(self, session: Session, now: int) -> str | None:
        if now >= session.given_up_at:
            return await self._give_up(session, now)
        if session.hung_up_at is not None:  # and its room could not be closed then
            await self._hanging_up.hang_up(session, session.end_reason or "stopped")
            return "hung_up"
        if session.cap_ends_at is not None and now >= session.cap_ends_at:
            await self._hanging_up.hang_up(session, "cap")
            return "hung_up"
        await self._sessions.schedule(session, session.next_due_at)
        return None

    async def _give_up(self, session: Session, now: int) -> str:
        """End a session that nobody completed: with what was kept, or for good. Whoever is still there goes."""
        if session.checkpoint_turns:
            ended, _ = await self._closing.end(session, Ending(end_reason="expired"), completed_by=SWEEPER)
            await self._see_to_ended(ended, now)
            return "completed"
        failed = await self._sessions.fail(session.failed(_EXPIRED, "expired", now, due_at=now))
        if failed is None:
            raise SessionNotActive
        await self._see_to_ended(failed, now)
        return "failed"

    async def _see_to_ended(self, session: Session, now: int) -> str:
        """Have a pending extraction done, and the room closed: the process that was to do it has died, most likely.

        A LiveKit that is away keeps no results waiting. It is asked again until the session would be given up.
        """
        is_pending = session.extraction is not None and session.extraction.status == "pending"
        if is_pending:
            await self._queue.put(session.session_id)
        is_closed = await self._close_room(session)
        if is_pending:
            await self._sessions.schedule(session, now + QUEUED_SECONDS)
            return "queued"
        if not is_closed and now < session.given_up_at:
            return "errors"
        await self._sessions.schedule(session, None)
        return "hung_up"

    async def _close_room(self, session: Session) -> bool:
        """Hang up whoever is still there, and tell whether that worked."""
        try:
            await self._hanging_up.close_room(session.session_id)
        except ProviderError as error:
            logger.warning("a room could not be closed", session_id=session.session_id, code=error.code)
            return False
        return True
