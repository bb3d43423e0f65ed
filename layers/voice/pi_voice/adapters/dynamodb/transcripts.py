"""Everything that was said in a session, compressed, in one partition of pieces of one item each.

The key of a piece is the session's id and `{kind}#{attempt}#{number}`: `transcript#<transcript_id>#000` for a completed
session, `checkpoint#0#000012` for turns saved during the call, numbered by the index of their first turn.
"""

import asyncio
import gzip
import time
import zlib
from collections.abc import Sequence
from typing import Any, Final

from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.attributes import Item, to_item
from pi_voice.adapters.dynamodb.counted_pieces import CountedPieces
from pi_voice.adapters.dynamodb.documents import read_turns
from pi_voice.adapters.dynamodb.table import ConditionFailed, Table
from pi_voice.domain.errors import StorageError
from pi_voice.domain.ids import Clock, SessionId, TranscriptId
from pi_voice.domain.sessions import DAY_SECONDS, Session
from pi_voice.domain.transcripts import TURNS, TranscriptTurn
from pi_voice.logs import logger

PIECE_BYTES: Final = 350_000
"""Size of one piece of a compressed transcript; DynamoDB's limit for an item is 400 KB."""

_CHECKPOINT: Final = "checkpoint"
_TRANSCRIPT: Final = "transcript"
_ORPHAN_SECONDS: Final = DAY_SECONDS
_DELETES_PER_BATCH: Final = 25
"""Limit of BatchWriteItem."""

_BATCH_ATTEMPTS: Final = 5


def pack(turns: Sequence[TranscriptTurn]) -> list[bytes]:
    """Compress a transcript into pieces of one item each."""
    packed = gzip.compress(TURNS.dump_json(list(turns)), mtime=0)
    return [packed[start : start + PIECE_BYTES] for start in range(0, len(packed), PIECE_BYTES)]


def unpack(pieces: Sequence[bytes]) -> list[TranscriptTurn]:
    """Decompress the pieces of a transcript; raises ValueError."""
    try:
        text = gzip.decompress(b"".join(pieces))
    except (EOFError, OSError, zlib.error) as error:
        message = "a piece is missing or damaged"
        raise ValueError(message) from error
    return read_turns(text)


class DynamoCheckpoints(CountedPieces):
    """Turns saved during the call, one piece per request.

    The session's row holds the number of saved turns. One transaction writes a piece and updates that number, so a turn
    is either stored and counted or neither, and of two concurrent writers only one succeeds.
    """

    async def append(self, session: Session, turns: Sequence[TranscriptTurn], size: int, now: int) -> Session | None:
        """Append turns to those of a session. When this returns, they are durable. Transition: `save`.

        All or nothing; None if the session is not active, or if turns were saved since it was read.
        """
        first = session.checkpoint_turns
        [data] = pack(turns)
        put = {"Item": to_item({**_checkpoint(session.session_id, first), "data": data, **self._ttl(session)})}
        counts = {"checkpoint_turns": first + len(turns), "checkpoint_bytes": session.checkpoint_bytes + size}
        try:
            return await self._count(session, counts, "checkpoint_turns = :first", {":first": first}, put, now)
        except ConditionFailed:
            return None

    async def read(self, session: Session) -> list[TranscriptTurn]:
        """Return all turns that were saved when the session was read; one request per megabyte.

        Raises StorageError, also if a turn is missing or cannot be read.
        """
        if not session.checkpoint_turns:
            return []
        first, last = (_checkpoint(session.session_id, number) for number in (0, session.checkpoint_turns - 1))
        rows = await self._all(
            {
                "TableName": self._name,
                "KeyConditionExpression": "session_id = :session AND piece BETWEEN :first AND :last",
                "ExpressionAttributeValues": to_item(
                    {":session": session.session_id, ":first": first["piece"], ":last": last["piece"]}
                ),
                "ConsistentRead": True,
            }
        )
        turns = [turn for row in rows for turn in self._read(_turns, row)]
        if len(turns) != session.checkpoint_turns:
            logger.error("checkpoint_turns_missing", session_id=session.session_id, found=len(turns))
            raise StorageError
        return turns


