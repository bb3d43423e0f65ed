"""Turns that are kept in DynamoDB as a call goes: all or nothing, one behind the other, and counted."""

import asyncio
import base64
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal

import pytest

from pi_voice.adapters.dynamodb.transcripts import PIECE_BYTES
from pi_voice.domain.errors import SessionNotActive, StorageError
from pi_voice.domain.ids import TranscriptId
from pi_voice.domain.livekit_webhooks import RoomEvent
from pi_voice.domain.session_api import CompleteSessionRequest, SaveTranscriptRequest
from pi_voice.domain.sessions import DAY_SECONDS, Session
from pi_voice.domain.transcripts import MAX_CHECKPOINT_BYTES, TranscriptTurn, check_checkpoint
from pi_voice.use_cases.end_session import EndSession
from pi_voice.use_cases.save_transcript import SaveTranscript
from tests.fakes import FakeCaller
from tests.integration.samples import NOW, TURNS, a_call_end, a_session
from tests.integration.store import CONFLICTS, Request, Row, Store, asked_twice, cancelling, never_asked

run = asyncio.run

ACME = FakeCaller("acme")


def kept(store: Store, **changes: Any) -> Session:
    session = a_session(**changes)
    run(store.sessions.add(session))
    return session


def found(store: Store, session: Session) -> Session:
    there = run(store.sessions.get(session.session_id))
    assert there is not None
    return there


def said(*texts: str) -> list[TranscriptTurn]:
    return [{"role": "user", "text": text} for text in texts]


def appended(store: Store, session: Session, *pieces: list[TranscriptTurn]) -> Session:
    for piece in pieces:
        grown = run(store.checkpoints.append(session, piece, 100))
        assert grown is not None
        session = grown
    return session


def pieces(store: Store) -> list[Row]:
    return sorted(store.rows(store.names.transcripts), key=lambda row: int(row["piece"]["N"]))


# ---- Appending --------------------------------------------------------------------------------------


def test_turns_come_back_as_they_were_kept_one_piece_behind_the_other(store: Store) -> None:
    session = kept(store)

    grown = appended(store, session, TURNS, said("and", "then"), said("some"))

    assert run(store.checkpoints.read(grown)) == [*TURNS, *said("and", "then", "some")]
    assert grown == found(store, session) == replace(session, checkpoint_turns=6, checkpoint_bytes=300)
    assert [piece["piece"]["N"] for piece in pieces(store)] == ["0", "3", "5"]


def test_a_session_of_which_nothing_was_kept_has_no_turns(store: Store) -> None:
    assert run(store.checkpoints.read(kept(store))) == []


def test_turns_are_read_as_far_as_the_session_was_read(store: Store) -> None:
    first = appended(store, kept(store), TURNS)
    appended(store, first, said("later"))

    assert run(store.checkpoints.read(first)) == TURNS


def test_turns_of_one_session_are_not_another_s(store: Store) -> None:
    ours, theirs = appended(store, kept(store), TURNS), appended(store, kept(store), said("else"))

    assert run(store.checkpoints.read(ours)) == TURNS
    assert run(store.checkpoints.read(theirs)) == said("else")


def test_what_was_said_is_not_stored_in_clear(store: Store) -> None:
    appended(store, kept(store), TURNS)

    assert "How old are you" not in store.words()


def test_the_largest_checkpoint_there_is_fits_one_piece_however_badly_it_compresses(store: Store) -> None:
    noise = [
        base64.b85encode(hashlib.shake_256(bytes([number])).digest(15_900))
        .decode()
        .replace("\\", "/")
        .replace('"', "'")
        for number in range(16)
    ]
    turns = said(*noise)
    turns[-1]["text"] = turns[-1]["text"][: MAX_CHECKPOINT_BYTES - check_checkpoint(turns[:-1], 0, 0, 0) - 29]
    size = check_checkpoint(turns, 0, 0, 0)
    assert MAX_CHECKPOINT_BYTES - 10 <= size <= MAX_CHECKPOINT_BYTES

    grown = appended(store, kept(store), turns)

    assert run(store.checkpoints.read(grown)) == turns
    [piece] = pieces(store)
    assert 200_000 < len(piece["data"]["B"]) <= PIECE_BYTES


def test_pieces_that_come_in_several_answers_are_put_together(store: Store) -> None:
    grown = appended(store, kept(store), *(said(str(number)) for number in range(5)))

    def one_at_a_time(query: Request) -> Request:
        return lambda **arguments: query(**arguments, Limit=1)

    assert run(store.through(query=one_at_a_time).checkpoints.read(grown)) == said(*"01234")


def test_turns_whose_first_answer_got_lost_are_kept_once(store: Store) -> None:
    session = kept(store)

    run(store.through(transact_write_items=asked_twice).checkpoints.append(session, TURNS, 100))

    there = found(store, session)
    assert (there.checkpoint_turns, there.checkpoint_bytes) == (3, 100)
    assert run(store.checkpoints.read(there)) == TURNS


