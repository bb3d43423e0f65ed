"""Completion: the transcript is made durable first, and only then is anything asked of a model."""

import time
from dataclasses import replace
from typing import Final

from pi_voice import transcript
from pi_voice.access import session_of
from pi_voice.errors import InternalError, SessionNotActive, StorageError
from pi_voice.extraction import Extracted, Extractor
from pi_voice.ids import Clock, SessionId, TranscriptId, uuid7
from pi_voice.logs import logger, trace
from pi_voice.ports import Agents, Caller, Sessions, Transcripts
from pi_voice.sessions import CallEnd, Ending, Extraction, Problem, Session, SessionState, state_of
from pi_voice.transcript import Turn

_PENDING: Final = Extraction(status="pending")
_SKIPPED: Final = Extraction(status="skipped")


class Completion:
    """Ends sessions and gets their results."""

    def __init__(
        self,
        agents: Agents,
        sessions: Sessions,
        transcripts: Transcripts,
        extractor: Extractor,
        clock: Clock = time.time,
    ) -> None:
        self._agents = agents
        self._sessions = sessions
        self._transcripts = transcripts
        self._extractor = extractor
        self._clock = clock

    async def complete(self, session_id: SessionId, ending: Ending, caller: Caller) -> SessionState:
        """End an active session with its transcript and return it with its results.

        Of calls that race, one wins; the others raise SessionNotActive and leave nothing behind. Raises
        TranscriptTooLarge and SessionNotFound before anything is written. Once the session is completed the
        call is safe and nothing raises any more: `extraction` tells how the results fared.
        """
        session = await session_of(caller, self._sessions, session_id)
        if session.status != "active":
            raise SessionNotActive
        transcript.check_size(ending.transcript)
        completed = await self._end(session, ending)
        extracted = await self._extract(completed, ending.transcript)
        return state_of(await self._record(completed, extracted), ending.transcript)

    async def _end(self, session: Session, ending: Ending) -> Session:
        """Write the transcript under a fresh id, then let one conditional update point to it.

        A StorageError of that update leaves the transcript alone: the update may have happened all the same.
        """
        transcript_id = TranscriptId(uuid7(self._clock))
        try:
            if ending.transcript:
                await self._transcripts.put(transcript_id, ending.transcript)
        except StorageError:
            await self._discard(transcript_id, ending.transcript)
            raise
        completed = await self._sessions.complete(
            session.session_id,
            CallEnd(
                completed_at=int(self._clock()),
                completed_by="client",
                duration_seconds=ending.duration_seconds,
                end_reason=ending.end_reason,
                transcript_id=transcript_id,
                turns=len(ending.transcript),
                extraction=_PENDING if ending.transcript else _SKIPPED,
            ),
        )
        if completed is None:
            await self._discard(transcript_id, ending.transcript)
            raise SessionNotActive
        return completed

    async def _discard(self, transcript_id: TranscriptId, turns: list[Turn]) -> None:
        """Let the transcript of a call that lost the race, or that was written in part, disappear."""
        try:
            await self._transcripts.expire(transcript_id, turns)
        except StorageError:
            logger.error("a transcript that nothing points to stays behind", transcript_id=transcript_id)

    async def _extract(self, session: Session, turns: list[Turn]) -> Extracted:
        """Get the results; whatever breaks on the way is told in the extraction, because the call is safe."""
        if not turns:
            return Extracted(None, _SKIPPED)
        try:
            agent = await self._agents.version(session.agent_id, session.agent_version)
            return await self._extractor.extract(agent, turns, session.created_at)
        except Exception as error:  # noqa: BLE001 (a 500 here would hide from the caller that the call is safe)
            logger.error("an extraction broke", session_id=session.session_id, **trace(error))
            problem = Problem(code=InternalError.code, message=InternalError.advice)
            return Extracted(None, Extraction(status="failed", error=problem))

    async def _record(self, session: Session, extracted: Extracted) -> Session:
        """Keep the results; where that fails the caller has them all the same, and the stored session stays pending."""
        if extracted.extraction == session.extraction:
            return session
        try:
            recorded = await self._sessions.record(
                session.session_id, session.transcript_id, extracted.results, extracted.extraction
            )
        except StorageError:
            logger.error("results could not be kept", session_id=session.session_id)
            recorded = None
        return recorded or replace(session, results=extracted.results, extraction=extracted.extraction)
