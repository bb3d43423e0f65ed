"""The reference: what callers were told, and what has to be true of a session because of it.

It knows no store, no order of requests and no retries. After each step it looks at the session from outside and
holds it to what was acknowledged so far.
"""

from dataclasses import dataclass, field
from typing import Any

from pi_voice.domain import session_api
from pi_voice.domain.errors import (
    ProviderError,
    SessionActive,
    SessionNotActive,
    SessionNotFound,
    StorageError,
    TranscriptConflict,
    TranscriptGap,
)
from pi_voice.domain.session_api import RenewedSession, SaveTranscriptResponse
from pi_voice.domain.sessions import MAX_SESSION_SECONDS, Session
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.use_cases.extract_results import QUEUED_SECONDS, ExtractionUnfinished
from tests.durability.interleaving import Outcome

# ---- What clients, LiveKit and the machinery may do ----


@dataclass(frozen=True)
class Append:
    """A writer sends turns, from a little before the next that is missing or, with a negative number, behind it."""

    writer: int = 0
    back: int = 0
    count: int = 1


@dataclass(frozen=True)
class Complete:
    """The client ends the call, with a transcript of so many turns of its own or with what was kept."""

    own: int | None = None


@dataclass(frozen=True)
class Stop:
    """The client hangs up."""


@dataclass(frozen=True)
class Renew:
    """The client wants more time."""

    has_handle: bool = False


@dataclass(frozen=True)
class Sweep:
    """The schedule runs."""


@dataclass(frozen=True)
class Work:
    """A worker gets one of the messages; nobody says that another does not have it as well."""

    place: int = 0


@dataclass(frozen=True)
class Join:
    """Somebody enters the room, and LiveKit tells of it, in time or late."""

    seconds_ago: int = 0
    is_own_room: bool = True


@dataclass(frozen=True)
class TellAgain:
    """LiveKit tells once more of a join for which it had no answer."""


@dataclass(frozen=True)
class Get:
    """The client looks."""


@dataclass(frozen=True)
class Delete:
    """The customer removes the session."""


Operation = Append | Complete | Stop | Renew | Sweep | Work | Join | TellAgain | Get | Delete

_PROVIDER = (ProviderError, StorageError)
MAY_RAISE: dict[type[Operation], tuple[type[Exception], ...]] = {
    Append: (SessionNotActive, TranscriptGap, TranscriptConflict, StorageError),
    Complete: (SessionNotActive, StorageError),
    Stop: (SessionNotActive, *_PROVIDER),
    Renew: (SessionNotActive, *_PROVIDER),
    Sweep: (StorageError,),
    Work: (ExtractionUnfinished, StorageError),
    Join: _PROVIDER,
    TellAgain: _PROVIDER,
    Get: (StorageError,),
    Delete: (SessionActive, StorageError),
}
"""What each may say instead of being done, while there is a session."""


@dataclass(frozen=True)
class Sight:
    """The world as it stands between two steps."""

    now: int
    session: Session | None
    kept: list[TranscriptTurn]
    """The kept turns, piece by piece as they are stored."""
    starts: list[int]
    """Which turn each piece says it begins with."""
    lengths: list[int]
    transcript: list[TranscriptTurn] | None
    inside: frozenset[int]
    """Who is in the room."""


@dataclass(frozen=True)
class Done:
    """One operation of a step: what was sent, and what came of it."""

    operation: Operation
    outcome: Outcome
    sent: Any = None
    """The number of its first turn and its turns, its own transcript, or who joined."""


