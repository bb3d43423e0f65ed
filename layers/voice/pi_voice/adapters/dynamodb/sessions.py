"""Sessions, and the facts of their LiveKit rooms."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import JsonValue

from pi_voice.adapters.aws import AwsService, Refused
from pi_voice.adapters.dynamodb.attributes import Item, from_item, refused_item, to_item, to_json_text
from pi_voice.adapters.dynamodb.session_items import (
    DUE_SHARDS,
    LISTED,
    due_attributes,
    due_shard,
    merge_facts,
    retained_until,
    session_item,
    session_of,
)
from pi_voice.adapters.dynamodb.table import BY_WORKSPACE, Table
from pi_voice.domain.errors import SessionActive, SessionNotFound, StorageError
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import SessionId, WorkspaceId, is_uuid
from pi_voice.domain.livekit_webhooks import RoomEvent
from pi_voice.domain.pagination import Page, decode_cursor, encode_cursor
from pi_voice.domain.session_api import ListSessionsQuery
from pi_voice.domain.sessions import DAY_SECONDS, Session, SessionCompletion

BY_DUE: Final = "by_due"
MAX_ROWS_READ: Final = 1_000
"""Maximum number of index rows read for one filtered page."""

_ROWS_PER_QUERY: Final = 100
_DUE_PER_QUERY: Final = 100
_BATCH_ATTEMPTS: Final = 5
_MERGE_ATTEMPTS: Final = 5
_OTHER_ROOMS: Final = 10


class DynamoSessions(Table):
    """Sessions, and what LiveKit tells of their rooms."""

    def __init__(self, dynamodb: AwsService, name: str, retention_days: int = 0) -> None:
        super().__init__(dynamodb, name)
        self._retention_seconds = retention_days * DAY_SECONDS

    async def get(self, session_id: SessionId) -> Session | None:
        """Return a session, whichever workspace it belongs to; what is no id is not asked for."""
        if not is_uuid(session_id):
            return None
        item = await self._get({"session_id": session_id})
        return session_of(item) if item else None

    async def add(self, session: Session) -> bool:
        """Keep a new session, with no other attribute than those that say something, and tell whether it is new.

        An answer that got lost on the way makes us ask again. Its id is nobody else's, so a row that is
        there already is this one, perhaps with what LiveKit has told by now. It stays as it is.
        """
        item = session_item(session)
        if session.due_at is not None:
            item["due_shard"] = due_shard(session.session_id)
        if self._retention_seconds:
            item["ttl"] = retained_until(session, self._retention_seconds)
        try:
            await self._request(
                "PutItem",
                TableName=self._name,
                Item=to_item(item),
                ConditionExpression="attribute_not_exists(session_id)",
            )
        except Refused:
            return False
        return True

    async def complete(self, session_id: SessionId, completion: SessionCompletion) -> Session | None:
        """Turn an active session into a completed one, all or nothing.

        None if it was not active, or if turns were kept or more time was given that the end does not know of. What a
        call was hung up for stays its reason. An answer that got lost on the way makes us ask again. The
        condition then fails, but the row that comes back points to our own transcript: that call has won.
        """
        changes = {
            "status": "completed",
            "completed_at": completion.completed_at,
            "completed_by": completion.completed_by,
            "duration_seconds": completion.duration_seconds,
            "end_reason": _Unless(completion.end_reason),
            "transcript_id": completion.transcript_id,
            "turns": completion.turns,
            "request_hash": completion.request_hash,
            "extraction": completion.extraction.model_dump_json(exclude_defaults=True),
            **due_attributes(session_id, completion.due_at),
        }
        condition, values = "#status = :active", Item({":active": "active"})
        if completion.checkpoint_turns is not None:
            condition += " AND checkpoint_turns = :checkpoint_turns"
            values |= {":checkpoint_turns": completion.checkpoint_turns}
        if completion.expires_at is not None:
            condition += " AND expires_at = :expires_at"
            values |= {":expires_at": completion.expires_at}
        try:
            return await self._set(session_id, changes, condition, values)
        except Refused as refusal:
            item = refused_item(refusal)
            return session_of(item) if item.get("transcript_id") == completion.transcript_id else None

    async def fail(self, failed: Session) -> Session | None:
        """Turn an active session without kept turns into a failed one; None if it was not that, or was renewed.

        What a call was hung up for stays its reason. All else that is not about the failure stays as it is kept.
        """
        changes = {
            "status": failed.status,
            "failed_at": failed.failed_at,
            "failure": failed.failure and failed.failure.model_dump(),
            "end_reason": _Unless(failed.end_reason),
            **due_attributes(failed.session_id, failed.due_at),
        }
        condition = "#status = :active AND checkpoint_turns = :none AND expires_at = :expires_at"
        values = {":active": "active", ":none": 0, ":expires_at": failed.expires_at}
        try:
            return await self._set(failed.session_id, changes, condition, values)
        except Refused:
            return None

    async def hang_up(self, session_id: SessionId, reason: str, now: int) -> Session | None:
        """Note that an active call was hung up, and that its room has to go; None if it was not active.

        The first time and its reason stand. The session is due until `schedule` says otherwise.
        """
        changes = {"hung_up_at": _Unless(now), "end_reason": _Unless(reason), **due_attributes(session_id, now)}
        try:
            return await self._set(session_id, changes, "#status = :active", {":active": "active"})
        except Refused:
            return None

    async def renew(self, session_id: SessionId, expires_at: int) -> Session | None:
        """Move the expiry of a call that is on, never back; None if it is not on any more.

        When it is due stays as it is, because a webhook may have moved that since: who looks then finds that there is
        more time.
        """
        condition = "#status = :active AND attribute_not_exists(hung_up_at) AND #expires_at <= :expires_at"
        try:
            return await self._set(session_id, {"expires_at": expires_at}, condition, {":active": "active"})
        except Refused as refusal:
            item = refused_item(refusal)
            renewed_further = session_of(item) if item else None
            return renewed_further if renewed_further and renewed_further.is_ongoing else None

    async def schedule(self, session: Session, due_at: int | None) -> Session | None:
        """Say when to look at a session next, None for never, if nobody has said so since it was read.

        Return the session as it is now; None if it is gone.
        """
        if session.due_at is None:
            condition, values = "attribute_exists(session_id) AND attribute_not_exists(#due_at)", Item()
        else:
            condition, values = "#due_at = :before", {":before": session.due_at}
        try:
            return await self._set(session.session_id, due_attributes(session.session_id, due_at), condition, values)
        except Refused as refusal:
            item = refused_item(refusal)
            return session_of(item) if item else None

    async def save_extraction(
        self, before: Session, results: JsonValue, extraction: Extraction, due_at: int | None
    ) -> Session:
        """Keep what an extraction gave, unless another was kept since `before` was read; return what is kept now.

        Raises SessionNotFound if the session is gone.
        """
        changes = {
            "results": to_json_text(results),
            "extraction": extraction.model_dump_json(exclude_defaults=True),
            **due_attributes(before.session_id, due_at),
        }
        read = before.extraction.model_dump_json(exclude_defaults=True) if before.extraction else None
        condition = "#status = :completed AND transcript_id = :transcript AND #extraction = :before"
        values = {":completed": "completed", ":transcript": before.transcript_id, ":before": read}
        try:
            return await self._set(before.session_id, changes, condition, values)
        except Refused as refusal:
            if item := refused_item(refusal):
                return session_of(item)
            raise SessionNotFound from None

    async def due(self, now: int) -> AsyncIterator[SessionId]:
        """Return the sessions that are due by now, the oldest first within a partition of the index.

        Partitions come in random order, so that a full one does not always delay the others. One request per
        _DUE_PER_QUERY rows, sent as they are consumed.
        """
        for shard in random.sample(range(DUE_SHARDS), DUE_SHARDS):
            request: dict[str, Any] = {
                "TableName": self._name,
                "IndexName": BY_DUE,
                "KeyConditionExpression": "due_shard = :shard AND due_at <= :now",
                "ExpressionAttributeValues": to_item({":shard": shard, ":now": now}),
                "Limit": _DUE_PER_QUERY,
            }
            while True:
                answer = await self._request("Query", **request)
                for item in answer["Items"]:
                    yield SessionId(item["session_id"]["S"])
                if "LastEvaluatedKey" not in answer:
                    break
                request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def delete(self, session_id: SessionId) -> None:
        """Remove a session; raises SessionActive."""
        try:
            await self._request(
                "DeleteItem",
                TableName=self._name,
                Key=to_item({"session_id": session_id}),
                ConditionExpression="#status <> :active",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues=to_item({":active": "active"}),
            )
        except Refused:
            raise SessionActive from None

    async def page(self, workspace: WorkspaceId, query: ListSessionsQuery) -> Page[Session]:
        """Return one page of a workspace's sessions, without results, newest first.

        The index says which rows; a batch request then reads them. A filtered page reads at most MAX_ROWS_READ
        rows of the index, _ROWS_PER_QUERY a request.
        """
        found, last_read = await self._matching(workspace, query)
        shown = found[: query.limit]
        more = shown[-1] if len(found) > len(shown) else last_read
        rows = await self._batch(shown)
        return Page[Session](
            data=[session_of(rows[session_id]) for session_id in shown if session_id in rows],
            next_cursor=encode_cursor(more) if more else None,
        )

    async def merge_room_event(self, event: RoomEvent) -> Session | None:
        """Merge an event into its session and return it; None if it has none, or one without a room.

        One request for the room that we made. Another room of the same name (a re-join after ours had closed)
        takes a second one and is noted apart, the first _OTHER_ROOMS of them. What is known already stays as it
        is, and the first join is the earliest one told of: so repeats and late events change nothing.
        """
        told = {
            "started_at": event.started_at,
            "finished_at": event.finished_at,
            "metadata": to_json_text(event.metadata),
        }
        told = {name: value for name, value in told.items() if value is not None}
        updates = [f"livekit.#{name} = if_not_exists(livekit.#{name}, :{name})" for name in told]
        condition = "livekit.room_sid = :sid"
        if event.joined_at is not None:
            told["first_joined_at"] = event.joined_at
            updates.append("livekit.#first_joined_at = :first_joined_at")
            condition += (
                " AND (attribute_not_exists(livekit.#first_joined_at) OR livekit.#first_joined_at > :first_joined_at)"
            )
        try:
            answer = await self._request(
                "UpdateItem",
                TableName=self._name,
                Key=to_item({"session_id": event.session_id}),
                UpdateExpression="SET " + ", ".join(updates),
                ConditionExpression=condition,
                ExpressionAttributeNames={f"#{name}": name for name in told},
                ExpressionAttributeValues=to_item(
                    {":sid": event.room_sid, **{f":{name}": value for name, value in told.items()}}
                ),
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except Refused as refusal:
            item = refused_item(refusal)
            sid = item["livekit"].get("room_sid") if item else None
            if sid is None:
                return None
            return session_of(item) if sid == event.room_sid else await self._merge_reopened_room(event, item)
        return session_of(from_item(answer["Attributes"]))

    async def _merge_reopened_room(self, event: RoomEvent, item: Item) -> Session | None:
        """Note what an event tells of a room that is not the one we made, against the row as last read."""
        for _ in range(_MERGE_ATTEMPTS):
            rooms = item["livekit"]["other_rooms"]
            before = rooms.get(event.room_sid)
            after = merge_facts(before or {}, event)
            if after == before or (before is None and len(rooms) >= _OTHER_ROOMS):
                return session_of(item)
            values = {":after": after} if before is None else {":after": after, ":before": before}
            untouched = "attribute_not_exists({0})" if before is None else "{0} = :before"
            try:
                answer = await self._request(
                    "UpdateItem",
                    TableName=self._name,
                    Key=to_item({"session_id": event.session_id}),
                    UpdateExpression="SET livekit.other_rooms.#sid = :after",
                    ConditionExpression="attribute_exists(session_id) AND "
                    + untouched.format("livekit.other_rooms.#sid"),
                    ExpressionAttributeNames={"#sid": event.room_sid},
                    ExpressionAttributeValues=to_item(values),
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except Refused as refusal:
                if not (item := refused_item(refusal)):
                    return None
            else:
                return session_of(from_item(answer["Attributes"]))
        raise StorageError

    async def _set(self, session_id: SessionId, changes: Item, condition: str, values: Item) -> Session:
        """Change attributes of a row that is there, if a condition holds; None removes."""
        kept = {name: value for name, value in changes.items() if value is not None}
        removed = [f"#{name}" for name in changes if name not in kept]
        sets = [
            f"#{name} = if_not_exists(#{name}, :{name})" if isinstance(value, _Unless) else f"#{name} = :{name}"
            for name, value in kept.items()
        ]
        names = {*changes, *(("status",) if "#status" in condition else ())}
        told = {f":{name}": value.value if isinstance(value, _Unless) else value for name, value in kept.items()}
        arguments: dict[str, Any] = {"ExpressionAttributeValues": to_item({**values, **told})} if values or told else {}
        answer = await self._request(
            "UpdateItem",
            TableName=self._name,
            Key=to_item({"session_id": session_id}),
            UpdateExpression=(f"SET {', '.join(sets)} " if sets else "")
            + (f"REMOVE {', '.join(removed)}" if removed else ""),
            ConditionExpression=condition,
            ExpressionAttributeNames={f"#{name}": name for name in names},
            **arguments,
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
        return session_of(from_item(answer["Attributes"]))

    async def _matching(self, workspace: WorkspaceId, query: ListSessionsQuery) -> tuple[list[str], str | None]:
        """Return up to limit + 1 ids that match, and where reading stopped early, if it did."""
        wanted = {
            name: value for name, value in (("status", query.status), ("agent_id", query.agent_id)) if value is not None
        }
        request: dict[str, Any] = {
            "TableName": self._name,
            "IndexName": BY_WORKSPACE,
            "KeyConditionExpression": "workspace = :workspace",
            "ExpressionAttributeValues": to_item(
                {":workspace": workspace, **{f":{name}": value for name, value in wanted.items()}}
            ),
            "ScanIndexForward": False,
            "Limit": _ROWS_PER_QUERY if wanted else query.limit + 1,
        }
        if wanted:
            request["FilterExpression"] = " AND ".join(f"#{name} = :{name}" for name in wanted)
            request["ExpressionAttributeNames"] = {f"#{name}": name for name in wanted}
        if query.cursor is not None:
            last = {"workspace": workspace, "session_id": decode_cursor(query.cursor)}
            request["ExclusiveStartKey"] = to_item(last)
        found: list[str] = []
        rows_read = 0
        while True:
            answer = await self._request("Query", **request)
            found += [item["session_id"]["S"] for item in answer["Items"]]
            rows_read += answer["ScannedCount"]
            if len(found) > query.limit or "LastEvaluatedKey" not in answer:
                return found, None
            if rows_read >= MAX_ROWS_READ:
                return found, answer["LastEvaluatedKey"]["session_id"]["S"]
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def _batch(self, session_ids: Sequence[str]) -> dict[str, Item]:
        """Read rows without their results, in one request unless DynamoDB leaves some for another."""
        names = {f"#{name}": name for name in LISTED}
        request: dict[str, Any] = {
            self._name: {
                "Keys": [to_item({"session_id": session_id}) for session_id in session_ids],
                "ProjectionExpression": ", ".join(names),
                "ExpressionAttributeNames": names,
                "ConsistentRead": True,
            }
        }
        rows: dict[str, Item] = {}
        for attempt in range(_BATCH_ATTEMPTS):
            if not session_ids:
                break
            answer = await self._request("BatchGetItem", RequestItems=request)
            for item in map(from_item, answer["Responses"].get(self._name, [])):
                rows[item["session_id"]] = item
            if not (request := answer.get("UnprocessedKeys", {})):
                return rows
            await asyncio.sleep(0.05 * 2**attempt)
        if session_ids:
            raise StorageError
        return rows


@dataclass(frozen=True, slots=True)
class _Unless:
    """A value that is set unless there is one already."""

    value: Any
