import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_voice.domain.errors import (
    InvalidApiKey,
    SessionNotActive,
    SessionNotFound,
    StorageError,
    TranscriptConflict,
    TranscriptGap,
    TranscriptTooLarge,
)
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcript_api import SavedTranscript, SaveTranscriptRequest
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.ports import SessionCaller
from pi_voice.use_cases.save_transcript import SaveTranscript
from tests.support.fakes import (
    CheckpointsThatCannotRead,
    FakeCaller,
    FakeCheckpoints,
    FakeClient,
    FakeClock,
    FakeSessions,
    UnknownCaller,
)
from tests.unit.examples import NOW, SESSION_ID, session

ACME = FakeCaller("acme")


def user_turns(*texts: str) -> list[TranscriptTurn]:
    return [{"role": "user", "text": text} for text in texts]


class Setup:
    """A SaveTranscript on fakes."""

    def __init__(self, sessions: FakeSessions | None = None, checkpoints: FakeCheckpoints | None = None) -> None:
        self.sessions = sessions or FakeSessions(session())
        self.checkpoints = checkpoints or FakeCheckpoints(self.sessions)
        self.save_transcript = SaveTranscript(self.sessions, self.checkpoints, FakeClock(NOW + 9))

    def save(self, at: int, turns: list[TranscriptTurn], caller: SessionCaller = ACME) -> SavedTranscript:
        return asyncio.run(self.save_transcript(SESSION_ID, save_request(at, turns), caller))

    @property
    def turns(self) -> list[TranscriptTurn]:
        """The saved turns, as many as the session counts."""
        saved = self.checkpoints.stored.get(SESSION_ID, [])
        assert len(saved) == self.sessions.stored[SESSION_ID].checkpoint_turns
        return saved


def save_request(at: int, turns: list[TranscriptTurn]) -> SaveTranscriptRequest:
    """Parse a request with the index of its first turn."""
    return SaveTranscriptRequest.model_validate_json(json.dumps({"from": at, "turns": turns}))


# ---- Appending ------------------------------------------------------------------------------------------


def test_turns_are_appended_to_the_saved_ones() -> None:
    setup = Setup()

    assert setup.save(0, user_turns("a", "b")) == SavedTranscript(session_id=SESSION_ID, next=2)
    assert setup.save(2, user_turns("c")) == SavedTranscript(session_id=SESSION_ID, next=3)
    assert setup.turns == user_turns("a", "b", "c")


def test_the_session_s_own_client_can_save_turns() -> None:
    setup = Setup()

    assert setup.save(0, user_turns("a"), FakeClient(SESSION_ID)).next == 1


def test_saving_the_same_turns_again_changes_nothing() -> None:
    setup = Setup()
    setup.save(0, user_turns("a", "b"))
    before = setup.sessions.stored[SESSION_ID]

    assert setup.save(0, user_turns("a", "b")).next == 2
    assert setup.save(1, user_turns("b")).next == 2
    assert setup.save(0, user_turns("a")).next == 2
    assert setup.sessions.stored[SESSION_ID] == before
    assert setup.turns == user_turns("a", "b")


@pytest.mark.parametrize("at", [0, 1, 2])
def test_turns_that_are_already_saved_are_skipped(at: int) -> None:
    setup = Setup()
    setup.save(0, user_turns("a", "b"))

    assert setup.save(at, user_turns("a", "b", "c", "d")[at:]).next == 4
    assert setup.turns == user_turns("a", "b", "c", "d")


def test_the_session_counts_the_bytes_of_its_saved_turns_as_json() -> None:
    setup = Setup()
    setup.save(0, user_turns("a", "é"))
    setup.save(1, user_turns("é", "b"))

    assert setup.sessions.stored[SESSION_ID].checkpoint_bytes == len(
        '[{"role":"user","text":"a"},{"role":"user","text":"é"}]'.encode() + b'[{"role":"user","text":"b"}]'
    )


