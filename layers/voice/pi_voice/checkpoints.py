"""Checkpoints: what was said is kept as the call goes, so that a closed tab loses nothing."""

from typing import Final

from pi_voice import transcript
from pi_voice.access import session_of
from pi_voice.errors import SessionNotActive, StorageError, TranscriptConflict, TranscriptGap
from pi_voice.ids import SessionId
from pi_voice.ports import Checkpoints, Sessions, Visitor
from pi_voice.sessions import Checkpoint, Kept, Session
from pi_voice.transcript import Turn

_ATTEMPTS: Final = 5


class CheckpointKeeping:
    """Keeps transcripts as they grow."""

    def __init__(self, sessions: Sessions, checkpoints: Checkpoints) -> None:
        self._sessions = sessions
        self._checkpoints = checkpoints

    async def keep(self, session_id: SessionId, sent: Checkpoint, caller: Visitor) -> Kept:
        """Append turns to an active session's transcript; when this returns, they are durable.

        Turns that are kept already change nothing. Raises SessionNotFound, SessionNotActive, TranscriptGap,
        TranscriptConflict where kept turns were sent with other words, TranscriptTooLarge.
        """
        session: Session | None = await session_of(caller, self._sessions, session_id)
        for _ in range(_ATTEMPTS):
            if session is None or session.status != "active":
                raise SessionNotActive
            new = await self._new(session, sent)
            if not new:
                return _kept(session)
            known = len(sent.turns) - len(new)
            size = transcript.check_checkpoint(new, known, session.checkpoint_turns, session.checkpoint_bytes)
            if kept := await self._checkpoints.append(session, new, size):
                return _kept(kept)
            session = await self._sessions.get(session_id)  # somebody was faster: with the same turns, perhaps
        raise StorageError

    async def _new(self, session: Session, sent: Checkpoint) -> list[Turn]:
        """Return those of the turns that are not kept yet."""
        kept = session.checkpoint_turns
        if sent.at > kept:
            raise TranscriptGap(kept)
        known = min(kept - sent.at, len(sent.turns))
        if known:
            there = (await self._checkpoints.read(session))[sent.at : sent.at + known]
            for number, (theirs, ours) in enumerate(zip(sent.turns, there, strict=False), start=sent.at):
                if _said(theirs) != _said(ours):
                    raise TranscriptConflict(number, kept)
        return sent.turns[known:]


def _kept(session: Session) -> Kept:
    return Kept(session_id=session.session_id, next=session.checkpoint_turns, hung_up_at=session.hung_up_at)


def _said(turn: Turn) -> dict[str, object]:
    """Return what a turn says: a time that is null says as little as one that is not there."""
    return {name: value for name, value in turn.items() if value is not None}
