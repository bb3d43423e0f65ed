"""Completion: what was said is made durable first, and only then is anything asked of a model."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from pi_voice import transcript
from pi_voice.access import session_of
from pi_voice.errors import CarriedOut, SessionNotActive, StorageError
from pi_voice.ids import Clock, SessionId, TranscriptId, uuid7
from pi_voice.logs import logger, trace
from pi_voice.ports import Checkpoints, Rooms, Sessions, Transcripts, Visitor
from pi_voice.results import PICK_UP_SECONDS, Results
from pi_voice.sessions import CallEnd, Ending, Extraction, Session, SessionState, state_of
from pi_voice.transcript import Turn

BUDGET_SECONDS: Final = 20.0
"""What the extraction may take while the caller waits: API Gateway ends a request after 30 s, storing included."""

SWEEPER: Final = "sweeper"
"""Who completes a session that is given up."""

_ATTEMPTS: Final = 5
_PENDING: Final = Extraction(status="pending")
_SKIPPED: Final = Extraction(status="skipped")


class Closing:
    """Ends active sessions with their transcript."""

    def __init__(
        self, sessions: Sessions, transcripts: Transcripts, checkpoints: Checkpoints, clock: Clock = time.time
    ) -> None:
        self._sessions = sessions
        self._transcripts = transcripts
        self._checkpoints = checkpoints
        self._clock = clock

    async def end(
        self, session: Session, ending: Ending, completed_by: str, request_hash: str | None = None
    ) -> tuple[Session, list[Turn]]:
        """End a session with the transcript that was sent, or with the turns that were kept as the call went.

        Of calls that race, one wins; the others raise SessionNotActive and leave nothing behind. Turns that are
        kept while this reads them are read too. Raises TranscriptTooLarge before anything is written.
        """
        if ending.transcript is not None:
            transcript.check_size(ending.transcript)
            ended = await self._flip(session, ending.transcript, ending, completed_by, request_hash)
            if ended is None:
                raise SessionNotActive
            return ended, ending.transcript
        current: Session | None = session
        for _ in range(_ATTEMPTS):
            if current is None or current.status != "active":
                raise SessionNotActive
            if completed_by == SWEEPER and current.expires_at != session.expires_at:
                raise SessionNotActive("The session was renewed, and is not given up any more.")
            turns = await self._checkpoints.read(current) if current.checkpoint_turns else []
            if ended := await self._flip(current, turns, ending, completed_by, request_hash):
                return ended, turns
            current = await self._sessions.get(session.session_id)
        raise StorageError

    async def _flip(
        self, session: Session, turns: list[Turn], ending: Ending, completed_by: str, request_hash: str | None
    ) -> Session | None:
        """Write the transcript under a fresh id, then let one conditional update point to it.

        A StorageError of that update leaves the transcript alone: the update may have happened all the same.
        """
        transcript_id = TranscriptId(uuid7(self._clock))
        try:
            if turns:
                await self._transcripts.put(transcript_id, turns)
        except StorageError:
            await self._discard(transcript_id, turns)
            raise
        now = int(self._clock())
        completed = await self._sessions.complete(
            session.session_id,
            CallEnd(
                completed_at=now,
                completed_by=completed_by,
                duration_seconds=ending.duration_seconds,
                end_reason=ending.end_reason,
                transcript_id=transcript_id,
                turns=len(turns),
                extraction=_PENDING if turns else _SKIPPED,
                due_at=now + PICK_UP_SECONDS,
                request_hash=request_hash,
                checkpoint_turns=session.checkpoint_turns if ending.transcript is None else None,
                expires_at=session.expires_at if completed_by == SWEEPER else None,
            ),
        )
        if completed is None:
            await self._discard(transcript_id, turns)
        return completed

    async def _discard(self, transcript_id: TranscriptId, turns: list[Turn]) -> None:
        """Let the transcript of a call that lost the race, or that was written in part, disappear."""
        try:
            await self._transcripts.expire(transcript_id, turns)
        except StorageError:
            logger.error("a transcript that nothing points to stays behind", transcript_id=transcript_id)


class Completion:
    """Ends sessions and gets their results while the caller waits."""

    def __init__(self, sessions: Sessions, closing: Closing, results: Results, rooms: Callable[[], Rooms]) -> None:
        self._sessions = sessions
        self._closing = closing
        self._results = results
        self._rooms = rooms

    async def complete(
        self, session_id: SessionId, ending: Ending, caller: Visitor, request_hash: str | None = None
    ) -> SessionState:
        """End an active session with its transcript and return it with its results.

        Raises SessionNotFound, SessionNotActive, TranscriptTooLarge, and CarriedOut if it was completed by this very
        request. Once the session is completed the call is safe and nothing raises any more: `extraction` tells how
        the results fared.
        """
        session = await session_of(caller, self._sessions, session_id)
        if session.status != "active":
            raise CarriedOut(session_id) if request_hash and request_hash == session.request_hash else SessionNotActive
        completed, turns = await self._closing.end(session, ending, completed_by="client", request_hash=request_hash)
        with_results = await self._results.get(completed, turns, BUDGET_SECONDS, self._close_room(session_id))
        return state_of(with_results, turns)

    async def _close_room(self, session_id: SessionId) -> bool:
        """Hang up whoever is left, and tell whether that worked; where it did not, the sweeper does it."""
        try:
            rooms = await asyncio.to_thread(self._rooms)  # LiveKit's SDK is imported while the model thinks
            await rooms.close(session_id)
        except Exception as error:  # noqa: BLE001 (whatever it is: the session is completed, and the answer says so)
            logger.warning("a room is left to the sweeper", session_id=session_id, **trace(error))
            return False
        return True
