"""Checkpoints in DynamoDB: appended in order, all or nothing, and counted."""

import asyncio
import base64
import gzip
import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import pytest

from pi_voice.domain.errors import SessionNotActive, StorageError, UnreadableRow
from pi_voice.domain.ids import TranscriptId, uuid7
from pi_voice.domain.livekit_webhooks import RoomEvent
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcript_api import CompleteSessionRequest, SaveTranscriptRequest
from pi_voice.domain.transcripts import TranscriptTurn, check_checkpoint
from pi_voice.use_cases.end_session import EndSession
from pi_voice.use_cases.save_transcript import SaveTranscript
from tests.integration.samples import NOW, TURNS, a_session, added, found
from tests.integration.store import CONFLICTS, Request, Row, Store, cancelling, never_sent, sent_twice
from tests.support.fakes import FakeCaller

run = asyncio.run

ACME = FakeCaller("acme")


def user_turns(*texts: str) -> list[TranscriptTurn]:
    return [{"role": "user", "text": text} for text in texts]


def appended(store: Store, session: Session, *pieces: list[TranscriptTurn]) -> Session:
    for piece in pieces:
        grown = run(store.checkpoints.append(session, piece, 100, NOW))
        assert grown is not None
        session = grown
    return session


def pieces(store: Store) -> list[Row]:
    return sorted(store.rows(store.names.transcripts), key=lambda row: str(row["piece"]["S"]))


# ---- Appending --------------------------------------------------------------------------------------


def test_turns_are_returned_as_they_were_appended_one_piece_per_request(store: Store) -> None:
    session = added(store)

    grown = appended(store, session, TURNS, user_turns("and", "then"), user_turns("some"))

    assert run(store.checkpoints.read(grown)) == [*TURNS, *user_turns("and", "then", "some")]
    assert grown == found(store, session)
    assert (grown.checkpoint_turns, grown.checkpoint_bytes) == (6, 300)
    assert [piece["piece"]["S"] for piece in pieces(store)] == [
        "checkpoint#0#000000",
        "checkpoint#0#000003",
        "checkpoint#0#000005",
    ]


def test_a_session_without_checkpoints_has_no_turns(store: Store) -> None:
    session = added(store)

    assert run(store.through(query=never_sent).checkpoints.read(session)) == []


def test_turns_appended_after_the_session_was_read_are_not_returned(store: Store) -> None:
    first = appended(store, added(store), TURNS)
    appended(store, first, user_turns("later"))

    assert run(store.checkpoints.read(first)) == TURNS


def test_turns_belong_to_one_session(store: Store) -> None:
    ours, theirs = appended(store, added(store), TURNS), appended(store, added(store), user_turns("else"))

    assert run(store.checkpoints.read(ours)) == TURNS
    assert run(store.checkpoints.read(theirs)) == user_turns("else")


def test_turns_are_not_stored_as_plain_text(store: Store) -> None:
    appended(store, added(store), TURNS)

    assert "How old are you" not in store.words()


def test_the_largest_checkpoint_fits_one_piece_even_if_it_hardly_compresses(store: Store) -> None:
    noise = [
        base64.b85encode(hashlib.shake_256(bytes([number])).digest(15_900))
        .decode()
        .replace("\\", "/")
        .replace('"', "'")
        for number in range(16)
    ]
    turns = user_turns(*noise)
    turns[-1]["text"] = turns[-1]["text"][: 300_000 - check_checkpoint(turns[:-1], 0, 0, 0) - 29]
    size = check_checkpoint(turns, 0, 0, 0)
    assert 299_990 <= size <= 300_000

    grown = appended(store, added(store), turns)

    assert run(store.checkpoints.read(grown)) == turns
    [piece] = pieces(store)
    assert 200_000 < len(piece["data"]["B"]) <= 350_000


def test_pieces_in_several_responses_are_joined(store: Store) -> None:
    grown = appended(store, added(store), *(user_turns(str(number)) for number in range(5)))

    def one_at_a_time(query: Request) -> Request:
        return lambda **arguments: query(**arguments, Limit=1)

    assert run(store.through(query=one_at_a_time).checkpoints.read(grown)) == user_turns(*"01234")


def test_turns_whose_first_response_was_lost_are_stored_once(store: Store) -> None:
    session = added(store)

    run(store.through(transact_write_items=sent_twice).checkpoints.append(session, TURNS, 100, NOW))

    there = found(store, session)
    assert (there.checkpoint_turns, there.checkpoint_bytes) == (3, 100)
    assert run(store.checkpoints.read(there)) == TURNS


def test_resending_turns_whose_response_was_lost_succeeds(store: Store) -> None:
    session = added(store)
    lossy = store.through(transact_write_items=sent_twice)
    save_transcript = SaveTranscript(lossy.sessions, lossy.checkpoints)

    response = run(
        save_transcript(session.session_id, SaveTranscriptRequest.model_validate({"from": 0, "turns": TURNS}), ACME)
    )

    assert response.next == 3
    assert run(store.checkpoints.read(found(store, session))) == TURNS


# ---- Refusals ---------------------------------------------------------------------------------------


