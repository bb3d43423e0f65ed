"""Sessions, with the state of their LiveKit rooms."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import JsonValue

from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.attributes import Item, from_item, to_item, to_json_text
from pi_voice.adapters.dynamodb.session_items import (
    DUE_SHARDS,
    LISTED,
    due_attributes,
    due_shard,
    merge_event,
    retained_until,
    session_item,
    session_of,
)
from pi_voice.adapters.dynamodb.table import BY_WORKSPACE, ConditionFailed, Table
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
    """Sessions, with the state of their LiveKit rooms."""

    def __init__(self, dynamodb: AwsClient, name: str, retention_days: int = 0) -> None:
        super().__init__(dynamodb, name)
        self._retention_seconds = retention_days * DAY_SECONDS

    async def get(self, session_id: SessionId) -> Session | None:
        """Return a session, in any workspace; an invalid id sends no request."""
        if not is_uuid(session_id):
            return None
        item = await self._get({"session_id": session_id})
        return session_of(item) if item else None

    async def add(self, session: Session) -> bool:
        """Store a new session, and return whether it was new.

        If the response of a write was lost, the retry finds the row, perhaps with later room events, and does not
        change it: session ids are unique.
        """
        item = session_item(session)
        if session.due_at is not None:
            item["due_shard"] = due_shard(session.session_id)
        if self._retention_seconds:
            item["ttl"] = retained_until(session, self._retention_seconds)
        try:
            await self._request(
                "put_item",
                TableName=self._name,
                Item=to_item(item),
                ConditionExpression="attribute_not_exists(session_id)",
            )
        except ConditionFailed:
            return False
        return True

    async def complete(self, session_id: SessionId, completion: SessionCompletion) -> Session | None:
        """Turn an active session into a completed one, all or nothing.

        None if it was not active, or if its checkpoints or its expiry differ from those in the completion. An earlier
        hang-up keeps its reason. If the response of a write was lost, the retry's condition fails, but the row that it
        returns has our transcript id, so the write had succeeded.
        """
        changes = {
            "status": "completed",
            "completed_at": completion.completed_at,
            "completed_by": completion.completed_by,
            "duration_seconds": completion.duration_seconds,
            "end_reason": _IfAbsent(completion.end_reason),
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
        except ConditionFailed as failed:
            item = failed.item
            return session_of(item) if item.get("transcript_id") == completion.transcript_id else None

    async def fail(self, failed: Session) -> Session | None:
        """Turn an active session without checkpoints into a failed one; None if it was not one, or was renewed.

        An earlier hang-up keeps its reason. Only attributes of the failure change.
        """
        changes = {
            "status": failed.status,
            "failed_at": failed.failed_at,
            "failure": failed.failure and failed.failure.model_dump(),
            "end_reason": _IfAbsent(failed.end_reason),
            **due_attributes(failed.session_id, failed.due_at),
        }
        condition = "#status = :active AND checkpoint_turns = :none AND expires_at = :expires_at"
        values = {":active": "active", ":none": 0, ":expires_at": failed.expires_at}
        try:
            return await self._set(failed.session_id, changes, condition, values)
        except ConditionFailed:
            return None

    async def hang_up(self, session_id: SessionId, reason: str, now: int) -> Session | None:
        """Record that an active call was hung up; None if it was not active.

        Repeated calls do not change `hung_up_at` and `end_reason`. The session is due at once, until `schedule` sets
        another time.
        """
        changes = {"hung_up_at": _IfAbsent(now), "end_reason": _IfAbsent(reason), **due_attributes(session_id, now)}
        try:
            return await self._set(session_id, changes, "#status = :active", {":active": "active"})
        except ConditionFailed:
            return None

    async def renew(self, session_id: SessionId, expires_at: int) -> Session | None:
        """Move the expiry of an ongoing call forward, never back; None if it is not ongoing.

        The due time does not change, because a webhook may have set it since. The sweeper reads the new expiry then.
        """
        condition = "#status = :active AND attribute_not_exists(hung_up_at) AND #expires_at <= :expires_at"
        try:
            return await self._set(session_id, {"expires_at": expires_at}, condition, {":active": "active"})
        except ConditionFailed as failed:
            item = failed.item
            current = session_of(item) if item else None  # with a later expiry, if a concurrent request set one
            return current if current and current.is_ongoing else None

    async def schedule(self, session: Session, due_at: int | None) -> Session | None:
        """Set when the sweeper next processes a session, unless its due time changed since the read. None means never.

        Return the current session; None if it was deleted.
        """
        if session.due_at is None:
            condition, values = "attribute_exists(session_id) AND attribute_not_exists(#due_at)", Item()
        else:
            condition, values = "#due_at = :before", {":before": session.due_at}
        try:
            return await self._set(session.session_id, due_attributes(session.session_id, due_at), condition, values)
        except ConditionFailed as failed:
            item = failed.item
            return session_of(item) if item else None

    async def save_extraction(
        self, before: Session, results: JsonValue, extraction: Extraction, due_at: int | None
    ) -> Session:
        """Store results and extraction, unless the extraction changed since `before` was read.

        Return the current session. Raises SessionNotFound if it was deleted.
        """
        changes = {
            "results": to_json_text(results),
            "extraction": extraction.model_dump_json(exclude_defaults=True),
            **due_attributes(before.session_id, due_at),
        }
        previous = before.extraction.model_dump_json(exclude_defaults=True) if before.extraction else None
        condition = "#status = :completed AND transcript_id = :transcript AND #extraction = :before"
        values = {":completed": "completed", ":transcript": before.transcript_id, ":before": previous}
        try:
            return await self._set(before.session_id, changes, condition, values)
        except ConditionFailed as failed:
            if item := failed.item:
                return session_of(item)
            raise SessionNotFound from None

    async def due(self, now: int) -> AsyncIterator[list[SessionId]]:
        """Yield the ids of the sessions that are due by now, one page per request.

        A page has up to _DUE_PER_QUERY ids of one partition of the index, the oldest first. Partitions come in random
        order, so that a full one does not always delay the others.
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
                answer = await self._request("query", **request)
                yield [SessionId(item["session_id"]["S"]) for item in answer["Items"]]
                if "LastEvaluatedKey" not in answer:
                    break
                request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def delete(self, session_id: SessionId) -> None:
        """Delete an ended session; raises SessionActive."""
        try:
            await self._request(
                "delete_item",
                TableName=self._name,
                Key=to_item({"session_id": session_id}),
                ConditionExpression="#status <> :active",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues=to_item({":active": "active"}),
            )
        except ConditionFailed:
            raise SessionActive from None

    async def page(self, workspace: WorkspaceId, query: ListSessionsQuery) -> Page[Session]:
        """Return one page of a workspace's sessions, without results, newest first; raises InvalidCursor.

        The index returns the ids, and a batch request reads their rows. A filtered page reads at most MAX_ROWS_READ
        rows of the index, _ROWS_PER_QUERY per request.
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
        """Merge an event into its session and return it; None if there is no such session, or its room was not created.

        One request for the session's own room, two for a later room of the same name, which a participant's return
        creates; the first _OTHER_ROOMS of these are stored. Existing values stay and the earliest join counts, so
        repeated and late events change nothing.
        """
        metadata = to_json_text(event.metadata)
        facts = {"started_at": event.started_at, "finished_at": event.finished_at, "metadata": metadata}
        facts = {name: value for name, value in facts.items() if value is not None}
        updates = [f"livekit.#{name} = if_not_exists(livekit.#{name}, :{name})" for name in facts]
        condition = "livekit.room_sid = :sid"
        if event.joined_at is not None:
            facts["first_joined_at"] = event.joined_at
            updates.append("livekit.#first_joined_at = :first_joined_at")
            condition += (
                " AND (attribute_not_exists(livekit.#first_joined_at) OR livekit.#first_joined_at > :first_joined_at)"
            )
        try:
            return await self._update(
                event.session_id,
                "SET " + ", ".join(updates),
                condition,
                {f"#{name}": name for name in facts},
                {":sid": event.room_sid, **{f":{name}": value for name, value in facts.items()}},
            )
        except ConditionFailed as failed:
            item = failed.item
            sid = item["livekit"].get("room_sid") if item else None
            if sid is None:
                return None
            return session_of(item) if sid == event.room_sid else await self._merge_reopened_room(event, item)

    async def _merge_reopened_room(self, event: RoomEvent, item: Item) -> Session | None:
        """Merge an event of a later room of the same name, unless its entry changed since the row was read."""
        for _ in range(_MERGE_ATTEMPTS):
            rooms = item["livekit"]["other_rooms"]
            before = rooms.get(event.room_sid)
            after = merge_event(before or {}, event)
            if after == before or (before is None and len(rooms) >= _OTHER_ROOMS):
                return session_of(item)
            values = {":after": after} if before is None else {":after": after, ":before": before}
            room = "livekit.other_rooms.#sid"
            unchanged = f"attribute_not_exists({room})" if before is None else f"{room} = :before"
            condition = f"attribute_exists(session_id) AND {unchanged}"
            try:
                return await self._update(
                    event.session_id, f"SET {room} = :after", condition, {"#sid": event.room_sid}, values
                )
            except ConditionFailed as failed:
                if not (item := failed.item):
                    return None
        raise StorageError

    async def _set(self, session_id: SessionId, changes: Item, condition: str, values: Item) -> Session:
        """Change attributes of an existing row if a condition holds; None removes an attribute."""
        new_values = {name: value for name, value in changes.items() if value is not None}
        removed = [f"#{name}" for name in changes if name not in new_values]
        sets = [
            f"#{name} = if_not_exists(#{name}, :{name})" if isinstance(value, _IfAbsent) else f"#{name} = :{name}"
            for name, value in new_values.items()
        ]
        expression = (f"SET {', '.join(sets)} " if sets else "") + (f"REMOVE {', '.join(removed)}" if removed else "")
        names = {f"#{name}": name for name in (*changes, *(["status"] if "#status" in condition else []))}
        for name, value in new_values.items():
            values = {**values, f":{name}": value.value if isinstance(value, _IfAbsent) else value}
        return await self._update(session_id, expression, condition, names, values)

    async def _update(
        self, session_id: SessionId, expression: str, condition: str, names: dict[str, str], values: Item
    ) -> Session:
        """Update a row if a condition holds, and return the session; raises ConditionFailed with the row."""
        answer = await self._request(
            "update_item",
            TableName=self._name,
            Key=to_item({"session_id": session_id}),
            UpdateExpression=expression,
            ConditionExpression=condition,
            ExpressionAttributeNames=names,
            **({"ExpressionAttributeValues": to_item(values)} if values else {}),
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
        return session_of(from_item(answer["Attributes"]))

    async def _matching(self, workspace: WorkspaceId, query: ListSessionsQuery) -> tuple[list[str], str | None]:
        """Return up to limit + 1 matching ids, and the last id read if the search stopped at MAX_ROWS_READ."""
        filters = {name: value for name in ("status", "agent_id") if (value := getattr(query, name)) is not None}
        request: dict[str, Any] = {
            "TableName": self._name,
            "IndexName": BY_WORKSPACE,
            "KeyConditionExpression": "workspace = :workspace",
            "ExpressionAttributeValues": to_item(
                {":workspace": workspace, **{f":{name}": value for name, value in filters.items()}}
            ),
            "ScanIndexForward": False,
            "Limit": _ROWS_PER_QUERY if filters else query.limit + 1,
        }
        if filters:
            request["FilterExpression"] = " AND ".join(f"#{name} = :{name}" for name in filters)
            request["ExpressionAttributeNames"] = {f"#{name}": name for name in filters}
        if query.cursor is not None:
            last = {"workspace": workspace, "session_id": decode_cursor(query.cursor)}
            request["ExclusiveStartKey"] = to_item(last)
        found: list[str] = []
        rows_read = 0
        while True:
            answer = await self._request("query", **request)
            found += [item["session_id"]["S"] for item in answer["Items"]]
            rows_read += answer["ScannedCount"]
            if len(found) > query.limit or "LastEvaluatedKey" not in answer:
                return found, None
            if rows_read >= MAX_ROWS_READ:
                return found, answer["LastEvaluatedKey"]["session_id"]["S"]
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def _batch(self, session_ids: Sequence[str]) -> dict[str, Item]:
        """Return rows without results, by id, in one request unless DynamoDB leaves keys unprocessed."""
        if not session_ids:
            return {}
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
            answer = await self._request("batch_get_item", RequestItems=request)
            for item in map(from_item, answer["Responses"].get(self._name, [])):
                rows[item["session_id"]] = item
            if not (request := answer.get("UnprocessedKeys", {})):
                return rows
            await asyncio.sleep(0.05 * 2**attempt)
        raise StorageError


@dataclass(frozen=True, slots=True)
class _IfAbsent:
    """A value for an attribute that has none yet."""

    value: Any