@pytest.mark.parametrize(("at", "next_turn"), [(1, 0), (5_000, 0)])
def test_a_gap_at_the_start_is_rejected_with_the_next_turn(at: int, next_turn: int) -> None:
    setup = Setup()

    with pytest.raises(TranscriptGap) as raised:
        setup.save(at, user_turns("z"))

    assert raised.value.next == next_turn
    assert setup.turns == []


def test_a_gap_after_saved_turns_is_rejected_with_the_next_turn() -> None:
    setup = Setup()
    setup.save(0, user_turns("a", "b"))

    with pytest.raises(TranscriptGap) as raised:
        setup.save(3, user_turns("d"))

    assert raised.value.next == 2
    assert setup.turns == user_turns("a", "b")


@pytest.mark.parametrize(
    ("at", "turns", "number"),
    [
        (0, user_turns("x", "b", "c"), "0"),
        (0, user_turns("a", "x"), "1"),
        (1, user_turns("x", "c"), "1"),
        (1, [{"role": "agent", "text": "b"}], "1"),
        (1, [{"role": "user", "text": "b", "start_ms": 5}], "1"),
    ],
)
def test_a_saved_turn_with_a_different_text_is_rejected_and_nothing_is_saved(
    at: int, turns: list[TranscriptTurn], number: str
) -> None:
    setup = Setup()
    setup.save(0, user_turns("a", "b"))

    with pytest.raises(TranscriptConflict) as raised:
        setup.save(at, turns)

    assert raised.value.next == 2
    assert raised.value.message.startswith(f"Turn {number} is already saved")
    assert setup.turns == user_turns("a", "b")


def test_a_null_time_equals_an_absent_one() -> None:
    setup = Setup()
    setup.save(0, [{"role": "user", "text": "a", "start_ms": None}, {"role": "user", "text": "b"}])

    again: list[TranscriptTurn] = [{"role": "user", "text": "a"}, {"role": "user", "text": "b", "end_ms": None}]
    assert setup.save(0, again).next == 2


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=20))
def test_the_saved_turns_are_always_the_first_turns_of_the_call(
    pieces: list[tuple[int, int]],
) -> None:
    call, setup = user_turns(*"abcdefghijklmnopqr"), Setup()

    for at, length in pieces:
        known = len(setup.turns)
        expected = known if at > known else max(known, at + length)
        try:
            next_turn: int | None = setup.save(at, call[at : at + length]).next
        except TranscriptGap as gap:
            next_turn = gap.next
        assert next_turn == expected
        assert setup.turns == call[:expected]


# ---- Limits ---------------------------------------------------------------------------------------------


def limit_errors(setup: Setup, at: int, turns: list[TranscriptTurn]) -> list[str]:
    """Save turns that exceed a limit, and return the paths of the errors."""
    before = setup.sessions.stored[SESSION_ID]
    with pytest.raises(TranscriptTooLarge) as raised:
        setup.save(at, turns)
    assert setup.sessions.stored[SESSION_ID] == before
    return [detail.path for detail in raised.value.details]


def with_saved(turns: int, size: int) -> Setup:
    """Set up a session with a number of saved turns of a total size in bytes."""
    setup = Setup(FakeSessions(replace(session(), checkpoint_turns=turns, checkpoint_bytes=size)))
    setup.checkpoints.stored[SESSION_ID] = user_turns(*["a"] * turns)
    return setup


def test_a_turn_that_is_too_long_is_rejected_with_its_index_in_the_request() -> None:
    setup = Setup()
    setup.save(0, user_turns("a", "b"))

    assert limit_errors(setup, 0, user_turns("a", "b", "c", "x" * 20_001)) == ["turns.3.text"]
    assert limit_errors(setup, 2, user_turns("x" * 20_001)) == ["turns.0.text"]
    assert setup.save(2, user_turns("x" * 20_000)).next == 3


