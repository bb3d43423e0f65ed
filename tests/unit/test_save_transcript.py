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
from pi_voice.domain.session_api import SaveTranscriptRequest, SaveTranscriptResponse
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.ports import SessionCaller
from pi_voice.use_cases.save_transcript import SaveTranscript
from tests.fakes import (
    CheckpointsThatCannotRead,
    FakeCaller,
    FakeCheckpoints,
    FakeClient,
    FakeSessions,
    UnknownCaller,
)
from tests.unit.examples import NOW, SESSION_ID, session

ACME = FakeCaller("acme")


def said(*texts: str) -> list[TranscriptTurn]:
    return [{"role": "user", "text": text} for text in texts]


class World:
    """A session, and what is kept of it."""

    def __init__(self, sessions: FakeSessions | None = None, checkpoints: FakeCheckpoints | None = None) -> None:
        self.sessions = sessions or FakeSessions(session())
        self.checkpoints = checkpoints or FakeCheckpoints(self.sessions)
        self.save_transcript = SaveTranscript(self.sessions, self.checkpoints)

    def keep(self, at: int, turns: list[TranscriptTurn], caller: SessionCaller = ACME) -> SaveTranscriptResponse:
        return asyncio.run(self.save_transcript(SESSION_ID, sent(at, turns), caller))

    @property
    def turns(self) -> list[TranscriptTurn]:
        """What is kept, which is as much as the session says."""
        kept = self.checkpoints.kept.get(SESSION_ID, [])
        assert len(kept) == self.sessions.kept[SESSION_ID].checkpoint_turns
        return kept


def sent(at: int, turns: list[TranscriptTurn]) -> SaveTranscriptRequest:
    """Read a checkpoint as a client sends it."""
    return SaveTranscriptRequest.model_validate_json(json.dumps({"from": at, "turns": turns}))


# ---- As the call goes -----------------------------------------------------------------------------------


def test_turns_are_kept_one_behind_the_other() -> None:
    world = World()

    assert world.keep(0, said("a", "b")) == SaveTranscriptResponse(session_id=SESSION_ID, next=2)
    assert world.keep(2, said("c")) == SaveTranscriptResponse(session_id=SESSION_ID, next=3)
    assert world.turns == said("a", "b", "c")


def test_the_session_s_own_client_keeps_turns_too() -> None:
    world = World()

    assert world.keep(0, said("a"), FakeClient(SESSION_ID)).next == 1


def test_the_same_turns_again_change_nothing() -> None:
    world = World()
    world.keep(0, said("a", "b"))
    before = world.sessions.kept[SESSION_ID]

    assert world.keep(0, said("a", "b")).next == 2
    assert world.keep(1, said("b")).next == 2
    assert world.keep(0, said("a")).next == 2
    assert world.sessions.kept[SESSION_ID] == before
    assert world.turns == said("a", "b")


@pytest.mark.parametrize("at", [0, 1, 2])
def test_of_turns_that_are_kept_in_part_the_rest_is_kept(at: int) -> None:
    world = World()
    world.keep(0, said("a", "b"))

    assert world.keep(at, said("a", "b", "c", "d")[at:]).next == 4
    assert world.turns == said("a", "b", "c", "d")


def test_how_much_is_kept_is_counted_in_bytes_of_json() -> None:
    world = World()
    world.keep(0, said("a", "é"))
    world.keep(1, said("é", "b"))

    assert world.sessions.kept[SESSION_ID].checkpoint_bytes == len(
        '[{"role":"user","text":"a"},{"role":"user","text":"é"}]'.encode() + b'[{"role":"user","text":"b"}]'
    )


@pytest.mark.parametrize(("at", "next_wanted"), [(1, 0), (5_000, 0)])
def test_a_hole_at_the_beginning_is_told_with_the_turn_that_is_wanted(at: int, next_wanted: int) -> None:
    world = World()

    with pytest.raises(TranscriptGap) as refusal:
        world.keep(at, said("z"))

    assert refusal.value.next == next_wanted
    assert world.turns == []


def test_a_hole_in_the_middle_is_told_with_the_turn_that_is_wanted() -> None:
    world = World()
    world.keep(0, said("a", "b"))

    with pytest.raises(TranscriptGap) as refusal:
        world.keep(3, said("d"))

    assert refusal.value.next == 2
    assert world.turns == said("a", "b")


