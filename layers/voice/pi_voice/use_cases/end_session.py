"""End an active session with its transcript."""

import time
from typing import Final

from pi_voice.domain import transcripts
from pi_voice.domain.errors import SessionNotActive, StorageError
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import Clock, SessionId, TranscriptId, uuid7
from pi_voice.domain.sessions import Session, SessionCompletion
from pi_voice.domain.transcript_api import CompleteSessionRequest
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.logs import logger
from pi_voice.ports import Checkpoints, Sessions, Transcripts
from pi_voice.use_cases.extract_results import RECHECK_SECONDS

SWEEPER: Final = "sweeper"
"""`completed_by` of a session that the sweeper ended."""

_ATTEMPTS: Final = 5
_PENDING: Final = Extraction(status="pending")
_SKIPPED: Final = Extraction(status="skipped")


class EndSession:
    """Stores the transcript, then marks the session as completed."""

    def __init__(
        self, sessions: Sessions, transcripts: Transcripts, checkpoints: Checkpoints, clock: Clock = time.time
    ) -> None:
        self._sessions = sessions
        self._transcripts = transcripts
        self._checkpoints = checkpoints
        self._clock = clock

    async def __call__(
        self, session: Session, request: CompleteSessionRequest, completed_by: str, request_hash: str | None = None
    ) -> tuple[Session, list[TranscriptTurn]]:
        """End a session with the transcript of the request, or with its checkpoints; return it with its turns.

        Of concurrent calls one succeeds; the others raise SessionNotActive and leave nothing behind. Checkpoints
        saved during the read are included. Raises TranscriptTooLarge before anything is written.
        """
        if request.transcript is not None:
            transcripts.check_size(request.transcript)
            ended = await self._complete(session, request.transcript, request, completed_by, request_hash)
            if ended is None:
                raise SessionNotActive
            return ended, request.transcript
        current: Session | None = session
        for _ in range(_ATTEMPTS):
            if current is None or current.status != "active":
                raise SessionNotActive
            if completed_by == SWEEPER and current.expires_at != session.expires_at:
                raise SessionNotActive("The session was renewed.")
            turns = await self._checkpoints.read(current) if current.checkpoint_turns else []
            if ended := await self._complete(current, turns, request, completed_by, request_hash):
                return ended, turns
            current = await self._sessions.get(session.session_id)
        raise StorageError

    async def _complete(
        self,
        session: Session,
        turns: list[TranscriptTurn],
        request: CompleteSessionRequest,
        completed_by: str,
        request_hash: str | None,
    ) -> Session | None:
        """Write the transcript under a new id, then point the session to it in one conditional update.

        If the update raises StorageError, the transcript stays: the update may have taken effect.
        """
        transcript_id = TranscriptId(uuid7(self._clock))
        try:
            if turns:
                await self._transcripts.put(session.session_id, transcript_id, turns)
        except StorageError:
            await self._expire(session.session_id, transcript_id, turns)
            raise
        now = int(self._clock())
        completed = await self._sessions.complete(
            session,
            SessionCompletion(
                completed_at=now,
                completed_by=completed_by,
                duration_seconds=request.duration_seconds,
                end_reason=request.end_reason,
                transcript_id=transcript_id,
                turns=len(turns),
                extraction=_PENDING if turns else _SKIPPED,
                recheck_at=now if completed_by == SWEEPER else now + RECHECK_SECONDS,
                request_hash=request_hash,
                room_ends_at=session.latest_end if request.keep_room and session.hung_up_at is None else None,
                checkpoint_turns=session.checkpoint_turns if request.transcript is None else None,
                expires_at=session.expires_at if completed_by == SWEEPER else None,
            ),
        )
        if completed is None:
            await self._expire(session.session_id, transcript_id, turns)
        return completed

    async def _expire(self, session_id: SessionId, transcript_id: TranscriptId, turns: list[TranscriptTurn]) -> None:
        """Let a transcript expire that lost the race or was written in part."""
        try:
            await self._transcripts.expire(session_id, transcript_id, turns)
        except StorageError:
            logger.error("orphaned_transcript_not_expired", session_id=session_id, transcript_id=transcript_id)
