"""Transcripts in DynamoDB: compressed, in pieces under their session's id, with retention."""

import asyncio
import base64
import gzip
import hashlib
import io
import json
import time
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from pi_voice.adapters.dynamodb.transcripts import pack
from pi_voice.domain import transcripts
from pi_voice.domain.errors import StorageError, UnreadableRow
from pi_voice.domain.ids import SessionId, TranscriptId, uuid7
from pi_voice.domain.transcripts import TranscriptTurn
from tests.integration.samples import NOW, TURNS
from tests.integration.store import Request, Row, Store, never_sent

run = asyncio.run

SESSION_ID = SessionId(uuid7())


def a_long_call() -> list[TranscriptTurn]:
    """Return a transcript of the maximum size of a megabyte that hardly compresses."""
    turns: list[TranscriptTurn] = [
        {"role": "user", "text": base64.b64encode(hashlib.shake_256(bytes([number])).digest(15_000)).decode()}
        for number in range(52)
    ]
    transcripts.check_size(turns)
    return turns


def pieces(store: Store) -> list[Row]:
    return sorted(store.rows(store.names.transcripts), key=lambda row: str(row["piece"]["S"]))


def test_a_transcript_is_returned_as_it_was_stored(store: Store) -> None:
    transcript_id = TranscriptId(uuid7())

    run(store.transcripts.put(SESSION_ID, transcript_id, TURNS))

    assert run(store.transcripts.get(SESSION_ID, transcript_id)) == TURNS
    assert run(store.transcripts.get(SESSION_ID, TranscriptId(uuid7()))) is None


def test_the_key_of_a_piece_is_its_session_and_its_kind_attempt_and_number(store: Store) -> None:
    transcript_id = TranscriptId(uuid7())

    run(store.transcripts.put(SESSION_ID, transcript_id, a_long_call()))

    keys = [(piece["session_id"]["S"], piece["piece"]["S"]) for piece in pieces(store)]
    assert keys[:2] == [(SESSION_ID, f"transcript#{transcript_id}#{number}") for number in ("000", "001")]


def test_a_transcript_is_found_only_under_its_own_session(store: Store) -> None:
    transcript_id = TranscriptId(uuid7())

    run(store.transcripts.put(SESSION_ID, transcript_id, TURNS))

    assert run(store.transcripts.get(SessionId(uuid7()), transcript_id)) is None


def test_transcripts_of_two_attempts_are_not_mixed(store: Store) -> None:
    ours, theirs = TranscriptId(uuid7()), TranscriptId(uuid7())
    run(store.transcripts.put(SESSION_ID, ours, TURNS))
    run(store.transcripts.put(SESSION_ID, theirs, a_long_call()))

    assert run(store.transcripts.get(SESSION_ID, ours)) == TURNS


def test_a_transcript_of_thousands_of_turns_fits_one_piece(store: Store) -> None:
    transcript_id = TranscriptId(uuid7())
    turns: list[TranscriptTurn] = [
        {"role": "agent", "text": f"Question {number}?", "start_ms": number} for number in range(5_000)
    ]

    run(store.transcripts.put(SESSION_ID, transcript_id, turns))

    assert run(store.transcripts.get(SESSION_ID, transcript_id)) == turns
    assert len(pieces(store)) == 1


def test_the_longest_transcript_is_stored_in_pieces_that_fit_an_item_each(store: Store) -> None:
    transcript_id = TranscriptId(uuid7())
    turns = a_long_call()

    run(store.transcripts.put(SESSION_ID, transcript_id, turns))

    assert run(store.transcripts.get(SESSION_ID, transcript_id)) == turns
    assert len(pieces(store)) >= 2
    assert all(len(piece["data"]["B"]) <= 350_000 for piece in pieces(store))
    assert max(len(turn["text"]) for turn in turns) <= 20_000


def test_pieces_in_several_responses_are_joined(store: Store) -> None:
    transcript_id = TranscriptId(uuid7())
    turns = a_long_call()
    run(store.transcripts.put(SESSION_ID, transcript_id, turns))

    def one_at_a_time(query: Request) -> Request:
        return lambda **arguments: query(**arguments, Limit=1)

    assert run(store.through(query=one_at_a_time).transcripts.get(SESSION_ID, transcript_id)) == turns


