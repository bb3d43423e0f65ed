"""Extract the results of completed sessions: at once while a caller waits, else from the queue with retries."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import GeminiUnavailable, InternalError, SessionNotFound, StorageError, UpstreamTimeout
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.tool_calls import ToolCall
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.logs import exception_fields, logger
from pi_voice.metrics import count
from pi_voice.ports import Agents, SessionQueues, Sessions
from pi_voice.use_cases.call_content import CallContent
from pi_voice.use_cases.extractor import (
    ANSWER_INVALID,
    CallTranscript,
    ExtractionOutcome,
    ExtractionRequest,
    Extractor,
    seconds_for_extraction,
)
from pi_voice.use_cases.queue_events import PAUSE_SECONDS, queue_events
from pi_voice.use_cases.settle_duties import Change, room_closed, settle_duties

RECHECK_SECONDS: Final = 120
"""When the sweeper takes over the duties of a completed session, because its function crashed or a service failed."""

QUEUED_SECONDS: Final = 3_600
"""When the sweeper queues an extraction again; longer than the queue retries."""

MISCONFIGURED_SECONDS: Final = 172_800
"""When the sweeper queues an extraction again that waits for an operator, who may also redrive it before."""

_TRANSIENT: Final = (GeminiUnavailable.code, UpstreamTimeout.code, InternalError.code, ANSWER_INVALID)


class ExtractionUnfinished(Exception):
    """There are no results yet, and a retry may succeed."""


class ExtractResults:
    """Extracts and stores the results of completed sessions."""

    def __init__(
        self,
        agents: Agents,
        sessions: Sessions,
        content: CallContent,
        extractor: Extractor,
        queues: SessionQueues,
        clock: Clock = time.time,
    ) -> None:
        self._agents = agents
        self._sessions = sessions
        self._content = content
        self._extractor = extractor
        self._queues = queues
        self._clock = clock

    async def __call__(self, session_id: SessionId, seconds: float, *, is_last: bool) -> None:
        """Extract the results of a session from the queue within a time limit.

        After the last attempt a failure is final, unless an operator has to act. A session that is deleted or has its
        results is skipped, because a message may be delivered twice. Raises ExtractionUnfinished, and StorageError.
        """
        session = await self._sessions.get(session_id)
        if session is None or session.transcript_id is None or not _is_open(session.extraction):
            logger.info("extraction_not_needed", session_id=session_id)
            return
        turns = await self._content.turns(session) or []
        tool_calls = self._content.tool_calls(session)
        outcome = await self._extract(session, turns, tool_calls, lambda: seconds, is_last=is_last)
        due_at = int(self._clock()) + (MISCONFIGURED_SECONDS if outcome.misconfiguration else QUEUED_SECONDS)
        is_pending = outcome.extraction.status == "pending"

        def duties(before: Duties) -> Duties:
            return before.moved("extract", due_at) if is_pending else before.without("extract")

        try:
            stored = await self._sessions.save_extraction(session, outcome.results, outcome.extraction, duties)
        except SessionNotFound:
            return
        if not is_pending:
            await queue_events(self._queues.events, session_id)
        overtaken = stored.extraction != outcome.extraction  # by a concurrent run, which may have failed as well
        if _is_open(stored.extraction) and (is_pending or outcome.is_retryable or overtaken):
            raise ExtractionUnfinished

    async def for_caller(
        self, session: Session, turns: list[TranscriptTurn], closing_room: Awaitable[bool]
    ) -> tuple[Session, list[ToolCall]]:
        """Extract a completed session's results in the time that is left, while its room is closed; queue the rest.

        Return the session and its tool calls. Never raises: the transcript is already stored, so errors are recorded
        in `extraction.error`.
        """
        reading = asyncio.ensure_future(self._content.tool_calls(session))
        current = await self._for_caller(session, turns, reading, closing_room)
        try:
            return current, await reading
        except StorageError:
            logger.error("tool_calls_not_read", session_id=session.session_id)
            return current, []

    async def _for_caller(
        self,
        session: Session,
        turns: list[TranscriptTurn],
        tool_calls: Awaitable[list[ToolCall]],
        closing_room: Awaitable[bool],
    ) -> Session:
        """Extract and close the room. One write stores the results and removes the duties that are done."""
        closed = room_closed(session, closed_at=int(self._clock()))
        if session.extraction is None or session.extraction.status != "pending":
            return await self._settle(session, closed) if await closing_room else session
        extracting = self._extract(session, turns, tool_calls, seconds_for_extraction, is_last=False)
        outcome, is_closed = await asyncio.gather(extracting, closing_room)
        queue_again_at: int | None = None
        if outcome.extraction.status == "pending":
            queued = await self._enqueue(session)
            queue_again_at = int(self._clock()) + (QUEUED_SECONDS if queued else RECHECK_SECONDS)

        def duties(before: Duties) -> Duties:
            after = closed(before) if is_closed else before
            return after.without("extract") if queue_again_at is None else after.moved("extract", queue_again_at)

        if queue_again_at is not None:
            return await self._save(session, outcome, duties)
        saved, _ = await asyncio.gather(
            self._save(session, outcome, duties),
            queue_events(self._queues.events, session.session_id, PAUSE_SECONDS),
        )
        return saved

    async def _extract(
        self,
        session: Session,
        turns: list[TranscriptTurn],
        tool_calls: Awaitable[list[ToolCall]],
        time_limit: Callable[[], float],
        *,
        is_last: bool,
    ) -> ExtractionOutcome:
        try:
            agent, calls = await asyncio.gather(
                self._agents.version(session.agent_id, session.agent_version), tool_calls
            )
            call = CallTranscript(turns, session.created_at, session.duration_seconds, calls, session.brought)
            outcome = await self._extractor.extract(ExtractionRequest.of(agent), call, time_limit())
        except Exception as error:  # noqa: BLE001 (a 500 here would hide that the session is completed)
            logger.error("extraction_failed", session_id=session.session_id, **exception_fields(error))
            internal = ErrorInfo(code=InternalError.code, message=InternalError.default_message)
            failed = Extraction(status="failed", attempts=1, error=internal)
            outcome = ExtractionOutcome(None, failed, is_retryable=True)
        if outcome.misconfiguration:
            logger.error("extraction_misconfigured", session_id=session.session_id, cause=outcome.misconfiguration)
            count("ExtractionsMisconfigured", cause=outcome.misconfiguration)
        is_pending = outcome.misconfiguration is not None or (outcome.is_retryable and not is_last)
        update = {"status": "pending"} if is_pending else {"extracted_at": int(self._clock())}
        extraction = outcome.extraction.after(session.extraction).model_copy(update=update)
        return replace(outcome, extraction=extraction)

    async def _enqueue(self, session: Session) -> bool:
        """Queue the extraction and return whether it worked; if not, the sweeper finds the session."""
        try:
            await self._queues.extractions.put(session.session_id)
        except StorageError:
            logger.error("extraction_not_queued", session_id=session.session_id)
            return False
        return True

    async def _settle(self, session: Session, closed: Change) -> Session:
        """Change the duty to close the room. If that fails, the sweeper closes the room once more."""
        try:
            current = await settle_duties(self._sessions, session, closed)
        except StorageError:
            logger.error("duty_not_settled", session_id=session.session_id)
            return session
        return current if isinstance(current, Session) else session

    async def _save(self, session: Session, outcome: ExtractionOutcome, duties: Callable[[Duties], Duties]) -> Session:
        """Store the results. If that fails, return them anyway; the sweeper queues the extraction again."""
        try:
            return await self._sessions.save_extraction(session, outcome.results, outcome.extraction, duties)
        except (StorageError, SessionNotFound):
            logger.error("results_not_stored", session_id=session.session_id)
            return replace(session, results=outcome.results, extraction=outcome.extraction)


def _is_open(extraction: Extraction | None) -> bool:
    """Return whether an extraction is pending, or failed for a transient reason."""
    if extraction is None or extraction.status in ("succeeded", "skipped"):
        return False
    return extraction.status == "pending" or extraction.error is None or extraction.error.code in _TRANSIENT
