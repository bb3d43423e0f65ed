"""Save turns during the call, so that they survive if the client disappears."""

import time
from typing import Final

from pi_voice.domain import transcripts
from pi_voice.domain.errors import (
    SessionNotActive,
    SessionNotFound,
    StorageError,
    TranscriptConflict,
    TranscriptGap,
    TranscriptTooLarge,
)
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcript_api import SavedTranscript, SaveTranscriptRequest
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.ports import Checkpoints, SessionCaller, Sessions
from pi_voice.use_cases.authorization import authorized_session

_ATTEMPTS: Final = 5


class SaveTranscript:
    """Stores checkpoints of running calls."""

    ERRORS = (SessionNotFound, SessionNotActive, TranscriptGap, TranscriptConflict, TranscriptTooLarge)

    def __init__(self, sessions: Sessions, checkpoints: Checkpoints, clock: Clock = time.time) -> None:
        self._sessions = sessions
        self._checkpoints = checkpoints
        self._clock = clock

    async def __call__(
        self, session_id: SessionId, request: SaveTranscriptRequest, caller: SessionCaller
    ) -> SavedTranscript:
        """Append turns to an active session's transcript. When this returns, they are durable.

        Turns that are already saved are skipped. Raises SessionNotFound, SessionNotActive, TranscriptGap,
        TranscriptConflict if a saved turn was sent with a different text, TranscriptTooLarge.
        """
        session: Session | None = await authorized_session(caller, self._sessions, session_id)
        for _ in range(_ATTEMPTS):
            if session is None or session.status != "active":
                raise SessionNotActive
            new = await self._new_turns(session, request)
            if not new:
                return _response(session)
            known = len(request.turns) - len(new)
            size = transcripts.check_checkpoint(new, known, session.checkpoint_turns, session.checkpoint_bytes)
            if saved := await self._checkpoints.append(session, new, size, int(self._clock())):
                return _response(saved)
            session = await self._sessions.get(session_id)  # a concurrent request may have saved the same turns
        raise StorageError

    async def _new_turns(self, session: Session, request: SaveTranscriptRequest) -> list[TranscriptTurn]:
        """Return the turns of the request that are not saved yet."""
        saved_turns = session.checkpoint_turns
        if request.at > saved_turns:
            raise TranscriptGap(saved_turns)
        known = min(saved_turns - request.at, len(request.turns))
        if known:
            saved = (await self._checkpoints.read(session))[request.at : request.at + known]
            for number, (sent, stored) in enumerate(zip(request.turns, saved, strict=False), start=request.at):
                if _without_nulls(sent) != _without_nulls(stored):
                    raise TranscriptConflict(number, saved_turns)
        return request.turns[known:]


def _response(session: Session) -> SavedTranscript:
    return SavedTranscript(session_id=session.session_id, next=session.checkpoint_turns, hung_up_at=session.hung_up_at)


def _without_nulls(turn: TranscriptTurn) -> dict[str, object]:
    """Drop null times, so that a null and an absent time compare equal."""
    return {name: value for name, value in turn.items() if value is not None}
