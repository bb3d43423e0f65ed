"""Sessions, with the state of their LiveKit rooms."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pydantic import JsonValue

from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.attributes import Item, from_item, to_item, to_json_text
from pi_voice.adapters.dynamodb.session_items import (
    DELETED,
    DUE_SHARDS,
    LISTED,
    duties_of,
    duty_attributes,
    merge_event,
    recordings_text,
    retained_until,
    row_of,
    session_item,
    session_of,
    stored_duties,
    stored_event,
    tombstone_item,
    unchanged_duties,
    usage_attribute,
)
from pi_voice.adapters.dynamodb.table import BY_WORKSPACE, ConditionFailed, Table
from pi_voice.adapters.dynamodb.updates import Appended, IfAbsent, update_of
from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import RenewalLimitReached, SessionActive, SessionNotFound, StorageError
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import EventId, SessionId, WorkspaceId, is_uuid, lowest_uuid7
from pi_voice.domain.pagination import Page, decode_cursor, encode_cursor
from pi_voice.domain.sessions import DAY_SECONDS, MAX_RENEWALS, Session, SessionCompletion, Tombstone
from pi_voice.domain.usage import TokenUsage
from pi_voice.domain.webhook_events import (
    MAX_OWED_EVENTS,
    OwedEvent,
    event_of_end,
    event_of_extraction,
    event_of_first_sign,
)
from pi_voice.logs import logger
from pi_voice.ports import DueSession

if TYPE_CHECKING:  # most functions do not need these models
    from pi_voice.domain.livekit_webhooks import RoomEvent
    from pi_voice.domain.session_api import ListSessionsQuery

BY_DUE: Final = "by_due"
MAX_ROWS_READ: Final = 1_000
"""Maximum number of index rows read for one filtered page."""

MAX_UNREADABLE_TRIES: Final = 24
"""Number of times that a row that cannot be read is put off before it is given up."""

_ROWS_PER_QUERY: Final = 100
_DUE_PER_QUERY: Final = 100
_BATCH_ATTEMPTS: Final = 5
_ATTEMPTS: Final = 5
_OTHER_ROOMS: Final = 5
_HIGHEST_ID: Final = 2**128 - 1


class DynamoSessions(Table):
    """Sessions, with the state of their LiveKit rooms."""

    def __init__(self, dynamodb: AwsClient, name: str, retention_days: int = 0) -> None:
        super().__init__(dynamodb, name)
        self._retention_seconds = retention_days * DAY_SECONDS

    async def get(self, session_id: SessionId) -> Session | None:
        """Return a session, in any workspace; an invalid id sends no request. Raises UnreadableRow."""
        if not is_uuid(session_id):
            return None
        row = self._row(await self._get({"session_id": session_id}))
        return row if isinstance(row, Session) else None

    async def add(self, session: Session) -> bool:
        """Store a new session, and return whether it was new. Transition: `create`.

        If the response of a write was lost, the retry finds the row, perhaps with later room events, and does not
        change it: session ids are unique.
        """
        item = session_item(session)
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

    async def complete(self, session: Session, completion: SessionCompletion) -> Session | None:
        """Turn an active session into a completed one, all or nothing. Transition: `complete`.

        None if it was not active, or if its checkpoints or its expiry differ from those in the completion. An earlier
        hang-up keeps its reason. If the response of a write was lost, the retry's condition fails, but the row that it
        returns has our transcript id, so the write had succeeded.
        """
        changes = {
            "status": "completed",
            "completed_at": completion.completed_at,
            "completed_by": completion.completed_by,
            "duration_seconds": completion.duration_seconds,
            "end_reason": IfAbsent(completion.end_reason),
            "transcript_id": completion.transcript_id,
            "turns": completion.turns,
            "request_hash": completion.request_hash,
            "room_ends_at": completion.room_ends_at,
            "extraction": completion.extraction.model_dump_json(exclude_defaults=True),
        }
        condition, values = "#status = :active", Item({":active": "active"})
        if completion.checkpoint_turns is not None:
            condition += " AND checkpoint_turns = :checkpoint_turns"
            values |= {":checkpoint_turns": completion.checkpoint_turns}
        if completion.expires_at is not None:
            condition += " AND expires_at = :expires_at"
            values |= {":expires_at": completion.expires_at}
        event = event_of_end("completed", completion.completed_at)
        try:
            return await self._transition(session, changes, condition, values, completion.duties_after, event)
        except ConditionFailed as failed:
            is_ours = failed.item.get("transcript_id") == completion.transcript_id
            return self._read(session_of, failed.item) if is_ours else None

    async def fail(self, session: Session, failed: Session, close_room_at: int | None) -> Session | None:
        """Turn an active session without checkpoints into a failed one. Transition: `fail`.

        None if it was not one, or was renewed. An earlier hang-up keeps its reason. Only attributes of the failure and
        the duties change; the room is to be closed at a time, or not at all.
        """

        def duties(before: Duties) -> Duties:
            after = before.without("end_call", "hang_up")
            return after if close_room_at is None else after.plus(close_room=close_room_at)

        changes = {
            "status": failed.status,
            "failed_at": failed.failed_at,
            "failure": failed.failure and failed.failure.model_dump(),
            "end_reason": IfAbsent(failed.end_reason),
        }
        condition = "#status = :active AND checkpoint_turns = :none AND expires_at = :expires_at"
        values = {":active": "active", ":none": 0, ":expires_at": failed.expires_at}
        try:
            return await self._transition(session, changes, condition, values, duties, failed.owed_events[-1])
        except ConditionFailed:
            return None

    async def hang_up(self, session: Session, reason: str, now: int) -> Session | None:
        """Record that an active call was hung up; None if it was not active. Transition: `hang_up`.

        Repeated calls do not change `hung_up_at` and `end_reason`. The room is to be closed now.
        """
        changes = {"hung_up_at": IfAbsent(now), "end_reason": IfAbsent(reason)}
        try:
            return await self._transition(
                session,
                changes,
                "#status = :active",
                {":active": "active"},
                lambda duties: duties.without("hang_up").plus(close_room=now),
            )
        except ConditionFailed:
            return None

    async def start(self, session: Session, now: int, hang_up_at: int | None) -> Session | Tombstone | None:
        """Record the first sign of life of an ongoing call, and when to hang up, if it is known. Transition: `start`.

        Nothing changes if the call has started or is not ongoing. Return the current row; None if there is none.
        """
        event = event_of_first_sign(session.started_at, now)
        try:
            return await self._transition(
                session,
                {"started_at": now},
                "#status = :active AND attribute_not_exists(hung_up_at) AND attribute_not_exists(#started_at)",
                {":active": "active"},
                lambda duties: duties if hang_up_at is None else duties.plus(hang_up=hang_up_at),
                event,
            )
        except ConditionFailed as failed:
            return self._row(failed.item)

    async def count_renewal(self, session_id: SessionId) -> Session | None:
        """Count one more renewal of an ongoing call; None if it is not ongoing. Transition: `count_renewal`.

        Raises RenewalLimitReached. A renewal whose response was lost may count twice.
        """
        ongoing = "#status = :active AND attribute_not_exists(hung_up_at)"
        try:
            item = await self._update(
                session_id,
                "SET renewals = if_not_exists(renewals, :none) + :one",
                f"{ongoing} AND (attribute_not_exists(renewals) OR renewals < :limit)",
                {"#status": "status"},
                {":active": "active", ":none": 0, ":one": 1, ":limit": MAX_RENEWALS},
            )
        except ConditionFailed as failed:
            current = self._row(failed.item)
            if isinstance(current, Session) and current.is_ongoing:
                raise RenewalLimitReached from None
            return None
        return self._read(session_of, item)

    async def renew(self, session_id: SessionId, expires_at: int) -> Session | None:
        """Move the expiry of an ongoing call forward, never back; None if it is not ongoing. Transition: `renew`.

        The duties do not change. The sweeper reads the new expiry when it would end the call.
        """
        condition = "#status = :active AND attribute_not_exists(hung_up_at) AND #expires_at <= :expires_at"
        try:
            return await self._set(session_id, {"expires_at": expires_at}, condition, {":active": "active"})
        except ConditionFailed as failed:
            current = self._row(failed.item)  # with a later expiry, if a concurrent request set one
            return current if isinstance(current, Session) and current.is_ongoing else None

    async def report_usage(self, session: Session, report: TokenUsage) -> TokenUsage | None:
        """Merge a report into the usage of a session, the larger of each number. Transition: `report_usage`.

        Return the merged usage; None if the session was deleted. A write depends on the usage that was read. If that
        changed, it is repeated with the current one. A report without a larger number writes nothing.
        """
        current, stored = session.usage, session.usage and usage_attribute(session.usage)
        for _ in range(_ATTEMPTS):
            merged = current.with_report(report) if current else report
            if merged is current:
                return merged
            condition, values = "#status <> :deleted AND attribute_exists(session_id)", Item({":deleted": DELETED})
            if stored is None:
                condition += " AND attribute_not_exists(#usage)"
            else:
                condition, values = f"{condition} AND #usage = :before", {**values, ":before": stored}
            changes = {"usage": {**(stored or {}), **usage_attribute(merged)}}  # with what a newer version stored
            try:
                return (await self._set(session.session_id, changes, condition, values)).usage
            except ConditionFailed as failed:
                row = self._row(failed.item)
                if not isinstance(row, Session):
                    return None
                current, stored = row.usage, failed.item.get("usage")
        raise StorageError

    async def set_duties(self, session_id: SessionId, before: Duties, after: Duties) -> Session | Tombstone | None:
        """Replace the duties of a session or tombstone, unless they changed since the read. Transition: `set_duties`.

        Return the current row; None if there is none.
        """
        changes = duty_attributes(session_id, after)
        stored: Item | None = stored_duties(before)
        for _ in range(_ATTEMPTS):
            condition, values = unchanged_duties(stored)
            try:
                return self._row(await self._change(session_id, changes, condition, values))
            except ConditionFailed as failed:
                row, current = self._row(failed.item), failed.item.get("duties")
                if row is None or row.duties != before or current == stored:
                    return row
                stored = current  # the same duties, as another version of the code wrote them
        raise StorageError

    async def save_extraction(
        self, before: Session, results: JsonValue, extraction: Extraction, duties: Callable[[Duties], Duties]
    ) -> Session:
        """Store results and extraction, and change the duties. Transition: `save_extraction`.

        Nothing changes if the extraction changed since `before` was read. Return the current session. Raises
        SessionNotFound if it was deleted.
        """
        event = event_of_extraction(before.extraction, extraction)
        changes = {
            "results": to_json_text(results),
            "extraction": extraction.model_dump_json(exclude_defaults=True),
        }
        previous = before.extraction.model_dump_json(exclude_defaults=True) if before.extraction else None
        condition = "#status = :completed AND transcript_id = :transcript AND #extraction = :before"
        values = {":completed": "completed", ":transcript": before.transcript_id, ":before": previous}
        try:
            return await self._transition(before, changes, condition, values, duties, event)
        except ConditionFailed as failed:
            current = self._row(failed.item)
            if isinstance(current, Session):
                return current
            raise SessionNotFound from None

    async def clear_owed_events(self, session: Session, dispatched: Collection[EventId]) -> None:
        """Remove events that have their deliveries, and the duty to send if none is left.

        Events that were appended since the read stay, and so do those that cannot be read. Nothing changes once the
        session was deleted. Transition: `clear_owed_events`.
        """
        stored: list[Any] | None = [stored_event(event) for event in session.owed_events]
        duties = session.duties
        stored_as: Item | None = stored_duties(duties)
        for _ in range(_ATTEMPTS):
            left = [event for event in stored or () if _id_of(event) not in dispatched]
            after = duties if left else duties.without("send_events")
            if len(left) == len(stored or ()) and after == duties:
                return
            unchanged, read = unchanged_duties(stored_as)
            same = "#owed_events = :events_before" if stored else "attribute_not_exists(#owed_events)"
            condition = f"#status <> :deleted AND {unchanged} AND {same}"
            values = {":deleted": DELETED, **read, **({":events_before": stored} if stored else {})}
            changes = {"owed_events": left or None, **duty_attributes(session.session_id, after)}
            try:
                await self._change(session.session_id, changes, condition, values)
            except ConditionFailed as failed:
                if not isinstance(self._row(failed.item), Session):
                    return
                stored, stored_as = failed.item.get("owed_events"), failed.item.get("duties")
                duties = self._read(duties_of, failed.item)
            else:
                return
        raise StorageError

    async def due(self, now: int) -> AsyncIterator[list[DueSession]]:
        """Yield the sessions and tombstones that are due by now, one page per request.

        A page has up to _DUE_PER_QUERY rows of one partition of the index, the oldest first. Partitions come in random
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
                yield [
                    DueSession(SessionId(row["session_id"]), row["due_at"]) for row in map(from_item, answer["Items"])
                ]
                if "LastEvaluatedKey" not in answer:
                    break
                request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def duties(self, session_id: SessionId) -> Duties | None:
        """Return the duties of a session or tombstone; None if there is none. Raises UnreadableRow."""
        row = self._row(await self._get({"session_id": session_id}))
        return row.duties if row else None

    async def put_off(self, due: DueSession, until: int | None) -> bool:
        """Move the due time of a row that cannot be read, if it did not change since the read. Transition: `put_off`.

        None: the row is not due any more. Return whether there is a next try: after MAX_UNREADABLE_TRIES nothing is
        written unless `until` is None.
        """
        if until is None:
            change, condition, values = "REMOVE due_at, due_shard", "due_at = :read", Item()
        else:
            change = "SET due_at = :until ADD unreadable_tries :one"
            condition = "due_at = :read AND (attribute_not_exists(unreadable_tries) OR unreadable_tries < :max)"
            values = {":until": until, ":one": 1, ":max": MAX_UNREADABLE_TRIES}
        try:
            await self._request(
                "update_item",
                TableName=self._name,
                Key=to_item({"session_id": due.session_id}),
                UpdateExpression=change,
                ConditionExpression=condition,
                ExpressionAttributeValues=to_item({":read": due.due_at, **values}),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ConditionFailed as failed:
            return failed.item.get("due_at") != due.due_at  # else it was tried too often
        return True

    async def delete(self, tombstone: Tombstone, now: int) -> None:
        """Replace an ended session by a tombstone; raises SessionActive. Transition: `delete`."""
        try:
            await self._request(
                "put_item",
                TableName=self._name,
                Item=to_item(tombstone_item(tombstone, now)),
                ConditionExpression="attribute_exists(session_id) AND #status <> :active",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues=to_item({":active": "active"}),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ConditionFailed as failed:
            if failed.item:
                raise SessionActive from None

    async def forget(self, tombstone: Tombstone) -> None:
        """Delete a tombstone, unless its duties changed since the read. Transition: `forget`."""
        with suppress(ConditionFailed):
            await self._request(
                "delete_item",
                TableName=self._name,
                Key=to_item({"session_id": tombstone.session_id}),
                ConditionExpression="#status = :deleted AND duties = :before",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues=to_item({":deleted": DELETED, ":before": stored_duties(tombstone.duties)}),
            )

    async def page(self, workspace: WorkspaceId, query: "ListSessionsQuery") -> Page[Session]:
        """Return one page of a workspace's sessions, without results, newest first; raises InvalidCursor.

        The index returns the ids, and a batch request reads their rows. A filtered page reads at most MAX_ROWS_READ
        rows of the index, _ROWS_PER_QUERY per request.
        """
        found, last_read = await self._matching(workspace, query)
        shown = found[: query.limit]
        more = shown[-1] if len(found) > len(shown) else last_read
        rows = await self._batch(shown)
        read = [rows[session_id] for session_id in shown if session_id in rows]
        if query.status is not None:
            read = [row for row in read if row.get("status") == query.status]  # the index lags behind the table
        return Page[Session](
            data=self._readable(session_of, read),
            next_cursor=encode_cursor(more) if more else None,
        )

    async def merge_room_event(self, event: "RoomEvent") -> Session | Tombstone | None:
        """Merge an event into its session and return it; None if there is no such session, or its room was not created.

        Of a deleted session return the tombstone, which does not change.

        One request for the session's own room, two for a later room of the same name, which a participant's return
        creates; the first _OTHER_ROOMS of these are stored. Existing values stay and the earliest join counts, so
        repeated and late events change nothing. Recordings take one request if the session has none, else two.
        Transition: `merge_event`.
        """
        if event.recordings:
            return await self._merge_recordings(event)
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
            merged = await self._update(
                event.session_id,
                "SET " + ", ".join(updates),
                condition,
                {f"#{name}": name for name in facts},
                {":sid": event.room_sid, **{f":{name}": value for name, value in facts.items()}},
            )
        except ConditionFailed as failed:
            row = self._row(failed.item)
            if not isinstance(row, Session):
                return row
            if row.livekit.room_sid is None:
                return None
            is_own_room = row.livekit.room_sid == event.room_sid
            return row if is_own_room else await self._merge_reopened_room(event, failed.item)
        return self._read(session_of, merged)

    async def _merge_reopened_room(self, event: "RoomEvent", item: Item) -> Session | Tombstone | None:
        """Merge an event of a later room of the same name, unless its entry changed since the row was read."""
        for _ in range(_ATTEMPTS):
            row = self._row(item)
            if not isinstance(row, Session):
                return row
            rooms = item["livekit"].get("other_rooms")
            if rooms is None:  # written by another version of the code
                return row
            before = rooms.get(event.room_sid)
            after = merge_event(before or {}, event)
            if after == before or (before is None and len(rooms) >= _OTHER_ROOMS):
                return row
            values = {":after": after} if before is None else {":after": after, ":before": before}
            room = "livekit.other_rooms.#sid"
            unchanged = f"attribute_not_exists({room})" if before is None else f"{room} = :before"
            condition = f"attribute_exists(livekit.other_rooms) AND {unchanged}"
            try:
                merged = await self._update(
                    event.session_id, f"SET {room} = :after", condition, {"#sid": event.room_sid}, values
                )
            except ConditionFailed as failed:
                item = failed.item
            else:
                return self._read(session_of, merged)
        raise StorageError

    async def _merge_recordings(self, event: "RoomEvent") -> Session | Tombstone | None:
        """Add recordings to those of a session, unless these changed since the row was read."""
        row: Session | None = None
        before: str | None = None
        for _ in range(_ATTEMPTS):
            stored = row.recordings if row else ()
            after = event.recordings_after(stored)
            if row and before is not None and len(after) == len(stored):
                return row
            values = {":after": recordings_text(after)}
            unchanged = "attribute_not_exists(#recordings)"
            if before is not None:
                unchanged, values[":before"] = "#recordings = :before", before
            try:
                merged = await self._update(
                    event.session_id,
                    "SET #recordings = :after",
                    f"attribute_exists(livekit.room_sid) AND {unchanged}",
                    {"#recordings": "recordings"},
                    values,
                )
            except ConditionFailed as failed:
                current = self._row(failed.item)
                if not isinstance(current, Session) or current.livekit.room_sid is None:
                    return current if isinstance(current, Tombstone) else None
                row, before = current, failed.item.get("recordings")
            else:
                return self._read(session_of, merged)
        raise StorageError

    async def _transition(
        self,
        session: Session,
        changes: Item,
        condition: str,
        values: Item,
        duties: Callable[[Duties], Duties],
        event: OwedEvent | None = None,
    ) -> Session:
        """Change attributes and duties of a row if a condition holds, and owe an event, in one write.

        The write depends on the duties that were read. If only they changed, it is repeated with the current ones.
        Raises ConditionFailed with the row, and StorageError.
        """
        before, owed = session.duties, len(session.owed_events)
        stored: Item | None = stored_duties(before)
        for _ in range(_ATTEMPTS):
            after = duties(before)
            if event is not None and owed >= MAX_OWED_EVENTS:
                logger.error("event_not_owed", session_id=session.session_id, type=event.type)
                event = None
            if event is not None:
                after, changes = event.duties_after(after), {**changes, "owed_events": Appended(stored_event(event))}
            all_changes = {**changes, **duty_attributes(session.session_id, after)}
            unchanged, read = unchanged_duties(stored)
            try:
                return await self._set(
                    session.session_id, all_changes, f"{condition} AND {unchanged}", {**values, **read}
                )
            except ConditionFailed as failed:
                current = failed.item.get("duties")
                if not failed.item or current == stored:
                    raise
                before, stored = self._read(duties_of, failed.item), current
                owed = len(failed.item.get("owed_events", []))
        raise StorageError

    async def _set(self, session_id: SessionId, changes: Item, condition: str, values: Item) -> Session:
        """Change attributes of a session if a condition holds, which no tombstone meets."""
        return self._read(session_of, await self._change(session_id, changes, condition, values))

    async def _change(self, session_id: SessionId, changes: Item, condition: str, values: Item) -> Item:
        """Change attributes of an existing row if a condition holds; None removes an attribute."""
        update = update_of(changes)
        names = {**update.names, **({"#status": "status"} if "#status" in condition else {})}
        return await self._update(session_id, update.expression, condition, names, {**values, **update.values})

    async def _update(
        self, session_id: SessionId, expression: str, condition: str, names: dict[str, str], values: Item
    ) -> Item:
        """Update a row if a condition holds, and return it; raises ConditionFailed with the row."""
        answer = await self._request(
            "update_item",
            TableName=self._name,
            Key=to_item({"session_id": session_id}),
            UpdateExpression=expression,
            ConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=to_item(values),
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
        return from_item(answer["Attributes"])

    def _row(self, item: Item | None) -> Session | Tombstone | None:
        return self._read(row_of, item) if item else None

    async def _matching(self, workspace: WorkspaceId, query: "ListSessionsQuery") -> tuple[list[str], str | None]:
        """Return up to limit + 1 matching ids, and the last id read if the search stopped at MAX_ROWS_READ.

        The times and the cursor bound the ids that are read. A cursor outside of the times needs no request: DynamoDB
        refuses an ExclusiveStartKey outside of the key condition.
        """
        first, last = _id_bounds(query)
        if first > last:
            return [], None
        filters = {"status": query.status, "agent_id": query.agent_id, "participant_identity": query.participant}
        filters = {name: value for name, value in filters.items() if value is not None}
        request: dict[str, Any] = {
            "TableName": self._name,
            "IndexName": BY_WORKSPACE,
            "KeyConditionExpression": "workspace = :workspace AND session_id BETWEEN :first AND :last",
            "ExpressionAttributeValues": to_item(
                {
                    ":workspace": workspace,
                    ":first": str(uuid.UUID(int=first)),
                    ":last": str(uuid.UUID(int=last)),
                    **{f":{name}": value for name, value in filters.items()},
                }
            ),
            "ScanIndexForward": False,
            "Limit": _ROWS_PER_QUERY if filters else query.limit + 1,
        }
        if filters:
            request["FilterExpression"] = " AND ".join(f"#{name} = :{name}" for name in filters)
            request["ExpressionAttributeNames"] = {f"#{name}": name for name in filters}
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
                if item.get("status") != DELETED:  # the index lags behind the table
                    rows[item["session_id"]] = item
            if not (request := answer.get("UnprocessedKeys", {})):
                return rows
            await asyncio.sleep(0.05 * 2**attempt)
        raise StorageError


def _id_bounds(query: "ListSessionsQuery") -> tuple[int, int]:
    """Return the lowest and the highest id that a query selects by time and cursor, as numbers."""
    first = 0 if query.created_after is None else lowest_uuid7(query.created_after)
    last = _HIGHEST_ID if query.created_before is None else lowest_uuid7(query.created_before) - 1
    return first, last if query.cursor is None else min(last, uuid.UUID(decode_cursor(query.cursor)).int - 1)


def _id_of(event: Any) -> Any:
    """Return the id of a stored event; None of one that cannot be read."""
    return event.get("event_id") if isinstance(event, dict) else None