@pytest.mark.parametrize(
    ("at", "turns", "number"),
    [
        (0, said("x", "b", "c"), "0"),
        (0, said("a", "x"), "1"),
        (1, said("x", "c"), "1"),
        (1, [{"role": "agent", "text": "b"}], "1"),
        (1, [{"role": "user", "text": "b", "start_ms": 5}], "1"),
    ],
)
def test_kept_turns_that_come_with_other_words_are_refused_and_nothing_of_them_is_kept(
    at: int, turns: list[TranscriptTurn], number: str
) -> None:
    world = World()
    world.keep(0, said("a", "b"))

    with pytest.raises(TranscriptConflict) as refusal:
        world.keep(at, turns)

    assert refusal.value.next == 2
    assert refusal.value.message.startswith(f"Turn {number} is already saved")
    assert world.turns == said("a", "b")


def test_a_time_that_is_null_says_as_little_as_one_that_is_not_there() -> None:
    world = World()
    world.keep(0, [{"role": "user", "text": "a", "start_ms": None}, {"role": "user", "text": "b"}])

    again: list[TranscriptTurn] = [{"role": "user", "text": "a"}, {"role": "user", "text": "b", "end_ms": None}]
    assert world.keep(0, again).next == 2


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=20))
def test_whatever_pieces_a_client_sends_of_what_was_said_what_is_kept_is_a_beginning_of_it(
    pieces: list[tuple[int, int]],
) -> None:
    call, world = said(*"abcdefghijklmnopqr"), World()

    for at, length in pieces:
        known = len(world.turns)
        expected = known if at > known else max(known, at + length)
        try:
            wanted: int | None = world.keep(at, call[at : at + length]).next
        except TranscriptGap as gap:
            wanted = gap.next
        assert wanted == expected
        assert world.turns == call[:expected]


# ---- Limits ---------------------------------------------------------------------------------------------


def refused(world: World, at: int, turns: list[TranscriptTurn]) -> list[str]:
    before = world.sessions.kept[SESSION_ID]
    with pytest.raises(TranscriptTooLarge) as refusal:
        world.keep(at, turns)
    assert world.sessions.kept[SESSION_ID] == before
    return [detail.path for detail in refusal.value.details]


def with_kept(turns: int, size: int) -> World:
    """Say that so much is kept already."""
    world = World(FakeSessions(replace(session(), checkpoint_turns=turns, checkpoint_bytes=size)))
    world.checkpoints.kept[SESSION_ID] = said(*["a"] * turns)
    return world


def test_a_turn_that_is_too_long_is_named_by_its_place_in_the_request() -> None:
    world = World()
    world.keep(0, said("a", "b"))

    assert refused(world, 0, said("a", "b", "c", "x" * 20_001)) == ["turns.3.text"]
    assert refused(world, 2, said("x" * 20_001)) == ["turns.0.text"]
    assert world.keep(2, said("x" * 20_000)).next == 3


def test_one_checkpoint_holds_three_hundred_kilobytes_at_most() -> None:
    frame = len('[{"role":"user","text":""}]')
    most = said(*["x" * 19_973] * 15)
    most[0]["text"] += "x" * (300_000 - (15 * (19_973 + frame - 1) + 1))

    assert World().keep(0, most).next == 15
    most[1]["text"] += "x"
    assert refused(World(), 0, most) == ["turns"]


def test_no_more_is_kept_than_a_transcript_may_hold() -> None:
    assert with_kept(4_999, 0).keep(4_999, said("last")).next == 5_000
    assert refused(with_kept(4_999, 0), 4_999, said("last", "one more")) == ["turns"]
    assert with_kept(1, 1_048_576 - 29).keep(1, said("ab")).next == 2
    assert refused(with_kept(1, 1_048_576 - 29), 1, said("abc")) == ["turns"]


# ---- When the call has ended ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_nothing_is_kept_of_a_session_that_has_ended(status: Any) -> None:
    world = World(FakeSessions(replace(session(), status=status)))

    with pytest.raises(SessionNotActive):
        world.keep(0, said("a"))

    assert world.turns == []


def test_what_was_said_before_a_call_was_hung_up_is_still_kept() -> None:
    world = World(FakeSessions(replace(session(), hung_up_at=NOW + 60, end_reason="stopped")))

    told = world.keep(0, said("a"))

    assert (told.next, told.hung_up_at) == (1, NOW + 60)
    assert world.keep(0, said("a")) == told


def test_what_was_said_before_the_connections_expired_is_still_kept() -> None:
    world = World(FakeSessions(replace(session(), expires_at=NOW - 1)))

    assert world.keep(0, said("a")).next == 1


# ---- When writers race ----------------------------------------------------------------------------------