def test_turns_are_not_appended_if_others_were_appended_since_the_read(store: Store) -> None:
    session = added(store)
    grown = appended(store, session, TURNS)

    assert run(store.checkpoints.append(session, user_turns("a", "rival"), 50, NOW)) is None
    assert found(store, session) == grown
    assert run(store.checkpoints.read(grown)) == TURNS


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_no_turns_are_appended_to_an_ended_session(store: Store, status: Literal["completed", "failed"]) -> None:
    session = added(store, status=status)

    assert run(store.checkpoints.append(session, TURNS, 100, NOW)) is None
    assert (found(store, session), pieces(store)) == (session, [])


def test_turns_of_a_hung_up_call_are_still_appended(store: Store) -> None:
    session = added(store)
    run(store.sessions.hang_up(session, "stopped", NOW + 60))

    assert run(store.checkpoints.append(session, TURNS, 100, NOW)) is not None


@pytest.mark.parametrize("number", [0, 3])
def test_missing_pieces_are_logged_and_raise_a_storage_error(store: Store, number: int, logged: io.StringIO) -> None:
    grown = appended(store, added(store), TURNS, user_turns("more"))
    store.dynamodb.delete_item(
        TableName=store.names.transcripts,
        Key={"session_id": {"S": grown.session_id}, "piece": {"S": f"checkpoint#0#00000{number}"}},
    )

    with pytest.raises(StorageError):
        run(store.checkpoints.read(grown))

    assert "checkpoint_turns_missing" in logged.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"no gzip", gzip.compress(b"{"), gzip.compress(b'[{"role": "user"}]')],
    ids=["empty", "not compressed", "no JSON", "a missing field"],
)
def test_a_broken_piece_is_a_storage_error_and_logged(store: Store, logged: io.StringIO, data: bytes) -> None:
    grown = appended(store, added(store), TURNS)
    store.dynamodb.put_item(TableName=store.names.transcripts, Item={**pieces(store)[0], "data": {"B": data}})

    with pytest.raises(UnreadableRow):
        run(store.checkpoints.read(grown))

    assert "row_unreadable" in logged.getvalue()


def test_turns_of_a_newer_version_are_read(store: Store) -> None:
    session = replace(added(store), checkpoint_turns=1)
    turns = [{"role": "interpreter", "text": "Hi", "emotion": "happy"}]
    row: Row = {
        "session_id": {"S": session.session_id},
        "piece": {"S": "checkpoint#0#000000"},
        "data": {"B": gzip.compress(json.dumps(turns).encode())},
    }
    store.dynamodb.put_item(TableName=store.names.transcripts, Item=row)

    assert run(store.checkpoints.read(session)) == [{"role": "interpreter", "text": "Hi"}]


# ---- Canceled transactions --------------------------------------------------------------------------


@pytest.mark.parametrize("reasons", CONFLICTS, ids=" ".join)
@pytest.mark.parametrize("times", [1, 4])
def test_a_transaction_that_conflicts_or_is_throttled_is_retried(
    store: Store, reasons: tuple[str, str], times: int
) -> None:
    session = added(store)

    grown = run(
        store.through(transact_write_items=cancelling(times, *reasons)).checkpoints.append(session, TURNS, 100, NOW)
    )

    assert grown == found(store, session)
    assert run(store.checkpoints.read(found(store, session))) == TURNS


def test_a_transaction_that_always_conflicts_is_a_storage_error(store: Store, logged: io.StringIO) -> None:
    session = added(store)
    busy = store.through(transact_write_items=cancelling(99, "TransactionConflict", "None"))

    with pytest.raises(StorageError) as raised:
        run(busy.checkpoints.append(session, TURNS, 100, NOW))

    assert raised.value.retryable
    assert (found(store, session), pieces(store)) == (session, [])
    assert "what the caller said" not in logged.getvalue()


@pytest.mark.parametrize("reasons", [("ConditionalCheckFailed", "None"), ("ConditionalCheckFailed", "Conflict")])
def test_a_transaction_whose_condition_failed_is_not_retried(store: Store, reasons: tuple[str, str]) -> None:
    session = added(store)
    refusing = store.through(transact_write_items=cancelling(1, *reasons))

    assert run(refusing.checkpoints.append(session, TURNS, 100, NOW)) is None
    assert (found(store, session), pieces(store)) == (session, [])


def test_a_transaction_that_succeeded_but_was_reported_as_canceled_is_recognized(store: Store) -> None:
    session = added(store)
    lossy = store.through(transact_write_items=cancelling(1, "TransactionConflict", "None", after=True))
    save_transcript = SaveTranscript(lossy.sessions, lossy.checkpoints)

    response = run(
        save_transcript(session.session_id, SaveTranscriptRequest.model_validate({"from": 0, "turns": TURNS}), ACME)
    )

    assert response.next == 3
    assert run(store.checkpoints.read(found(store, session))) == TURNS


# ---- Races ------------------------------------------------------------------------------------------