def test_who_sends_turns_again_whose_answer_got_lost_is_told_that_they_are_kept(store: Store) -> None:
    session = kept(store)
    lossy = store.through(transact_write_items=asked_twice)
    keeping = SaveTranscript(lossy.sessions, lossy.checkpoints)

    told = run(keeping(session.session_id, SaveTranscriptRequest.model_validate({"from": 0, "turns": TURNS}), ACME))

    assert told.next == 3
    assert run(store.checkpoints.read(found(store, session))) == TURNS


# ---- Refusals ---------------------------------------------------------------------------------------


def test_turns_are_not_kept_behind_others_than_those_that_were_read(store: Store) -> None:
    session = kept(store)
    grown = appended(store, session, TURNS)

    assert run(store.checkpoints.append(session, said("a", "rival"), 50)) is None
    assert found(store, session) == grown
    assert run(store.checkpoints.read(grown)) == TURNS


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_nothing_is_kept_of_a_session_that_has_ended(store: Store, status: Literal["completed", "failed"]) -> None:
    session = kept(store, status=status)

    assert run(store.checkpoints.append(session, TURNS, 100)) is None
    assert (found(store, session), pieces(store)) == (session, [])


def test_turns_of_a_call_that_was_hung_up_are_still_kept(store: Store) -> None:
    session = kept(store)
    run(store.sessions.hang_up(session.session_id, "stopped", NOW + 60))

    assert run(store.checkpoints.append(session, TURNS, 100)) is not None


@pytest.mark.parametrize("number", ["0", "3"])
def test_kept_turns_that_are_missing_are_told_and_not_passed_over(
    store: Store, number: str, logged: io.StringIO
) -> None:
    grown = appended(store, kept(store), TURNS, said("more"))
    store.dynamodb.delete_item(
        TableName=store.names.transcripts,
        Key={"transcript_id": {"S": grown.session_id}, "piece": {"N": number}},
    )

    with pytest.raises(StorageError):
        run(store.checkpoints.read(grown))

    assert "kept turns are missing" in logged.getvalue()


# ---- Cancelled transactions -------------------------------------------------------------------------


@pytest.mark.parametrize("reasons", CONFLICTS, ids=" ".join)
@pytest.mark.parametrize("times", [1, 4])
def test_a_transaction_that_met_another_is_repeated(store: Store, reasons: tuple[str, str], times: int) -> None:
    session = kept(store)

    grown = run(store.through(transact_write_items=cancelling(times, *reasons)).checkpoints.append(session, TURNS, 100))

    assert grown == found(store, session)
    assert run(store.checkpoints.read(found(store, session))) == TURNS


def test_a_transaction_that_always_meets_another_is_a_storage_error(store: Store, logged: io.StringIO) -> None:
    session = kept(store)
    busy = store.through(transact_write_items=cancelling(99, "TransactionConflict", "None"))

    with pytest.raises(StorageError) as told:
        run(busy.checkpoints.append(session, TURNS, 100))

    assert told.value.retryable
    assert (found(store, session), pieces(store)) == (session, [])
    assert "what the caller said" not in logged.getvalue()


@pytest.mark.parametrize("reasons", [("ConditionalCheckFailed", "None"), ("ConditionalCheckFailed", "Conflict")])
def test_a_transaction_whose_condition_did_not_hold_is_not_repeated(store: Store, reasons: tuple[str, str]) -> None:
    session = kept(store)
    refusing = store.through(transact_write_items=cancelling(1, *reasons))

    assert run(refusing.checkpoints.append(session, TURNS, 100)) is None
    assert (found(store, session), pieces(store)) == (session, [])


def test_a_transaction_that_was_carried_out_and_told_as_cancelled_is_found_to_be_there(store: Store) -> None:
    session = kept(store)
    lossy = store.through(transact_write_items=cancelling(1, "TransactionConflict", "None", after=True))
    keeping = SaveTranscript(lossy.sessions, lossy.checkpoints)

    told = run(keeping(session.session_id, SaveTranscriptRequest.model_validate({"from": 0, "turns": TURNS}), ACME))

    assert told.next == 3
    assert run(store.checkpoints.read(found(store, session))) == TURNS


# ---- Races ------------------------------------------------------------------------------------------


def test_of_many_writers_at_once_one_comes_first_and_nobody_comes_between_its_turns(store: Store) -> None:
    session = kept(store)
    writers = [[f"{writer} {number}" for number in range(3)] for writer in range(16)]

    def write(texts: list[str]) -> Session | None:
        return run(store.checkpoints.append(session, said(*texts), 10))

    with ThreadPoolExecutor(max_workers=16) as threads:
        outcomes = list(threads.map(write, writers))

    [winner] = [number for number, outcome in enumerate(outcomes) if outcome is not None]
    assert run(store.checkpoints.read(found(store, session))) == said(*writers[winner])
    assert found(store, session).checkpoint_bytes == 10
    assert len(pieces(store)) == 1