class Rival(FakeCheckpoints):
    """Somebody else is faster, for the first so many times."""

    def __init__(self, sessions: FakeSessions, *rivals: list[TranscriptTurn]) -> None:
        super().__init__(sessions)
        self._rivals = list(rivals)

    async def append(self, session: Session, turns: Any, size: int) -> Session | None:
        if self._rivals:
            await super().append(session, self._rivals.pop(0), 1)
        return await super().append(session, turns, size)


def test_who_loses_a_race_with_the_same_turns_is_told_that_they_are_kept() -> None:
    sessions = FakeSessions(session())
    world = World(sessions, Rival(sessions, said("a", "b")))

    assert world.keep(0, said("a", "b")).next == 2
    assert world.turns == said("a", "b")


def test_who_loses_a_race_with_fewer_turns_keeps_the_rest() -> None:
    sessions = FakeSessions(session())
    world = World(sessions, Rival(sessions, said("a"), said("b")))

    assert world.keep(0, said("a", "b", "c")).next == 3
    assert world.turns == said("a", "b", "c")


def test_who_loses_a_race_with_other_words_is_told_so() -> None:
    sessions = FakeSessions(session())
    world = World(sessions, Rival(sessions, said("x")))

    with pytest.raises(TranscriptConflict):
        world.keep(0, said("a"))

    assert world.turns == said("x")


def test_of_two_writers_neither_can_put_a_word_between_the_other_s() -> None:
    world = World()
    ours, theirs = said(*"abcde"), said(*"vwxyz")

    async def write(turns: list[TranscriptTurn]) -> int:
        """Send one turn after the other, until another's stands in its place."""
        for number, turn in enumerate(turns):
            try:
                await world.save_transcript(SESSION_ID, sent(number, [turn]), ACME)
            except TranscriptConflict:
                return number
        return len(turns)

    async def race() -> tuple[int, int]:
        return await asyncio.gather(write(ours), write(theirs))

    outcomes = asyncio.run(race())

    assert sorted(outcomes) == [0, 5]
    assert world.turns == (ours if outcomes[0] == 5 else theirs)


def test_of_many_that_send_the_same_all_succeed_and_it_is_kept_once() -> None:
    world = World()

    async def race() -> list[SaveTranscriptResponse]:
        return await asyncio.gather(
            *(world.save_transcript(SESSION_ID, sent(0, said("a", "b")), ACME) for _ in range(20))
        )

    assert {kept.next for kept in asyncio.run(race())} == {2}
    assert world.turns == said("a", "b")


def test_a_session_that_is_completed_between_reading_and_writing_keeps_nothing_more() -> None:
    class Completing(FakeCheckpoints):
        async def append(self, session: Session, turns: Any, size: int) -> Session | None:
            sessions.kept[SESSION_ID] = replace(session, status="completed")
            return await super().append(session, turns, size)

    sessions = FakeSessions(session())

    with pytest.raises(SessionNotActive):
        World(sessions, Completing(sessions)).keep(0, said("a"))


def test_a_session_that_is_deleted_between_reading_and_writing_is_not_active_any_more() -> None:
    class Deleting(FakeCheckpoints):
        async def append(self, session: Session, turns: Any, size: int) -> Session | None:
            await sessions.delete(SESSION_ID)
            return await super().append(session, turns, size)

    sessions = FakeSessions(session())

    with pytest.raises(SessionNotActive):
        asyncio.run(SaveTranscript(sessions, Deleting(sessions))(SESSION_ID, sent(0, said("a")), ACME))


def test_who_always_loses_is_told_to_try_again() -> None:
    class NeverMine(FakeCheckpoints):
        async def append(self, session: Session, turns: Any, size: int) -> Session | None:  # noqa: ARG002
            return None

    sessions = FakeSessions(session())

    with pytest.raises(StorageError) as refusal:
        World(sessions, NeverMine(sessions)).keep(0, said("a"))

    assert refusal.value.retryable


def test_what_cannot_be_compared_is_not_acknowledged() -> None:
    sessions = FakeSessions(session())
    world = World(sessions, CheckpointsThatCannotRead(sessions))
    world.keep(0, said("a"))

    with pytest.raises(StorageError):
        world.keep(0, said("a", "b"))


# ---- Who may --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "refusal"),
    [
        (FakeCaller("globex"), SessionNotFound),
        (FakeClient(SessionId("019a0000-0000-7000-8000-00000000000f")), SessionNotFound),
        (UnknownCaller(), InvalidApiKey),
    ],
    ids=["another workspace", "another session's client", "nobody"],
)
def test_nobody_else_keeps_anything(caller: SessionCaller, refusal: type[Exception]) -> None:
    world = World()

    with pytest.raises(refusal):
        world.keep(0, said("a"), caller)

    assert world.turns == []
