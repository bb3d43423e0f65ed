"""Scheduled job: end abandoned sessions, enforce call limits, re-queue lost extractions."""

import asyncio
import time
from typing import Final

from pi_voice.domain.errors import ProviderError, SessionNotActive, VoiceError
from pi_voice.domain.extractions import ErrorInfo
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.session_api import CompleteSessionRequest, SweepSessionsResult
from pi_voice.domain.sessions import Session
from pi_voice.logs import exception_fields, logger
from pi_voice.ports import ExtractionQueue, Sessions
from pi_voice.use_cases.end_session import SWEEPER, EndSession
from pi_voice.use_cases.extract_results import QUEUED_SECONDS
from pi_voice.use_cases.stop_session import StopSession

BUDGET_SECONDS: Final = 45.0
"""Time limit of one run. Sessions not reached are still due in the next run."""

_CONCURRENCY: Final = 8
_EXPIRED: Final = ErrorInfo(
    code="expired", message="The session was never completed, and no turn was saved during the call."
)


class SweepSessions:
    """Processes due sessions. Every write is conditional, so concurrent runs do nothing twice."""

    def __init__(
        self,
        sessions: Sessions,
        end_session: EndSession,
        stop_session: StopSession,
        queue: ExtractionQueue,
        clock: Clock = time.time,
    ) -> None:
        self._sessions = sessions
        self._end_session = end_session
        self._stop_session = stop_session
        self._queue = queue
        self._clock = clock

    async def __call__(self) -> SweepSessionsResult:
        """Process due sessions within the time limit. Sessions with an error stay due."""
        now = self._clock()
        deadline = now + BUDGET_SECONDS
        counts = dict.fromkeys(SweepSessionsResult.model_fields, 0)
        async for page in self._sessions.due(int(now)):
            for start in range(0, len(page), _CONCURRENCY):
                await self._process_batch(page[start : start + _CONCURRENCY], counts)
                if self._clock() >= deadline:
                    break
            if self._clock() >= deadline:
                logger.warning("sweep_out_of_time")
                break
        result = SweepSessionsResult(**counts)
        log = logger.info if any(counts.values()) else logger.debug
        log("sweep", **result.model_dump())
        return result

    async def _process_batch(self, session_ids: list[SessionId], counts: dict[str, int]) -> None:
        for outcome in await asyncio.gather(*map(self._process, session_ids)):
            if outcome:
                counts[outcome] += 1

    async def _process(self, session_id: SessionId) -> str | None:
        """Process one session and return the counter to increment. An error does not affect other sessions."""
        try:
            session = await self._sessions.get(session_id)
            return await self._process_due(session) if session else None
        except SessionNotActive:
            return None  # a concurrent request ended it
        except VoiceError as error:
            logger.error("sweep_failed", session_id=session_id, code=error.code)
        except Exception as error:  # noqa: BLE001 (a malformed row must not stop the sweeper)
            logger.error("sweep_failed", session_id=session_id, **exception_fields(error))
        return "errors"

    async def _process_due(self, session: Session) -> str | None:
        now = int(self._clock())
        if session.due_at is None or session.due_at > now:
            return None  # the index lags behind the table
        if session.status == "active":
            return await self._process_active(session, now)
        return await self._process_ended(session, now)

    async def _process_active(self, session: Session, now: int) -> str | None:
        if now >= session.abandoned_at:
            return await self._end_abandoned(session, now)
        if session.hung_up_at is not None:  # its room could not be closed at the hang-up
            await self._stop_session.hang_up(session, session.end_reason or "stopped")
            return "hung_up"
        if session.cap_ends_at is not None and now >= session.cap_ends_at:
            await self._stop_session.hang_up(session, "cap")
            return "hung_up"
        await self._sessions.schedule(session, session.next_due_at)
        return None

    async def _end_abandoned(self, session: Session, now: int) -> str:
        """Complete a session with its checkpoints, or fail it if it has none, and close its room."""
        if session.checkpoint_turns:
            expired = CompleteSessionRequest(end_reason="expired")
            ended, _ = await self._end_session(session, expired, completed_by=SWEEPER)
            await self._process_ended(ended, now)
            return "completed"
        failed = await self._sessions.fail(session.failed(_EXPIRED, "expired", now, due_at=now))
        if failed is None:
            raise SessionNotActive
        await self._process_ended(failed, now)
        return "failed"

    async def _process_ended(self, session: Session, now: int) -> str:
        """Queue a pending extraction and close the room: the function that ended the session probably crashed.

        An unreachable LiveKit does not delay results. The close is retried until the session's grace time is over.
        """
        is_pending = session.extraction is not None and session.extraction.status == "pending"
        if is_pending:
            await self._queue.put(session.session_id)
        is_closed = await self._close_room(session)
        if is_pending:
            await self._sessions.schedule(session, now + QUEUED_SECONDS)
            return "queued"
        if not is_closed and now < session.abandoned_at:
            return "errors"
        await self._sessions.schedule(session, None)
        return "hung_up"

    async def _close_room(self, session: Session) -> bool:
        """Close the room and return whether it worked."""
        try:
            await self._stop_session.close_room(session.session_id)
        except ProviderError as error:
            logger.warning("room_not_closed", session_id=session.session_id, code=error.code)
            return False
        return True
