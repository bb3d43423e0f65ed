"""Complete a session: make the transcript durable first, then extract its results."""

import asyncio
from collections.abc import Callable
from typing import Final

from pi_voice.deadline import seconds_left
from pi_voice.domain import session_api
from pi_voice.domain.errors import (
    AlreadyProcessed,
    RateLimited,
    SessionNotActive,
    SessionNotFound,
    StorageError,
    TranscriptTooLarge,
)
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcript_api import CompleteSessionRequest
from pi_voice.logs import exception_fields, logger
from pi_voice.ports import RateLimiter, Rooms, SessionCaller, SessionQueue, Sessions
from pi_voice.use_cases.authorization import authorized_session
from pi_voice.use_cases.end_session import EndSession
from pi_voice.use_cases.extract_results import ExtractResults
from pi_voice.use_cases.extractor import RESERVE_SECONDS
from pi_voice.use_cases.queue_events import queue_events

COUNT_SECONDS: Final = 2.0
"""Time limit for counting the request, which must not delay the transcript."""


class CompleteSession:
    """Ends sessions and extracts their results while the caller waits."""

    ERRORS = (SessionNotFound, SessionNotActive, TranscriptTooLarge, RateLimited)

    def __init__(
        self,
        sessions: Sessions,
        end_session: EndSession,
        extract_results: ExtractResults,
        rooms: Callable[[], Rooms],
        rate_limiter: RateLimiter,
        event_queue: SessionQueue,
    ) -> None:
        self._sessions = sessions
        self._end_session = end_session
        self._extract_results = extract_results
        self._rooms = rooms
        self._rate_limiter = rate_limiter
        self._event_queue = event_queue

    async def __call__(
        self,
        session_id: SessionId,
        request: CompleteSessionRequest,
        caller: SessionCaller,
        request_hash: str | None = None,
    ) -> session_api.Session:
        """End an active session with its transcript, and return it with its results.

        Raises RateLimited, SessionNotFound, SessionNotActive, TranscriptTooLarge, and AlreadyProcessed if the same
        request completed it before. Nothing raises once the session is completed: `extraction` reports errors.
        """
        session = await authorized_session(caller, self._sessions, session_id, self._count)
        if session.status != "active":
            is_same = request_hash is not None and request_hash == session.request_hash
            raise AlreadyProcessed(session_id) if is_same else SessionNotActive
        completed, turns = await self._end_session(session, request, completed_by="client", request_hash=request_hash)
        queueing = asyncio.create_task(queue_events(self._event_queue, session_id))  # beside the extraction
        with_results, tool_calls = await self._extract_results.for_caller(completed, turns, self._close_room(completed))
        await queueing
        return session_api.Session.of_stored(with_results, turns, tool_calls)

    async def _count(self, owner: str) -> None:
        """Count the request; raises RateLimited. Without the counter the request goes on.

        Only the client has the transcript, and a client that gets an error may close its page instead of retrying.
        """
        try:
            async with asyncio.timeout(COUNT_SECONDS):
                await self._rate_limiter.acquire(owner)
        except (StorageError, TimeoutError) as error:
            logger.error("request_not_counted", error=type(error).__name__)

    async def _close_room(self, session: Session) -> bool:
        """Close the room, unless it is kept, and return whether it worked; if not, the sweeper closes it."""
        if session.room_ends_at is not None:
            return False
        try:
            async with asyncio.timeout(seconds_left() - RESERVE_SECONDS):
                rooms = await asyncio.to_thread(self._rooms)  # imports LiveKit's SDK while the model works
                await rooms.close(session.session_id)
        except Exception as error:  # noqa: BLE001 (the session is completed, and the response must say so)
            logger.warning("room_not_closed", session_id=session.session_id, **exception_fields(error))
            return False
        return True
