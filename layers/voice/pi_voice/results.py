"""Results: extracted while the caller waits if all goes well, and otherwise as often as it takes."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Final

from pi_voice.errors import GeminiUnavailable, InternalError, SessionNotFound, StorageError, UpstreamTimeout
from pi_voice.extraction import Call, Extracted, Extractor, Wanted
from pi_voice.ids import Clock, SessionId
from pi_voice.logs import logger, trace
from pi_voice.ports import Agents, ExtractionQueue, Sessions, Transcripts
from pi_voice.sessions import Extraction, Problem, Session
from pi_voice.transcript import Turn

PICK_UP_SECONDS: Final = 120
"""When the sweeper looks after a completed session that is not done with: a crash, or a room that stayed open."""

QUEUED_SECONDS: Final = 3_600
"""When the sweeper looks after an extraction that is in the queue: longer than the queue keeps trying."""

_PASSING: Final = (GeminiUnavailable.code, UpstreamTimeout.code, InternalError.code)


class Unfinished(Exception):
    """The results are still not there, and trying again later makes sense."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long an extraction may take, and whether another one follows if it fails."""

    seconds: float
    is_last: bool = False


class Results:
    """Gets the results of completed sessions."""

    def __init__(
        self,
        agents: Agents,
        sessions: Sessions,
        transcripts: Transcripts,
        extractor: Extractor,
        queue: ExtractionQueue,
        clock: Clock = time.time,
    ) -> None:
        self._agents = agents
        self._sessions = sessions
        self._transcripts = transcripts
        self._extractor = extractor
        self._queue = queue
        self._clock = clock

    async def get(self, session: Session, turns: list[Turn], seconds: float, closing_room: Awaitable[bool]) -> Session:
        """Extract a completed session's results now, or have it done later, while its room is closed; never raises.

        What breaks on the way is told in the extraction, because the call is safe. One write keeps the results and
        says that nothing is left to do. A session whose room stayed open stays due, and the sweeper does the rest.
        """
        if session.extraction is None or session.extraction.status != "pending":
            return await self._let_go(session) if await closing_room else session
        extracted, is_closed = await asyncio.gather(self._extract(session, turns, Budget(seconds)), closing_room)
        due_at = None
        if not is_closed:
            due_at = session.due_at
        elif extracted.extraction.status == "pending":
            queued = await self._queue_up(session)
            due_at = int(self._clock()) + (QUEUED_SECONDS if queued else PICK_UP_SECONDS)
        return await self._record(session, extracted, due_at)

    async def retry(self, session_id: SessionId, budget: Budget) -> None:
        """Extract the results of a session from the queue.

        A session that is gone, or that has its results, is none of our business any more: a message may come
        twice. One that is due stays so, because only the sweeper knows whether its room is closed. Raises Unfinished,
        and StorageError.
        """
        session = await self._sessions.get(session_id)
        if session is None or session.transcript_id is None or not _is_open(session.extraction):
            logger.info("nothing to extract", session_id=session_id)
            return
        turns = await self._transcripts.get(session.transcript_id) or []
        extracted = await self._extract(session, turns, budget)
        is_pending = extracted.extraction.status == "pending"
        due_at = int(self._clock()) + QUEUED_SECONDS if is_pending else session.due_at
        try:
            kept = await self._sessions.record(session, extracted.results, extracted.extraction, due_at)
        except SessionNotFound:
            return
        overtaken = kept.extraction != extracted.extraction  # by somebody who has no results either, perhaps
        if _is_open(kept.extraction) and (extracted.can_be_tried_again or overtaken):
            raise Unfinished

    async def _extract(self, session: Session, turns: list[Turn], budget: Budget) -> Extracted:
        try:
            agent = await self._agents.version(session.agent_id, session.agent_version)
            call = Call(turns, session.created_at, session.duration_seconds)
            extracted = await self._extractor.extract(Wanted.of(agent), call, budget.seconds)
        except Exception as error:  # noqa: BLE001 (a 500 here would hide from the caller that the call is safe)
            logger.error("an extraction broke", session_id=session.session_id, **trace(error))
            problem = Problem(code=InternalError.code, message=InternalError.advice)
            extracted = Extracted(None, Extraction(status="failed", attempts=1, error=problem), can_be_tried_again=True)
        waits = extracted.can_be_tried_again and not budget.is_last
        told = {"status": "pending"} if waits else {"extracted_at": int(self._clock())}
        extraction = extracted.extraction.after(session.extraction).model_copy(update=told)
        return replace(extracted, extraction=extraction)

    async def _queue_up(self, session: Session) -> bool:
        """Have it done later, and tell whether it will be; if not, the session is due, and the sweeper finds it."""
        try:
            await self._queue.put(session.session_id)
        except StorageError:
            logger.error("an extraction could not be queued", session_id=session.session_id)
            return False
        return True

    async def _let_go(self, session: Session) -> Session:
        """Say that nothing is left to do; where that fails the sweeper finds it out."""
        try:
            return await self._sessions.schedule(session, None) or session
        except StorageError:
            logger.error("a session that is done with stays due", session_id=session.session_id)
            return session

    async def _record(self, session: Session, extracted: Extracted, due_at: int | None) -> Session:
        """Keep the results; where that fails the caller has them all the same, and the sweeper tries again."""
        try:
            return await self._sessions.record(session, extracted.results, extracted.extraction, due_at)
        except (StorageError, SessionNotFound):
            logger.error("results could not be kept", session_id=session.session_id)
            return replace(session, results=extracted.results, extraction=extracted.extraction)


def _is_open(extraction: Extraction | None) -> bool:
    """Tell whether asking makes sense: not yet answered, or given up for something that may be over by now."""
    if extraction is None or extraction.status in ("succeeded", "skipped"):
        return False
    return extraction.status == "pending" or extraction.error is None or extraction.error.code in _PASSING