def test_turns_are_not_stored_as_plain_text(store: Store) -> None:
    run(store.transcripts.put(SESSION_ID, TranscriptId(uuid7()), TURNS))

    assert "How old are you" not in store.words()


def test_without_a_retention_a_transcript_never_expires(store: Store) -> None:
    run(store.transcripts.put(SESSION_ID, TranscriptId(uuid7()), TURNS))

    [piece] = pieces(store)
    assert "ttl" not in piece


def test_with_a_retention_every_piece_expires_that_many_days_after_its_write(store: Store) -> None:
    transcripts = store.transcripts_kept(30, lambda: NOW + 0.9)

    run(transcripts.put(SESSION_ID, TranscriptId(uuid7()), a_long_call()))

    assert {piece["ttl"]["N"] for piece in pieces(store)} == {str(NOW + 30 * 86_400)}


@pytest.mark.parametrize("retention_days", [0, 30])
def test_an_orphaned_transcript_expires_after_a_day(store: Store, retention_days: int) -> None:
    transcript_id = TranscriptId(uuid7())
    transcripts = store.transcripts_kept(retention_days, lambda: NOW)
    turns = a_long_call()
    run(transcripts.put(SESSION_ID, transcript_id, turns))

    run(transcripts.expire(SESSION_ID, transcript_id, turns))

    assert {piece["ttl"]["N"] for piece in pieces(store)} == {str(NOW + 86_400)}
    assert run(transcripts.get(SESSION_ID, transcript_id)) == turns


def test_expiring_a_partly_written_transcript_creates_no_pieces(store: Store) -> None:
    transcript_id = TranscriptId(uuid7())
    turns = a_long_call()
    run(store.transcripts.put(SESSION_ID, transcript_id, turns))
    key = {name: pieces(store)[1][name] for name in ("session_id", "piece")}
    store.dynamodb.delete_item(TableName=store.names.transcripts, Key=key)
    before = {piece["piece"]["S"] for piece in pieces(store)}

    run(store.transcripts.expire(SESSION_ID, transcript_id, turns))
    run(store.transcripts.expire(SESSION_ID, TranscriptId(uuid7()), turns))

    assert {piece["piece"]["S"] for piece in pieces(store)} == before
    assert all("ttl" in piece for piece in pieces(store))