def test_a_request_may_save_300_kilobytes() -> None:
    overhead = len('[{"role":"user","text":""}]')
    largest = user_turns(*["x" * 19_973] * 15)
    largest[0]["text"] += "x" * (300_000 - (15 * (19_973 + overhead - 1) + 1))

    assert Setup().save(0, largest).next == 15
    largest[1]["text"] += "x"
    assert limit_errors(Setup(), 0, largest) == ["turns"]


def test_the_saved_turns_have_the_limits_of_a_transcript() -> None:
    assert with_saved(4_999, 0).save(4_999, user_turns("last")).next == 5_000
    assert limit_errors(with_saved(4_999, 0), 4_999, user_turns("last", "one more")) == ["turns"]
    assert with_saved(1, 1_048_576 - 29).save(1, user_turns("ab")).next == 2
    assert limit_errors(with_saved(1, 1_048_576 - 29), 1, user_turns("abc")) == ["turns"]


# ---- Ended calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_no_turns_are_saved_for_an_ended_session(status: Any) -> None:
    setup = Setup(FakeSessions(replace(session(), status=status)))

    with pytest.raises(SessionNotActive):
        setup.save(0, user_turns("a"))

    assert setup.turns == []


def test_turns_can_be_saved_after_the_hang_up() -> None:
    setup = Setup(FakeSessions(replace(session(), hung_up_at=NOW + 60, end_reason="stopped")))

    response = setup.save(0, user_turns("a"))

    assert (response.next, response.hung_up_at) == (1, NOW + 60)
    assert setup.save(0, user_turns("a")) == response


def test_turns_can_be_saved_after_the_connections_have_expired() -> None:
    setup = Setup(FakeSessions(replace(session(), expires_at=NOW - 1)))

    assert setup.save(0, user_turns("a")).next == 1


# ---- Concurrent writes ----------------------------------------------------------------------------------


class OvertakenCheckpoints(FakeCheckpoints):
    """Before each of the first writes, a concurrent request saves other turns."""

    def __init__(self, sessions: FakeSessions, *concurrent: list[TranscriptTurn]) -> None:
        super().__init__(sessions)
        self._concurrent = list(concurrent)

    async def append(self, session: Session, turns: Any, size: int, now: int) -> Session | None:
        if self._concurrent:
            assert await super().append(session, self._concurrent.pop(0), 1, now)
        return await super().append(session, turns, size, now)


def test_a_request_overtaken_by_the_same_turns_succeeds() -> None:
    sessions = FakeSessions(session())
    setup = Setup(sessions, OvertakenCheckpoints(sessions, user_turns("a", "b")))

    assert setup.save(0, user_turns("a", "b")).next == 2
    assert setup.turns == user_turns("a", "b")


def test_a_request_overtaken_by_fewer_turns_saves_the_rest() -> None:
    sessions = FakeSessions(session())
    setup = Setup(sessions, OvertakenCheckpoints(sessions, user_turns("a"), user_turns("b")))

    assert setup.save(0, user_turns("a", "b", "c")).next == 3
    assert setup.turns == user_turns("a", "b", "c")


def test_a_request_overtaken_by_different_turns_is_rejected() -> None:
    sessions = FakeSessions(session())
    setup = Setup(sessions, OvertakenCheckpoints(sessions, user_turns("x")))

    with pytest.raises(TranscriptConflict):
        setup.save(0, user_turns("a"))

    assert setup.turns == user_turns("x")


def test_turns_of_two_writers_are_never_mixed() -> None:
    setup = Setup()
    first, second = user_turns(*"abcde"), user_turns(*"vwxyz")

    async def write(turns: list[TranscriptTurn]) -> int:
        """Save one turn after the other until a conflict, and return the number of saved ones."""
        for number, turn in enumerate(turns):
            try:
                await setup.save_transcript(SESSION_ID, save_request(number, [turn]), ACME)
            except TranscriptConflict:
                return number
        return len(turns)

    async def race() -> tuple[int, int]:
        return await asyncio.gather(write(first), write(second))

    outcomes = asyncio.run(race())

    assert sorted(outcomes) == [0, 5]
    assert setup.turns == (first if outcomes[0] == 5 else second)