class DynamoTranscripts(Table):
    """Transcripts of completed sessions, and the deletion of all that was said in a session."""

    def __init__(self, dynamodb: AwsClient, name: str, retention_days: int = 0, clock: Clock = time.time) -> None:
        super().__init__(dynamodb, name)
        self._retention_seconds = retention_days * DAY_SECONDS
        self._clock = clock

    async def put(self, session_id: SessionId, transcript_id: TranscriptId, turns: Sequence[TranscriptTurn]) -> None:
        """Store a transcript, with one concurrent request per piece. When this returns, it is durable.

        Transition: `put_pieces`.
        """
        ttl = {"ttl": int(self._clock()) + self._retention_seconds} if self._retention_seconds else {}
        outcomes = await asyncio.gather(
            *(
                self._request(
                    "put_item",
                    TableName=self._name,
                    Item=to_item({**_transcript(session_id, transcript_id, number), "data": data, **ttl}),
                )
                for number, data in enumerate(pack(turns))
            ),
            return_exceptions=True,  # so that no request is in flight when an error is raised
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def get(self, session_id: SessionId, transcript_id: TranscriptId) -> list[TranscriptTurn] | None:
        """Return a transcript, one request per megabyte; None if there is none. Raises UnreadableRow."""
        rows = await self._all(
            {
                "TableName": self._name,
                "KeyConditionExpression": "session_id = :session AND begins_with(piece, :transcript)",
                "ExpressionAttributeValues": to_item(
                    {":session": session_id, ":transcript": f"{_TRANSCRIPT}#{transcript_id}#"}
                ),
                "ConsistentRead": True,
            }
        )
        return self._read(lambda _: _turns(*rows), rows[0]) if rows else None

    async def expire(self, session_id: SessionId, transcript_id: TranscriptId, turns: Sequence[TranscriptTurn]) -> None:
        """Set the TTL of a transcript without a session to a day from now, one request per piece.

        Transition: `expire_pieces`.
        """
        keys = [_transcript(session_id, transcript_id, number) for number, _ in enumerate(pack(turns))]
        ttl = int(self._clock()) + _ORPHAN_SECONDS
        await asyncio.gather(*(self._expire(key, ttl) for key in keys))

    async def _expire(self, key: Item, ttl: int) -> None:
        try:
            await self._request(
                "update_item",
                TableName=self._name,
                Key=to_item(key),
                UpdateExpression="SET #ttl = :ttl",
                ConditionExpression="attribute_exists(session_id)",
                ExpressionAttributeNames={"#ttl": "ttl"},
                ExpressionAttributeValues=to_item({":ttl": ttl}),
            )
        except ConditionFailed:
            return  # this piece was never written

    async def delete(self, session_id: SessionId) -> None:
        """Delete all pieces of a session, also those of kinds that only a newer version knows.

        One query per megabyte, and one request per 25 pieces. If a request fails, the rest can be deleted later.
        Transition: `delete_pieces`.
        """
        keys = await self._all(
            {
                "TableName": self._name,
                "KeyConditionExpression": "session_id = :session",
                "ExpressionAttributeValues": to_item({":session": session_id}),
                "ProjectionExpression": "session_id, piece",
                "ConsistentRead": True,
            }
        )
        for start in range(0, len(keys), _DELETES_PER_BATCH):
            await self._delete(keys[start : start + _DELETES_PER_BATCH])

    async def _delete(self, keys: Sequence[Item]) -> None:
        """Delete up to 25 pieces, again with those that DynamoDB left unprocessed; raises StorageError."""
        request: dict[str, Any] = {self._name: [{"DeleteRequest": {"Key": to_item(key)}} for key in keys]}
        for attempt in range(_BATCH_ATTEMPTS):
            answer = await self._request("batch_write_item", RequestItems=request)
            if not (request := answer.get("UnprocessedItems", {})):
                return
            await asyncio.sleep(0.05 * 2**attempt)
        logger.error("dynamodb_request_refused", operation="batch_write_item", code="UnprocessedItems")
        raise StorageError


def _checkpoint(session_id: SessionId, number: int) -> Item:
    """Return the key of the piece whose first turn has this number."""
    return {"session_id": session_id, "piece": f"{_CHECKPOINT}#0#{number:06}"}


def _transcript(session_id: SessionId, transcript_id: TranscriptId, number: int) -> Item:
    """Return the key of one piece of a transcript."""
    return {"session_id": session_id, "piece": f"{_TRANSCRIPT}#{transcript_id}#{number:03}"}


def _turns(*rows: Item) -> list[TranscriptTurn]:
    return unpack([row["data"] for row in rows])