def test_a_failed_piece_is_reported_after_all_other_writes_have_ended(store: Store) -> None:
    turns = a_long_call()
    written: list[int] = []

    def failing_on_the_first(put: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            number = int(arguments["Item"]["piece"]["S"].rpartition("#")[2])
            if number == 0:
                raise ReadTimeoutError(endpoint_url="")
            time.sleep(0.05)  # so that the other writes are in flight when the first fails
            answer = put(**arguments)
            written.append(number)
            return answer

        return ask

    async def attempt() -> list[int]:
        with pytest.raises(StorageError):
            await store.through(put_item=failing_on_the_first).transcripts.put(SESSION_ID, TranscriptId(uuid7()), turns)
        return sorted(written)

    assert run(attempt()) == list(range(1, len(pack(turns))))
    assert len(written) >= 1


# ---- Rows of other versions -------------------------------------------------------------------------


def stored(store: Store, turns: object, kind: str = "transcript#1#000") -> None:
    data = gzip.compress(json.dumps(turns).encode())
    row: Row = {"session_id": {"S": SESSION_ID}, "piece": {"S": kind}, "data": {"B": data}, "codec": {"S": "gzip"}}
    store.dynamodb.put_item(TableName=store.names.transcripts, Item=row)


def test_turns_with_more_fields_are_read_without_them(store: Store) -> None:
    stored(store, [{"role": "user", "text": "Hi", "start_ms": 5, "emotion": "happy"}])

    turns = run(store.transcripts.get(SESSION_ID, TranscriptId("1")))

    assert turns == [{"role": "user", "text": "Hi", "start_ms": 5}]


def test_turns_with_fewer_fields_are_read(store: Store) -> None:
    stored(store, [{"role": "agent", "text": "Hi"}])

    assert run(store.transcripts.get(SESSION_ID, TranscriptId("1"))) == [{"role": "agent", "text": "Hi"}]


def test_a_role_that_only_a_newer_version_knows_is_kept(store: Store) -> None:
    stored(store, [{"role": "interpreter", "text": "Hi", "emotion": "happy"}])

    assert run(store.transcripts.get(SESSION_ID, TranscriptId("1"))) == [{"role": "interpreter", "text": "Hi"}]


@pytest.mark.parametrize("turns", [[{"role": 5, "text": "secret"}], [{"role": "user"}], ["secret"], {}, "secret"])
def test_turns_of_wrong_types_are_a_storage_error_and_logged_without_content(
    store: Store, logged: io.StringIO, turns: object
) -> None:
    stored(store, turns)

    with pytest.raises(UnreadableRow):
        run(store.transcripts.get(SESSION_ID, TranscriptId("1")))

    assert "row_unreadable" in logged.getvalue()
    assert SESSION_ID in logged.getvalue()
    assert "secret" not in logged.getvalue()


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_transcript_with_a_missing_piece_is_a_storage_error(store: Store, missing: int) -> None:
    transcript_id = TranscriptId(uuid7())
    run(store.transcripts.put(SESSION_ID, transcript_id, a_long_call()))
    assert len(pieces(store)) == 3
    key = {name: pieces(store)[missing][name] for name in ("session_id", "piece")}
    store.dynamodb.delete_item(TableName=store.names.transcripts, Key=key)

    with pytest.raises(UnreadableRow):
        run(store.transcripts.get(SESSION_ID, transcript_id))


# ---- Deleting what was said in a session ------------------------------------------------------------


def test_a_deletion_deletes_all_pieces_of_the_session_and_no_others(store: Store) -> None:
    other, transcript_id = SessionId(uuid7()), TranscriptId(uuid7())
    run(store.transcripts.put(SESSION_ID, TranscriptId(uuid7()), a_long_call()))
    run(store.transcripts.put(SESSION_ID, TranscriptId(uuid7()), TURNS))  # of a lost race
    run(store.transcripts.put(other, transcript_id, TURNS))
    for kind in ("checkpoint#0#000000", "tool_call#0#abc", "a-kind-of-tomorrow"):
        stored(store, [], kind)

    run(store.transcripts.delete(SESSION_ID))
    run(store.transcripts.delete(SESSION_ID))

    assert [piece["session_id"]["S"] for piece in pieces(store)] == [other]
    assert run(store.transcripts.get(other, transcript_id)) == TURNS


def test_a_deletion_without_pieces_sends_one_query(store: Store) -> None:
    run(store.through(batch_write_item=never_sent, delete_item=never_sent).transcripts.delete(SESSION_ID))


def many_stored(store: Store, count: int = 60) -> None:
    for number in range(count):
        stored(store, [], f"checkpoint#0#{number:06}")


def test_many_pieces_are_deleted_in_batches_of_25(store: Store) -> None:
    many_stored(store)
    sizes: list[int] = []

    def counting(write: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            sizes.append(len(arguments["RequestItems"][store.names.transcripts]))
            return write(**arguments)

        return ask

    def ten_at_a_time(query: Request) -> Request:
        return lambda **arguments: query(**arguments, Limit=10)

    run(store.through(batch_write_item=counting, query=ten_at_a_time).transcripts.delete(SESSION_ID))

    assert (sizes, pieces(store)) == ([25, 25, 10], [])


def leaving_all_but_one(write: Request) -> Request:
    """Process one delete of each batch and leave the others, as under throttling."""

    def ask(**arguments: Any) -> Any:
        [(table, writes)] = arguments["RequestItems"].items()
        write(RequestItems={table: writes[:1]})
        return {"UnprocessedItems": {table: writes[1:]} if writes[1:] else {}}

    return ask


def test_deletes_that_were_left_unprocessed_are_sent_again(store: Store) -> None:
    many_stored(store, 5)

    run(store.through(batch_write_item=leaving_all_but_one).transcripts.delete(SESSION_ID))

    assert pieces(store) == []


def test_deletes_that_stay_unprocessed_are_a_storage_error_and_can_be_repeated(
    store: Store, logged: io.StringIO
) -> None:
    many_stored(store, 6)

    with pytest.raises(StorageError):
        run(store.through(batch_write_item=leaving_all_but_one).transcripts.delete(SESSION_ID))

    assert "UnprocessedItems" in logged.getvalue()
    assert len(pieces(store)) == 1
    run(store.transcripts.delete(SESSION_ID))
    assert pieces(store) == []
