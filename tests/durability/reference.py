"""The reference model: the acknowledgments to callers, and the properties of a session that follow from them.

It does not know the store, the order of requests, or retries. After each step it reads the session from outside and
compares it with the acknowledgments so far.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from pi_voice.domain import session_api
from pi_voice.domain.connection_api import RenewedSession
from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import (
    ProviderError,
    SessionActive,
    SessionNotActive,
    SessionNotFound,
    StorageError,
    TranscriptConflict,
    TranscriptGap,
)
from pi_voice.domain.ids import EventId
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcript_api import SavedTranscript
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.use_cases.extract_results import ExtractionUnfinished
from tests.durability.interleaving import Outcome

# Numbers of the contract, so that a changed constant of the product is noticed.
LONGEST_PAUSE_SECONDS: Final = 3_600
MAX_SESSION_SECONDS: Final = 3_600
CAP_LEEWAY_SECONDS: Final = 15

# ---- Operations of clients, LiveKit, the schedule and the worker ----


@dataclass(frozen=True)
class Append:
    """A writer sends turns, from a little before the next missing turn or, with a negative number, after it."""

    writer: int = 0
    back: int = 0
    count: int = 1


@dataclass(frozen=True)
class Complete:
    """The client completes the call, with its own transcript of this many turns or with the saved turns."""

    own: int | None = None


@dataclass(frozen=True)
class Stop:
    """The client stops the session."""


@dataclass(frozen=True)
class Renew:
    """The client renews the session."""

    has_handle: bool = False


@dataclass(frozen=True)
class Sweep:
    """The scheduled job runs."""


@dataclass(frozen=True)
class Work:
    """A worker receives one of the messages; another worker may have it too."""

    place: int = 0


@dataclass(frozen=True)
class Dispatch:
    """The worker of events receives one of the messages; another worker may have it too."""

    place: int = 0


@dataclass(frozen=True)
class Join:
    """A participant joins the room, and LiveKit sends the webhook, on time or late."""

    seconds_ago: int = 0
    is_own_room: bool = True


@dataclass(frozen=True)
class RepeatJoin:
    """LiveKit sends the webhook of a join again, because it got no response."""


@dataclass(frozen=True)
class Get:
    """The client reads the session."""


@dataclass(frozen=True)
class Delete:
    """The customer deletes the session."""


Operation = Append | Complete | Stop | Renew | Sweep | Work | Dispatch | Join | RepeatJoin | Get | Delete

_PROVIDER = (ProviderError, StorageError)
MAY_RAISE: dict[type[Operation], tuple[type[Exception], ...]] = {
    Append: (SessionNotActive, TranscriptGap, TranscriptConflict, StorageError),
    Complete: (SessionNotActive, StorageError),
    Stop: (SessionNotActive, *_PROVIDER),
    Renew: (SessionNotActive, *_PROVIDER),
    Sweep: (StorageError,),
    Work: (ExtractionUnfinished, StorageError),
    Dispatch: (StorageError, TimeoutError),
    Join: _PROVIDER,
    RepeatJoin: _PROVIDER,
    Get: (StorageError,),
    Delete: (SessionActive, StorageError),
}
"""The expected errors of each operation while the session exists."""


@dataclass(frozen=True)
class Sight:
    """The state between two steps."""

    now: int
    session: Session | None
    kept: list[TranscriptTurn]
    """The saved turns, by stored piece."""
    tombstone: Duties | None
    """The duties of a deleted session."""
    pieces: int
    """The number of all stored pieces."""
    starts: list[int]
    """The stored number of the first turn of each piece."""
    lengths: list[int]
    transcript: list[TranscriptTurn] | None
    inside: frozenset[int]
    """The participants in the room."""


@dataclass(frozen=True)
class Done:
    """One operation of a step: the input and the outcome."""

    operation: Operation
    outcome: Outcome
    sent: Any = None
    """The number of the first turn with the turns, the transcript, or the participant."""


@dataclass
class Reference:
    """The acknowledgments so far."""

    acknowledged: dict[int, TranscriptTurn] = field(default_factory=dict)
    answers: list[session_api.Session] = field(default_factory=list)
    """The response of complete; there can be only one."""
    own: list[list[TranscriptTurn]] = field(default_factory=list)
    """Transcripts of all attempts to complete the call."""
    expires_at: int = 0
    reported: set[int] = field(default_factory=set)
    """The participants whose webhook of the join was answered."""
    joined_at: dict[int, int] = field(default_factory=dict)
    """When each participant joined, in Unix seconds."""
    had_token: set[int] = field(default_factory=set)
    """The participants who joined a deleted session, or an earlier one, before its tokens expired."""
    tokens_end_at: int = 0
    is_hung_up: bool = False
    """Whether a caller got the response that the call is over, and no fault kept LiveKit from closing the room."""
    is_going: bool = False
    """Whether a deletion began and may have finished."""
    is_deleted: bool = False
    owed: dict[EventId, str] = field(default_factory=dict)
    """The type of each event that the session has owed."""

    def learn(self, before: Sight, done: list[Done], after: Sight) -> None:
        """Add the outcomes of a step, and check them against the acknowledgments so far."""
        if before.session is not None:
            self.tokens_end_at = before.session.tokens_end_at
        if after.session is not None:
            self.owed |= {event.event_id: event.type for event in after.session.owed_events}
        is_deleting = self.is_going or any(isinstance(each.operation, Delete) for each in done)
        for each in done:
            self._expected(before, each, is_deleting=is_deleting)
            if isinstance(each.operation, Complete) and each.sent is not None:
                self.own.append(each.sent)
            if isinstance(each.operation, Join):
                self.joined_at[each.sent] = before.now - each.operation.seconds_ago
                if before.now < self.tokens_end_at:
                    self.had_token.add(each.sent)
            if isinstance(each.operation, Delete) and not isinstance(each.outcome.error, SessionActive):
                self.is_going = True
            if each.outcome.is_acknowledged:
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
            case Append(), SavedTranscript() as kept:
                first, turns = each.sent
                assert kept.next >= first + len(turns)
                for number, turn in enumerate(turns, start=first):
                    assert self.acknowledged.setdefault(number, turn) == turn, (
                        "two writers with different turns succeeded"
                    )
            case Complete(), session_api.Session() as state:
                assert not self.answers, "two requests completed the session"
                self.answers.append(state)
                self.is_hung_up |= each.outcome.is_spared
            case Stop(), session_api.Session() as state:
                assert state.hung_up_at is not None
                self.is_hung_up = True
            case Renew(), RenewedSession() as renewed:
                assert before.session is not None
                assert before.session.is_ongoing, "a call that was over was renewed"
                assert renewed.expires_at <= before.session.created_at + MAX_SESSION_SECONDS
                self.expires_at = max(self.expires_at, renewed.expires_at)
            case ((Join() | RepeatJoin()), _) if each.sent:
                self.reported.add(each.sent)
                if before.session is not None and not before.session.is_ongoing:
                    self.is_hung_up = True  # all participants of the room are disconnected
            case Delete(), _:
                self.is_deleted = True

    # ---- Invariants ----

    def _holds(self, before: Sight, after: Sight) -> None:
        if after.session is None:
            assert self.is_going
            self._is_deleted_in_the_end(after)
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
            assert not self.reported & after.inside, "a call that is over goes on"
        self._is_found_by_the_sweeper(session, after)

    def _is_deleted_in_the_end(self, after: Sight) -> None:
        """Check that the duties of a tombstone delete what is left, and close the room."""
        duties, latest = after.tombstone or Duties(), after.now + LONGEST_PAUSE_SECONDS
        if after.pieces:
            assert _is_due(duties, "delete_again", latest), "a deleted session leaves what was said"
        if self.had_token & after.inside:
            assert _is_due(duties, "close_room", max(latest, self.tokens_end_at)), "its room stays open"

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
        if session.completed_by == "sweeper" or (session.status == "failed" and session.end_reason == "expired"):
            ended_at = session.completed_at or session.failed_at or 0
            assert ended_at >= session.abandoned_at, "it was given up before its time"

    def _is_found_by_the_sweeper(self, session: Session, after: Sight) -> None:
        """Check that a duty is due for all that is left to do, or at the latest after the pause of a failed try."""
        latest = after.now + LONGEST_PAUSE_SECONDS
        if session.owed_events:
            assert _is_due(session.duties, "send_events", latest), "an event is owed and not found"
        if session.status == "active":
            assert _is_due(session.duties, "end_call", max(latest, session.abandoned_at))
            first_join = session.livekit.first_joined_at is not None and self.reported
            if session.is_ongoing and session.max_duration_seconds is None:
                assert _is_due(session.duties, "hang_up", max(latest, session.created_at + MAX_SESSION_SECONDS + 15))
            elif session.is_ongoing and first_join and session.max_duration_seconds is not None:
                # A join whose webhook was not answered may count already; LiveKit sends that webhook again.
                first_joined_at = min(self.joined_at[participant] for participant in self.reported)
                cap_ends_at = first_joined_at + session.max_duration_seconds + CAP_LEEWAY_SECONDS
                assert _is_due(session.duties, "hang_up", max(latest, cap_ends_at)), "its time limit is not a duty"
            return
        if session.extraction is not None and session.extraction.status == "pending":
            assert _is_due(session.duties, "extract", latest)
        if self.reported & after.inside:
            assert _is_due(session.duties, "close_room", max(latest, session.tokens_end_at)), "its room stays open"


def _is_due(duties: Duties, name: str, by: int) -> bool:
    duty = duties.get(name)
    return duty is not None and duty.due_at <= by
