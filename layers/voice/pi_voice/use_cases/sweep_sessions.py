"""Scheduled job: perform due duties, such as ending abandoned calls, closing rooms and queueing extractions."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import InternalError, SessionNotActive, StorageError, UnreadableRow, VoiceError
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.sweeps import SweepSessionsResult
from pi_voice.domain.transcript_api import CompleteSessionRequest
from pi_voice.logs import exception_fields, logger
from pi_voice.metrics import count
from pi_voice.ports import DueSession, Rooms, SessionQueues, Sessions, Transcripts
from pi_voice.use_cases.end_session import SWEEPER, EndSession
from pi_voice.use_cases.extract_results import QUEUED_SECONDS
from pi_voice.use_cases.settle_duties import Row, duty_done, room_closed, settle_duties
from pi_voice.use_cases.stop_session import StopSession

BUDGET_SECONDS: Final = 30.0
"""Time after which a run starts nothing more, so that what it started ends in time. The next run does the rest."""

PUT_OFF_SECONDS: Final = 3_600
"""Pause before a row that cannot be read, or a duty that this version does not know, is looked at again."""

_CONCURRENT_READS: Final = 16
_CONCURRENT_DUTIES: Final = 8
_MAX_WAITING: Final = 1_000
_ATTEMPTS: Final = 5
_EXPIRED: Final = ErrorInfo(
    code="expired", message="The session was never completed, and no turn was saved during the call."
)
_GIVEN_UP: Final = ErrorInfo(
    code=InternalError.code, message="The extraction failed at every try. Extract the results again."
)


class _Lane:
    """One kind of duty with its own limits, so that a service that hangs delays only its own duties."""

    def __init__(self, perform: Callable[[Row], Awaitable[str | None]]) -> None:
        self.perform = perform
        self.slots = asyncio.Semaphore(_CONCURRENT_DUTIES)
        self.waiting = 0


class _Run:
    """One run of the sweeper."""

    def __init__(self, clock: Clock, lanes: Mapping[str, _Lane]) -> None:
        self._clock = clock
        self._ends_at = clock() + BUDGET_SECONDS
        self.lanes = lanes
        self.counts: Counter[str] = Counter()

    @property
    def is_over(self) -> bool:
        """Whether nothing more may start."""
        return self._clock() >= self._ends_at


class SweepSessions:
    """Performs due duties. It claims each one first; of runs that claim it in the same second both may perform it."""

    def __init__(  # noqa: PLR0913 (one per kind of duty)
        self,
        sessions: Sessions,
        transcripts: Transcripts,
        end_session: EndSession,
        stop_session: StopSession,
        rooms: Rooms,
        queues: SessionQueues,
        *,
        clock: Clock = time.time,
    ) -> None:
        self._sessions = sessions
        self._transcripts = transcripts
        self._end_session = end_session
        self._stop_session = stop_session
        self._rooms = rooms
        self._queues = queues
        self._clock = clock

    async def __call__(self) -> SweepSessionsResult:
        """Perform what is due within the time limit. A duty that fails is due again after a pause.

        Raises StorageError if the index of due sessions cannot be read, after what was started has ended.
        """
        lanes = {
            "end_call": _Lane(self._end_call),
            "hang_up": _Lane(self._hang_up),
            "close_room": _Lane(self._close_room),
            "extract": _Lane(self._extract),
            "delete_again": _Lane(self._delete_again),
            "send_events": _Lane(self._send_events),
        }
        run = _Run(self._clock, lanes)
        failure: StorageError | None = None
        async with asyncio.TaskGroup() as tasks:
            try:
                await self._start_all(run, tasks)
            except StorageError as error:
                failure = error
        result = SweepSessionsResult(**run.counts)
        log = logger.info if run.counts else logger.debug
        log("sweep", **result.model_dump())
        if failure is not None:
            raise failure
        return result

    async def _start_all(self, run: _Run, tasks: asyncio.TaskGroup) -> None:
        async for page in self._sessions.due(int(self._clock())):
            for start in range(0, len(page), _CONCURRENT_READS):
                batch = page[start : start + _CONCURRENT_READS]
                await asyncio.gather(*(self._start(run, tasks, due) for due in batch))
                if run.is_over:
                    logger.warning("sweep_out_of_time")
                    return

    async def _start(self, run: _Run, tasks: asyncio.TaskGroup, due: DueSession) -> None:
        """Read the duties of a row and start those that are due. A full lane leaves its duty to the next run."""
        try:
            duties = await self._duties(due)
            for name in duties.due(int(self._clock())):
                lane = run.lanes.get(name)
                if lane is None:
                    await self._leave_to_newer_version(due.session_id, duties, name)
                elif lane.waiting < _MAX_WAITING:
                    lane.waiting += 1
                    tasks.create_task(self._perform(run, lane, due.session_id, duties, name))
        except StorageError as error:  # one row must not stop the others
            logger.error("sweep_failed", session_id=due.session_id, error=type(error).__name__)
            run.counts["errors"] += 1

    async def _duties(self, due: DueSession) -> Duties:
        try:
            return await self._sessions.duties(due.session_id) or Duties()
        except UnreadableRow:
            if not await self._sessions.put_off(due, int(self._clock()) + PUT_OFF_SECONDS):
                _log_given_up(due.session_id, "unreadable")
                await self._sessions.put_off(due, None)
            raise

    async def _leave_to_newer_version(self, session_id: SessionId, duties: Duties, name: str) -> None:
        logger.warning("duty_unknown", session_id=session_id, duty=name)
        later = duties.moved(name, int(self._clock()) + PUT_OFF_SECONDS)
        await self._sessions.set_duties(session_id, duties, later)

    async def _perform(self, run: _Run, lane: _Lane, session_id: SessionId, duties: Duties, name: str) -> None:
        """Claim a duty, perform it, and count what was done. An error does not affect other duties."""
        async with lane.slots:
            lane.waiting -= 1
            if run.is_over:
                return
            outcome: str | None = "errors"
            try:
                row = await self._claim(session_id, duties, name)
                if row is None:
                    return
                outcome = await (self._give_up(row, name) if duties.is_exhausted(name) else lane.perform(row))
            except SessionNotActive:
                return  # a concurrent request ended it
            except VoiceError as error:
                logger.error("duty_failed", session_id=session_id, duty=name, code=error.code)
            except Exception as error:  # noqa: BLE001 (a defect in one duty must not stop the others)
                logger.error("duty_failed", session_id=session_id, duty=name, **exception_fields(error))
        if outcome:
            run.counts[outcome] += 1

    async def _claim(self, session_id: SessionId, duties: Duties, name: str) -> Row | None:
        """Count one more try and set the time of the next; return the row. None if the duty changed meanwhile."""
        seen = duties.get(name)
        for _ in range(_ATTEMPTS):
            claimed = duties.claimed(name, int(self._clock()))
            row = await self._sessions.set_duties(session_id, duties, claimed)
            if row is None or row.duties == claimed:
                return row
            if row.duties.get(name) != seen:
                return None
            duties = row.duties  # another duty changed
        return None

    async def _remove(self, row: Row, name: str) -> None:
        """Remove a claimed duty that is done."""
        await settle_duties(self._sessions, row, duty_done(row, name))

    async def _give_up(self, row: Row, name: str) -> str:
        """Give up a duty visibly: a failed extraction has a status and a reason, and an alarm counts the log line."""
        _log_given_up(row.session_id, name)
        if name == "extract" and isinstance(row, Session) and _is_pending(row):
            failed = Extraction(status="failed", error=_GIVEN_UP, extracted_at=int(self._clock())).after(row.extraction)
            await self._sessions.save_extraction(row, None, failed, lambda duties: duties.without("extract"))
        else:
            await self._remove(row, name)
        return "given_up"

    # ---- Duties ----

    async def _end_call(self, row: Row) -> str | None:
        """Complete an abandoned session with its checkpoints, or fail it if it has none."""
        now = int(self._clock())
        if not isinstance(row, Session) or row.status != "active":
            await self._remove(row, "end_call")
            return None
        if now < row.abandoned_at:  # renewed since the duty was set
            await settle_duties(self._sessions, row, lambda duties: duties.plus(end_call=row.abandoned_at))
            return None
        if row.checkpoint_turns:
            await self._end_session(row, CompleteSessionRequest(end_reason="expired"), completed_by=SWEEPER)
            return "completed"
        if await self._sessions.fail(row, row.failed(_EXPIRED, "expired", now), close_room_at=now) is None:
            raise SessionNotActive
        return "failed"

    async def _hang_up(self, row: Row) -> str | None:
        """Hang up a call that is over its time limit, or over an hour without one."""
        if isinstance(row, Session) and row.is_ongoing and row.call_ends_at is not None:
            await self._stop_session.hang_up(row, "expired" if row.max_duration_seconds is None else "cap")
            return "hung_up"
        await self._remove(row, "hang_up")
        return None

    async def _close_room(self, row: Row) -> str:
        """Close the room of a call that ended or was hung up; raises a ProviderError."""
        now = int(self._clock())
        await self._rooms.close(row.session_id)
        await settle_duties(self._sessions, row, room_closed(row, closed_at=now))
        return "rooms_closed"

    async def _extract(self, row: Row) -> str | None:
        """Queue a pending extraction. It is due again after the queue's own retries, until its results are stored."""
        if isinstance(row, Session) and _is_pending(row):
            await self._queues.extractions.put(row.session_id)
            again_at, claimed = int(self._clock()) + QUEUED_SECONDS, row.duties.get("extract")
            await settle_duties(
                self._sessions,
                row,
                lambda duties: duties.moved("extract", again_at) if duties.get("extract") == claimed else duties,
            )
            return "queued"
        await self._remove(row, "extract")
        return None

    async def _send_events(self, row: Row) -> str | None:
        """Queue a session that owes events. The duty is due again, later each time, until they were dispatched."""
        if isinstance(row, Session):
            await self._queues.events.put(row.session_id)
            return "events_queued"
        await self._remove(row, "send_events")
        return None

    async def _delete_again(self, row: Row) -> str:
        """Delete what a racing request wrote after the session was deleted; raises StorageError."""
        await self._transcripts.delete(row.session_id)
        await self._remove(row, "delete_again")
        return "deleted"


def _log_given_up(session_id: SessionId, duty: str) -> None:
    logger.error("duty_given_up", session_id=session_id, duty=duty)
    count("DutiesGivenUp")


def _is_pending(session: Session) -> bool:
    return session.extraction is not None and session.extraction.status == "pending"
