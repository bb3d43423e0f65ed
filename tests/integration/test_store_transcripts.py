"""Transcripts in DynamoDB: compressed, in pieces, with retention."""

import asyncio
import base64
import hashlib
import time
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from pi_voice.adapters.dynamodb.transcripts import PIECE_BYTES, pack
from pi_voice.domain import transcripts
from pi_voice.domain.errors import StorageError
from pi_voice.domain.ids import TranscriptId, uuid7
from pi_voice.domain.sessions import DAY_SECONDS
from pi_voice.domain.transcripts import MAX_TURN_CHARACTERS, TranscriptTurn
from tests.integration.samples import NOW, TURNS
from tests.integration.store import Request, Row, Store

run = asyncio.run


def a_long_call() -> list[TranscriptTurn]:
    """Return a transcript of the maximum size of a megabyte that hardly compresses."""
    turns: list[TranscriptTurn] = [
        {"role": "user", "text": base64.b64encode(hashlib.shake_256(bytes([number])).digest(15_000)).decode()}
        for number in range(52)
    ]
    transcripts.check_size(turns)
    return turns


def pieces(store: Store) -> list[Row]:
    return sorted(store.rows(store.names.transcripts), key=lambda row: int(row["piece"]["N"]))


def test_a_transcript_is_returned_as_it_was_stored(store: Store) -> None:
    transcript_id = TranscriptId(uuid7())

    run(store.transcripts.put(transcript_id, TURNS))

    assert run(store.transcripts.get(transcript_id)) == TURNS
    assert run(store.transcripts.get(TranscriptId(uuid7()))) is None


def test_a_transcript_of_thousands_of_turns_fits_one_piece(store: Store) -> None:
    transcript_id = TranscriptId(uuid7())
    turns: list[TranscriptTurn] = [
        {"role": "agent", "text": f"Question {number}?", "start_ms": number} for number in range(5_000)
    ]

    run(store.transcripts.put(transcript_id, turns))

    assert run(store.transcripts.get(transcript_id)) == turns
    assert len(pieces(store)) == 1


def test_the_longest_transcript_is_stored_in_pieces_that_fit_an_item_each(store: Store) -> None:
    transcript_id = TranscriptId(uuid7())
    turns = a_long_call()

    run(store.transcripts.put(transcript_id, turns))

    assert run(store.transcripts.get(transcript_id)) == turns
    assert len(pieces(store)) >= 2
    assert all(len(piece["data"]["B"]) <= PIECE_BYTES for piece in pieces(store))
    assert max(len(turn["text"]) for turn in turns) <= MAX_TURN_CHARACTERS


def test_pieces_in_several_responses_are_joined(store: Store) -> None:
    transcript_id = TranscriptId(uuid7())
    turns = a_long_call()
    run(store.transcripts.put(transcript_id, turns))

    def one_at_a_time(query: Request) -> Request:
        return lambda **arguments: query(**arguments, Limit=1)

    assert run(store.through(query=one_at_a_time).transcripts.get(transcript_id)) == turns


def test_turns_are_not_stored_as_plain_text(store: Store) -> None:
    run(store.transcripts.put(TranscriptId(uuid7()), TURNS))

    assert "How old are you" not in store.words()


def test_deleting_a_transcript_deletes_all_its_pieces_and_no_others(store: Store) -> None:
    transcript_id, other = TranscriptId(uuid7()), TranscriptId(uuid7())
    run(store.transcripts.put(transcript_id, a_long_call()))
    run(store.transcripts.put(other, TURNS))

    run(store.transcripts.delete(transcript_id))
    run(store.transcripts.delete(transcript_id))

    assert run(store.transcripts.get(transcript_id)) is None
    assert run(store.transcripts.get(other)) == TURNS
    assert len(pieces(store)) == 1


def test_without_a_retention_a_transcript_never_expires(store: Store) -> None:
    run(store.transcripts.put(TranscriptId(uuid7()), TURNS))

    assert all("ttl" not in piece for piece in pieces(store))


def test_with_a_retention_every_piece_expires_that_many_days_after_its_write(store: Store) -> None:
    transcripts = store.transcripts_kept(30, lambda: NOW + 0.9)

    run(transcripts.put(TranscriptId(uuid7()), a_long_call()))

    assert {piece["ttl"]["N"] for piece in pieces(store)} == {str(NOW + 30 * DAY_SECONDS)}


@pytest.mark.parametrize("retention_days", [0, 30])
def test_an_orphaned_transcript_expires_after_a_day(store: Store, retention_days: int) -> None:
    transcript_id = TranscriptId(uuid7())
    transcripts = store.transcripts_kept(retention_days, lambda: NOW)
    turns = a_long_call()
    run(transcripts.put(transcript_id, turns))

    run(transcripts.expire(transcript_id, turns))

    assert {piece["ttl"]["N"] for piece in pieces(store)} == {str(NOW + DAY_SECONDS)}
    assert run(transcripts.get(transcript_id)) == turns


def test_expiring_a_partly_written_transcript_creates_no_pieces(store: Store) -> None:
    transcript_id = TranscriptId(uuid7())
    turns = a_long_call()
    run(store.transcripts.put(transcript_id, turns))
    store.dynamodb.delete_item(
        TableName=store.names.transcripts, Key={"transcript_id": {"S": transcript_id}, "piece": {"N": "1"}}
    )
    before = {piece["piece"]["N"] for piece in pieces(store)}

    run(store.transcripts.expire(transcript_id, turns))
    run(store.transcripts.expire(TranscriptId(uuid7()), turns))

    assert {piece["piece"]["N"] for piece in pieces(store)} == before
    assert all("ttl" in piece for piece in pieces(store))


def test_a_failed_piece_is_reported_after_all_other_writes_have_ended(store: Store) -> None:
    turns = a_long_call()
    written: list[str] = []

    def failing_on_the_first(put: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            number = arguments["Item"]["piece"]["N"]
            if number == "0":
                raise ReadTimeoutError(endpoint_url="")
            time.sleep(0.05)  # so that the other writes are in flight when the first fails
            answer = put(**arguments)
            written.append(number)
            return answer

        return ask

    async def attempt() -> list[str]:
        with pytest.raises(StorageError):
            await store.through(put_item=failing_on_the_first).transcripts.put(TranscriptId(uuid7()), turns)
        return sorted(written)

    assert run(attempt()) == [str(number) for number in range(1, len(pack(turns)))]
    assert len(written) >= 1