def test_clients_that_send_the_same_at_once_are_all_told_that_it_is_kept(store: Store) -> None:
    session = kept(store)
    sent = SaveTranscriptRequest.model_validate({"from": 0, "turns": TURNS})

    def keep(_: int) -> int:
        return run(SaveTranscript(store.sessions, store.checkpoints)(session.session_id, sent, ACME)).next

    with ThreadPoolExecutor(max_workers=8) as threads:
        assert set(threads.map(keep, range(8))) == {3}

    assert run(store.checkpoints.read(found(store, session))) == TURNS


def test_a_turn_that_was_acknowledged_while_the_session_was_completed_is_in_its_transcript(store: Store) -> None:
    for _ in range(5):
        session = appended(store, kept(store), TURNS)
        acknowledged: list[int] = []

        def append(session: Session = session, acknowledged: list[int] = acknowledged) -> None:
            keeping = SaveTranscript(store.sessions, store.checkpoints)
            for number in range(3, 20):
                sent = SaveTranscriptRequest.model_validate({"from": number, "turns": said(f"turn {number}")})
                try:
                    acknowledged.append(run(keeping(session.session_id, sent, ACME)).next)
                except SessionNotActive:
                    return

        def complete(session: Session = session) -> list[TranscriptTurn]:
            closing = EndSession(store.sessions, store.transcripts, store.checkpoints)
            while True:
                try:
                    _, turns = run(closing(session, CompleteSessionRequest(), "client"))
                except StorageError:  # the turns came faster than they could be read: the client asks again
                    continue
                return turns

        with ThreadPoolExecutor(max_workers=2) as threads:
            completing, appending = threads.submit(complete), threads.submit(append)
            turns = completing.result()
            appending.result()

        done = found(store, session)
        assert done.transcript_id is not None
        assert run(store.transcripts.get(done.transcript_id)) == turns
        assert len(turns) == done.turns == done.checkpoint_turns == max(acknowledged, default=3)


def test_what_livekit_tells_in_the_same_moment_is_kept_beside_the_turns(store: Store) -> None:
    session = kept(store)

    async def both() -> None:
        await asyncio.gather(
            store.checkpoints.append(session, TURNS, 100),
            store.sessions.merge_room_event(RoomEvent(session.session_id, "RM_ours", joined_at=NOW + 5)),
        )

    run(both())

    there = found(store, session)
    assert (there.checkpoint_turns, there.livekit.first_joined_at) == (3, NOW + 5)


# ---- Afterwards -------------------------------------------------------------------------------------


def test_kept_turns_are_deleted_with_all_their_pieces_and_nobody_else_s_are(store: Store) -> None:
    ours, theirs = appended(store, kept(store), TURNS, said("more")), appended(store, kept(store), said("else"))

    run(store.checkpoints.delete(ours.session_id))
    run(store.checkpoints.delete(ours.session_id))

    assert [piece["transcript_id"]["S"] for piece in pieces(store)] == [theirs.session_id]


def test_what_was_kept_is_beside_the_transcript_that_became_of_it(store: Store) -> None:
    session = appended(store, kept(store), TURNS)
    end = a_call_end(checkpoint_turns=3)
    run(store.transcripts.put(end.transcript_id, TURNS))
    run(store.sessions.complete(session.session_id, end))

    run(store.checkpoints.delete(session.session_id))

    assert run(store.transcripts.get(end.transcript_id)) == TURNS
    assert run(store.transcripts.get(TranscriptId(session.session_id))) is None


def test_without_a_retention_kept_turns_never_expire(store: Store) -> None:
    appended(store, kept(store), TURNS)

    assert all("ttl" not in piece for piece in pieces(store))


def test_with_a_retention_kept_turns_expire_with_their_session(store: Store) -> None:
    session = a_session()
    run(store.sessions_kept(days=30).add(session))

    run(store.checkpoints_kept(days=30).append(session, TURNS, 100))

    expiry = {"N": str(NOW + 30 * DAY_SECONDS)}
    assert [piece["ttl"] for piece in pieces(store)] == [expiry]
    assert store.row_of(session)["ttl"] == expiry


def test_nothing_is_asked_of_the_store_where_nothing_was_kept(store: Store) -> None:
    session = kept(store)
    silent = store.through(query=never_asked, put_item=never_asked)

    ended, turns = run(
        EndSession(silent.sessions, silent.transcripts, silent.checkpoints)(session, CompleteSessionRequest(), "client")
    )

    assert (ended.status, ended.turns, turns) == ("completed", 0, [])