def test_concurrent_requests_with_the_same_turns_all_succeed_and_save_them_once() -> None:
    setup = Setup()

    async def race() -> list[SavedTranscript]:
        return await asyncio.gather(
            *(setup.save_transcript(SESSION_ID, save_request(0, user_turns("a", "b")), ACME) for _ in range(20))
        )

    assert {response.next for response in asyncio.run(race())} == {2}
    assert setup.turns == user_turns("a", "b")


def test_no_turns_are_saved_if_the_session_is_completed_between_read_and_write() -> None:
    class CompletedMeanwhile(FakeCheckpoints):
        async def append(self, session: Session, turns: Any, size: int, now: int) -> Session | None:
            sessions.stored[SESSION_ID] = replace(session, status="completed")
            return await super().append(session, turns, size, now)

    sessions = FakeSessions(session())

    with pytest.raises(SessionNotActive):
        Setup(sessions, CompletedMeanwhile(sessions)).save(0, user_turns("a"))


def test_no_turns_are_saved_if_the_session_is_deleted_between_read_and_write() -> None:
    class DeletedMeanwhile(FakeCheckpoints):
        async def append(self, session: Session, turns: Any, size: int, now: int) -> Session | None:
            del sessions.stored[SESSION_ID]
            return await super().append(session, turns, size, now)

    sessions = FakeSessions(session())

    with pytest.raises(SessionNotActive):
        asyncio.run(
            SaveTranscript(sessions, DeletedMeanwhile(sessions))(SESSION_ID, save_request(0, user_turns("a")), ACME)
        )


def test_a_request_that_is_always_overtaken_fails_with_a_retryable_error() -> None:
    class AlwaysOvertaken(FakeCheckpoints):
        async def append(self, session: Session, turns: Any, size: int, now: int) -> Session | None:  # noqa: ARG002
            return None

    sessions = FakeSessions(session())

    with pytest.raises(StorageError) as raised:
        Setup(sessions, AlwaysOvertaken(sessions)).save(0, user_turns("a"))

    assert raised.value.retryable


def test_a_request_fails_if_the_saved_turns_cannot_be_read() -> None:
    sessions = FakeSessions(session())
    setup = Setup(sessions, CheckpointsThatCannotRead(sessions))
    setup.save(0, user_turns("a"))

    with pytest.raises(StorageError):
        setup.save(0, user_turns("a", "b"))


# ---- Authorization --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "error"),
    [
        (FakeCaller("globex"), SessionNotFound),
        (FakeClient(SessionId("019a0000-0000-7000-8000-00000000000f")), SessionNotFound),
        (UnknownCaller(), InvalidApiKey),
    ],
    ids=["another workspace", "another session's client", "unknown key"],
)
def test_an_unauthorized_caller_saves_nothing(caller: SessionCaller, error: type[Exception]) -> None:
    setup = Setup()

    with pytest.raises(error):
        setup.save(0, user_turns("a"), caller)

    assert setup.turns == []


def test_the_first_saved_turn_starts_the_call_and_later_ones_do_not() -> None:
    setup = Setup()

    setup.save(0, user_turns("a"))
    setup.save(1, user_turns("b"))

    stored = setup.sessions.stored[SESSION_ID]
    [owed] = stored.owed_events
    assert (owed.type, owed.at, stored.started_at) == ("session.started", NOW + 9, NOW + 9)
    assert stored.duties == session().duties.plus(send_events=NOW + 19)


def test_a_saved_turn_of_a_call_that_has_started_owes_no_event() -> None:
    setup = Setup(FakeSessions(replace(session(), started_at=NOW)))

    setup.save(0, user_turns("a"))

    assert (setup.sessions.stored[SESSION_ID].owed_events, setup.sessions.stored[SESSION_ID].started_at) == ((), NOW)