def test_one_of_many_concurrent_writers_wins_and_its_turns_stay_together(store: Store) -> None:
    session = added(store)
    writers = [[f"{writer} {number}" for number in range(3)] for writer in range(16)]

    def write(texts: list[str]) -> Session | None:
        return run(store.checkpoints.append(session, user_turns(*texts), 10, NOW))

    with ThreadPoolExecutor(max_workers=16) as threads:
        outcomes = list(threads.map(write, writers))

    [winner] = [number for number, outcome in enumerate(outcomes) if outcome is not None]
    assert run(store.checkpoints.read(found(store, session))) == user_turns(*writers[winner])
    assert found(store, session).checkpoint_bytes == 10
    assert len(pieces(store)) == 1


def test_clients_that_send_the_same_turns_concurrently_all_succeed(store: Store) -> None:
    session = added(store)
    sent = SaveTranscriptRequest.model_validate({"from": 0, "turns": TURNS})

    def save(_: int) -> int:
        return run(SaveTranscript(store.sessions, store.checkpoints)(session.session_id, sent, ACME)).next

    with ThreadPoolExecutor(max_workers=8) as threads:
        assert set(threads.map(save, range(8))) == {3}

    assert run(store.checkpoints.read(found(store, session))) == TURNS


def test_a_turn_acknowledged_during_the_completion_is_in_the_transcript(store: Store) -> None:
    for _ in range(5):
        session = appended(store, added(store), TURNS)
        acknowledged: list[int] = []

        def append(session: Session = session, acknowledged: list[int] = acknowledged) -> None:
            save_transcript = SaveTranscript(store.sessions, store.checkpoints)
            for number in range(3, 20):
                sent = SaveTranscriptRequest.model_validate({"from": number, "turns": user_turns(f"turn {number}")})
                try:
                    acknowledged.append(run(save_transcript(session.session_id, sent, ACME)).next)
                except SessionNotActive:
                    return

        def complete(session: Session = session) -> list[TranscriptTurn]:
            end_session = EndSession(store.sessions, store.transcripts, store.checkpoints)
            while True:
                try:
                    _, turns = run(end_session(session, CompleteSessionRequest(), "client"))
                except StorageError:  # turns were appended faster than read; a client retries
                    continue
                return turns

        with ThreadPoolExecutor(max_workers=2) as threads:
            completing, appending = threads.submit(complete), threads.submit(append)
            turns = completing.result()
            appending.result()

        done = found(store, session)
        assert done.transcript_id is not None
        assert run(store.transcripts.get(done.session_id, done.transcript_id)) == turns
        assert len(turns) == done.turns == done.checkpoint_turns == max(acknowledged, default=3)


def test_a_concurrent_room_event_is_stored_beside_the_turns(store: Store) -> None:
    session = added(store)

    async def both() -> None:
        await asyncio.gather(
            store.checkpoints.append(session, TURNS, 100, NOW),
            store.sessions.merge_room_event(RoomEvent(session.session_id, "RM_ours", joined_at=NOW + 5)),
        )

    run(both())

    there = found(store, session)
    assert (there.checkpoint_turns, there.livekit.first_joined_at) == (3, NOW + 5)


# ---- Deletion and retention -------------------------------------------------------------------------


def test_deleting_what_was_said_deletes_saved_turns_and_transcript_of_that_session_only(store: Store) -> None:
    ours, theirs = (
        appended(store, added(store), TURNS, user_turns("more")),
        appended(store, added(store), user_turns("else")),
    )
    run(store.transcripts.put(ours.session_id, TranscriptId(uuid7()), TURNS))

    run(store.transcripts.delete(ours.session_id))

    assert [piece["session_id"]["S"] for piece in pieces(store)] == [theirs.session_id]


def test_saved_turns_and_transcript_of_a_session_are_read_apart(store: Store) -> None:
    session, transcript_id = appended(store, added(store), TURNS), TranscriptId(uuid7())
    run(store.transcripts.put(session.session_id, transcript_id, user_turns("corrected")))

    assert run(store.checkpoints.read(session)) == TURNS
    assert run(store.transcripts.get(session.session_id, transcript_id)) == user_turns("corrected")


def test_without_a_retention_checkpoints_never_expire(store: Store) -> None:
    appended(store, added(store), TURNS)

    [piece] = pieces(store)
    assert "ttl" not in piece


def test_with_a_retention_checkpoints_expire_with_their_session(store: Store) -> None:
    session = a_session()
    run(store.sessions_kept(days=30).add(session))

    run(store.checkpoints_kept(days=30).append(session, TURNS, 100, NOW))

    expiry = {"N": str(NOW + 30 * 86_400)}
    assert [piece["ttl"] for piece in pieces(store)] == [expiry]
    assert store.row_of(session)["ttl"] == expiry


def test_completing_a_session_without_checkpoints_reads_none(store: Store) -> None:
    session = added(store)
    silent = store.through(query=never_sent, put_item=never_sent)

    ended, turns = run(
        EndSession(silent.sessions, silent.transcripts, silent.checkpoints)(session, CompleteSessionRequest(), "client")
    )

    assert (ended.status, ended.turns, turns) == ("completed", 0, [])
