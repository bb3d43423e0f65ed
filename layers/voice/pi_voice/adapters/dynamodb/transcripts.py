"""Transcripts of completed sessions, and checkpoints of running ones, compressed in pieces of one item each."""

import asyncio
import gzip
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.attributes import Item, to_item
from pi_voice.adapters.dynamodb.session_items import retained_until
from pi_voice.adapters.dynamodb.table import ConditionFailed, Table
from pi_voice.domain.errors import StorageError
from pi_voice.domain.ids import Clock, SessionId, TranscriptId
from pi_voice.domain.sessions import DAY_SECONDS, Session
from pi_voice.domain.transcripts import TURNS, TranscriptTurn
from pi_voice.logs import logger

PIECE_BYTES: Final = 350_000
"""Size of one piece of a compressed transcript; DynamoDB's limit for an item is 400 KB."""

_ORPHAN_SECONDS: Final = DAY_SECONDS


def pack(turns: Sequence[TranscriptTurn]) -> list[bytes]:
    """Compress a transcript into pieces of one item each."""
    packed = gzip.compress(TURNS.dump_json(list(turns)), mtime=0)
    return [packed[start : start + PIECE_BYTES] for start in range(0, len(packed), PIECE_BYTES)]


def unpack(pieces: Sequence[bytes]) -> list[TranscriptTurn]:
    """Decompress the pieces of a transcript."""
    return TURNS.validate_json(gzip.decompress(b"".join(pieces)))


class DynamoCheckpoints(Table):
    """Turns saved during the call: pieces with the session's id as key, numbered by the index of their first turn.

    The session's row holds the number of saved turns. One transaction writes a piece and updates that number, so a turn
    is either stored and counted or neither, and of two concurrent writers only one succeeds.
    """

    def __init__(
        self,
        dynamodb: AwsClient,
        sessions_name: str,
        transcripts_name: str,
        retention_days: int = 0,
    ) -> None:
        super().__init__(dynamodb, transcripts_name)
        self._sessions_name = sessions_name
        self._retention_seconds = retention_days * DAY_SECONDS

    async def append(self, session: Session, turns: Sequence[TranscriptTurn], size: int) -> Session | None:
        """Append turns to those of a session. When this returns, they are durable.

        All or nothing; None if the session is not active, or if turns were saved since it was read.
        """
        first = session.checkpoint_turns
        grown = replace(session, checkpoint_turns=first + len(turns), checkpoint_bytes=session.checkpoint_bytes + size)
        ttl = {"ttl": retained_until(session, self._retention_seconds)} if self._retention_seconds else {}
        [data] = pack(turns)
        piece = {**_piece(TranscriptId(session.session_id), first), "data": data, **ttl}
        count_update = {
            "TableName": self._sessions_name,
            "Key": to_item({"session_id": session.session_id}),
            "UpdateExpression": "SET checkpoint_turns = :turns, checkpoint_bytes = :bytes",
            "ConditionExpression": "#status = :active AND checkpoint_turns = :first",
            "ExpressionAttributeNames": {"#status": "status"},
            "ExpressionAttributeValues": to_item(
                {
                    ":turns": grown.checkpoint_turns,
                    ":bytes": grown.checkpoint_bytes,
                    ":active": "active",
                    ":first": first,
                }
            ),
        }
        try:
            await self._transact({"Update": count_update}, {"Put": {"TableName": self._name, "Item": to_item(piece)}})
        except ConditionFailed:
            return None
        return grown

    async def read(self, session: Session) -> list[TranscriptTurn]:
        """Return all turns that were saved when the session was read; one request per megabyte."""
        turns: list[TranscriptTurn] = []
        rows = await self._all(
            {
                "TableName": self._name,
                "KeyConditionExpression": "transcript_id = :session AND piece < :end",
                "ExpressionAttributeValues": to_item(
                    {":session": session.session_id, ":end": session.checkpoint_turns}
                ),
                "ConsistentRead": True,
            }
        )
        for row in rows:
            turns += unpack([row["data"]])
        if len(turns) != session.checkpoint_turns:
            logger.error("checkpoint_turns_missing", session_id=session.session_id, found=len(turns))
            raise StorageError
        return turns

    async def delete(self, session_id: SessionId) -> None:
        """Delete all turns of a session, one request per piece."""
        await DynamoTranscripts(self._dynamodb, self._name).delete(TranscriptId(session_id))


class DynamoTranscripts(Table):
    """Transcripts of completed sessions, compressed, in pieces of one item each."""

    def __init__(self, dynamodb: AwsClient, name: str, retention_days: int = 0, clock: Clock = time.time) -> None:
        super().__init__(dynamodb, name)
        self._retention_seconds = retention_days * DAY_SECONDS
        self._clock = clock

    async def put(self, transcript_id: TranscriptId, turns: Sequence[TranscriptTurn]) -> None:
        """Store a transcript, with one concurrent request per piece. When this returns, it is durable."""
        ttl = {"ttl": int(self._clock()) + self._retention_seconds} if self._retention_seconds else {}
        outcomes = await asyncio.gather(
            *(
                self._request(
                    "put_item",
                    TableName=self._name,
                    Item=to_item({**_piece(transcript_id, number), "data": data, **ttl}),
                )
                for number, data in enumerate(pack(turns))
            ),
            return_exceptions=True,  # so that no request is in flight when an error is raised
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def get(self, transcript_id: TranscriptId) -> list[TranscriptTurn] | None:
        """Return a transcript, one request per megabyte; None if there is none."""
        pieces = [row["data"] for row in await self._pieces(transcript_id)]
        return unpack(pieces) if pieces else None

    async def expire(self, transcript_id: TranscriptId, turns: Sequence[TranscriptTurn]) -> None:
        """Set the TTL of a transcript without a session to a day from now, one request per piece."""
        ttl = int(self._clock()) + _ORPHAN_SECONDS
        await asyncio.gather(*(self._expire(transcript_id, number, ttl) for number, _ in enumerate(pack(turns))))

    async def _expire(self, transcript_id: TranscriptId, number: int, ttl: int) -> None:
        try:
            await self._request(
                "update_item",
                TableName=self._name,
                Key=to_item(_piece(transcript_id, number)),
                UpdateExpression="SET #ttl = :ttl",
                ConditionExpression="attribute_exists(transcript_id)",
                ExpressionAttributeNames={"#ttl": "ttl"},
                ExpressionAttributeValues=to_item({":ttl": ttl}),
            )
        except ConditionFailed:
            return  # this piece was never written

    async def delete(self, transcript_id: TranscriptId) -> None:
        """Delete a transcript now, one request per piece."""
        await asyncio.gather(
            *(
                self._request(
                    "delete_item",
                    TableName=self._name,
                    Key=to_item(_piece(transcript_id, row["piece"])),
                )
                for row in await self._pieces(transcript_id)
            )
        )

    async def _pieces(self, transcript_id: TranscriptId) -> list[Item]:
        return await self._all(
            {
                "TableName": self._name,
                "KeyConditionExpression": "transcript_id = :transcript_id",
                "ExpressionAttributeValues": to_item({":transcript_id": transcript_id}),
                "ConsistentRead": True,
            }
        )


def _piece(transcript_id: TranscriptId, number: int) -> Item:
    return {"transcript_id": transcript_id, "piece": number}