@dataclass
class Reference:
    """What callers were told so far."""

    acknowledged: dict[int, TranscriptTurn] = field(default_factory=dict)
    answers: list[session_api.Session] = field(default_factory=list)
    """What complete answered; there can be one."""
    own: list[list[TranscriptTurn]] = field(default_factory=list)
    """Transcripts that somebody tried to complete the call with."""
    expires_at: int = 0
    told: set[int] = field(default_factory=set)
    """Whose joins LiveKit has told of."""
    is_hung_up: bool = False
    """Whether somebody heard that the call is over, and nothing kept LiveKit from hearing it."""
    is_going: bool = False
    """Whether somebody began to delete it, and may have come to its end."""
    is_deleted: bool = False

    def learn(self, before: Sight, done: list[Done], after: Sight) -> None:
        """Take in what the callers of a step were told, and hold it to what was known."""
        is_deleting = self.is_going or any(isinstance(each.operation, Delete) for each in done)
        for each in done:
            self._expected(before, each, is_deleting=is_deleting)
            if isinstance(each.operation, Complete) and each.sent is not None:
                self.own.append(each.sent)
            if isinstance(each.operation, Delete) and not isinstance(each.outcome.error, SessionActive):
                self.is_going = True
            if each.outcome.is_told:
                self._told(before, each)
        self._holds(before, after)

    def _expected(self, before: Sight, each: Done, *, is_deleting: bool) -> None:
        error = each.outcome.error
        if error is None:
            return
        gone = before.session is None or is_deleting
        assert isinstance(error, (*MAY_RAISE[type(each.operation)], *((SessionNotFound,) if gone else ()))), error
        if isinstance(error, _PROVIDER) and not is_deleting:
            assert not each.outcome.is_spared, f"{error!r} for no reason"

    def _told(self, before: Sight, each: Done) -> None:
        match each.operation, each.outcome.value:
            case Append(), SaveTranscriptResponse() as kept:
                first, turns = each.sent
                assert kept.next >= first + len(turns)
                for number, turn in enumerate(turns, start=first):
                    assert self.acknowledged.setdefault(number, turn) == turn, "two writers were told yes"
            case Complete(), session_api.Session() as state:
                assert not self.answers, "two requests completed the session"
                self.answers.append(state)
                self.is_hung_up |= each.outcome.is_spared
            case Stop(), session_api.Session() as state:
                assert state.hung_up_at is not None
                self.is_hung_up = True
            case Renew(), RenewedSession() as renewed:
                assert before.session is not None
                assert before.session.is_on, "a call that was over was renewed"
                assert renewed.expires_at <= before.session.created_at + MAX_SESSION_SECONDS
                self.expires_at = max(self.expires_at, renewed.expires_at)
            case ((Join() | TellAgain()), _):
                self.told.add(each.sent)
                if before.session is not None and not before.session.is_on:
                    self.is_hung_up = True  # whoever was in the room is thrown out with this one
            case Delete(), _:
                self.is_deleted = True

    # ---- What has to be true ----

    def _holds(self, before: Sight, after: Sight) -> None:
        if after.session is None:
            assert self.is_going
            assert not after.kept
            assert after.transcript is None
            return
        assert not self.is_deleted, "a deleted session is there again"
        was, session = before.session, after.session
        assert was is not None
        if was.status != "active":
            assert session.status == was.status
            assert session.transcript_id == was.transcript_id
            assert (session.end_reason, session.completed_by) == (was.end_reason, was.completed_by)
        if was.hung_up_at is not None:
            assert (session.hung_up_at, session.end_reason) == (was.hung_up_at, was.end_reason)
        if not self.is_going:
            self._turns_are_there(session, after)
        self._results_stay(was, session)
        self._expiry_is_right(was, session)
        if self.is_hung_up:
            assert not self.told & after.inside, "a call that is over goes on"
        self._is_found_by_the_sweeper(session, after)

    def _turns_are_there(self, session: Session, after: Sight) -> None:
        assert after.starts == [sum(after.lengths[:number]) for number in range(len(after.lengths))], "a hole"
        assert len(after.kept) == session.checkpoint_turns
        for number, turn in self.acknowledged.items():
            assert after.kept[number] == turn, "an acknowledged turn is not kept"
        match session.status:
            case "active":
                assert session.transcript_id is None
                assert not self.answers
            case "failed":
                assert not self.acknowledged
                assert not self.answers
                assert session.failure is not None
            case "completed":
                transcript = after.transcript or []
                assert len(transcript) == session.turns
                assert transcript == after.kept or (session.completed_by == "client" and transcript in self.own)
                if self.answers:
                    assert session.completed_by == "client"
                    assert transcript == self.answers[0].transcript

    def _results_stay(self, was: Session, session: Session) -> None:
        if session.status != "completed":
            assert (session.results, session.extraction) == (None, None)
            return
        assert session.extraction is not None
        if was.extraction is None:
            return
        assert session.extraction.attempts >= was.extraction.attempts
        if was.extraction.status in ("succeeded", "skipped"):
            assert (session.results, session.extraction) == (was.results, was.extraction), "results have changed"

    def _expiry_is_right(self, was: Session, session: Session) -> None:
        assert was.expires_at <= session.expires_at <= max(session.created_at + MAX_SESSION_SECONDS, was.expires_at)
        assert session.expires_at >= self.expires_at, "more time was promised"
        if session.completed_by == "sweeper" or session.end_reason == "expired":
            ended_at = session.completed_at or session.failed_at or 0
            assert ended_at >= session.given_up_at, "it was given up before its time"

    def _is_found_by_the_sweeper(self, session: Session, after: Sight) -> None:
        if session.status == "active":
            assert session.due_at is not None
            assert session.due_at <= max(after.now, session.given_up_at)
            first_told = session.livekit.first_joined_at is not None and self.told
            if session.is_on and first_told and session.cap_ends_at is not None:
                assert session.due_at <= max(after.now, session.cap_ends_at), "nobody looks when its cap is over"
            return
        if session.extraction is not None and session.extraction.status == "pending":
            assert session.due_at is not None
            assert session.due_at <= after.now + QUEUED_SECONDS
        if self.told & after.inside:
            assert session.due_at is not None, "nobody looks after the room of a session that ended"
