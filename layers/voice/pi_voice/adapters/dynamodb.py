"""DynamoDB: what the product keeps, and the conditions under which it changes.

Every method is one request unless its docstring says otherwise. Requests run in threads, so that a use case may
run two of them side by side.
"""

import asyncio
import json
import random
import time
import uuid
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any, Final

from pydantic import JsonValue

from pi_voice import cursors, transcript
from pi_voice.adapters.aws import AwsService, Refused, Unanswered
from pi_voice.agents import Agent, AgentQuery, OwnedAgent
from pi_voice.api_keys import ApiKey
from pi_voice.documents import Page
from pi_voice.errors import AgentNotFound, RateLimited, SessionActive, SessionNotFound, StorageError
from pi_voice.ids import AgentId, Clock, KeyHash, KeyId, SessionId, TranscriptId, WorkspaceId, is_uuid
from pi_voice.logs import logger
from pi_voice.ports import RoomEvent
from pi_voice.sessions import (
    DAY_SECONDS,
    SHARDS,
    CallEnd,
    Extraction,
    OtherRoom,
    Participant,
    Problem,
    RoomFacts,
    Session,
    SessionQuery,
)
from pi_voice.transcript import Turn

BY_WORKSPACE: Final = "by_workspace"
BY_DUE: Final = "by_due"
HEAD: Final = 0
"""The sort key of an agent's head; versions count from 1."""

MAX_ROWS_READ: Final = 1_000
"""How many rows one filtered page of sessions may read."""

_ROWS_PER_QUERY: Final = 100
_DUE_PER_QUERY: Final = 100
_TRANSACTION_ATTEMPTS: Final = 5
_CONFLICT_ATTEMPTS: Final = 5
_BATCH_ATTEMPTS: Final = 5
_MERGE_ATTEMPTS: Final = 5
_OTHER_ROOMS: Final = 10
_LOSER_SECONDS: Final = DAY_SECONDS
_CONDITION_FAILED: Final = {"ConditionalCheckFailedException", "TransactionCanceledException"}

Attributes = dict[str, Any]
Item = dict[str, Any]


class _Table:
    """One table, its requests in threads and its errors translated."""

    def __init__(self, dynamodb: AwsService, name: str) -> None:
        self._dynamodb = dynamodb
        self._name = name

    async def _ask(self, operation: str, **arguments: Any) -> Any:
        """Send one request, again where it met a transaction on the same row.

        Raises StorageError, and Refused where that means that a condition did not hold.
        """
        for attempt in count():
            try:
                async with asyncio.timeout(self._dynamodb.patience_seconds):
                    return await asyncio.to_thread(self._dynamodb.ask, operation, arguments)
            except Refused as refusal:
                if refusal.code in _CONDITION_FAILED:
                    raise
                if refusal.code != "TransactionConflictException" or attempt == _CONFLICT_ATTEMPTS:
                    logger.error("dynamodb refused", operation=operation, code=refusal.code)
                    raise StorageError from None
            except (Unanswered, TimeoutError) as error:
                logger.error("dynamodb failed", table=self._name, error=str(error) or type(error).__name__)
                raise StorageError from None
            await _pause(attempt)
        raise AssertionError  # counting does not end

    async def _transact(self, *writes: Mapping[str, Any]) -> None:
        """Write all or nothing, again where DynamoDB cancelled it for anything but a condition.

        A webhook that writes to a session in the same moment is such a reason, and throttling another. By its token,
        DynamoDB knows a transaction that is sent again because no answer came, and does it once. Raises StorageError,
        and Refused where a condition did not hold.
        """
        for attempt in range(_TRANSACTION_ATTEMPTS):
            try:
                await self._ask("TransactWriteItems", TransactItems=writes, ClientRequestToken=str(uuid.uuid4()))
            except Refused as cancelled:
                reasons = {reason.get("Code") for reason in cancelled.answer.get("CancellationReasons", [])}
                if "ConditionalCheckFailed" in reasons:
                    raise
                logger.info("a transaction is repeated", table=self._name, reasons=sorted(map(str, reasons)))
                await _pause(attempt)
            else:
                return
        raise StorageError

    async def _get(self, key: Mapping[str, Any]) -> Item | None:
        answer = await self._ask("GetItem", TableName=self._name, Key=_to_item(key), ConsistentRead=True)
        return _from_item(answer["Item"]) if "Item" in answer else None

    async def _all(self, request: dict[str, Any]) -> list[Item]:
        """Return all rows of a query, one request per megabyte."""
        rows: list[Item] = []
        while True:
            answer = await self._ask("Query", **request)
            rows += map(_from_item, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return rows
            request = {**request, "ExclusiveStartKey": answer["LastEvaluatedKey"]}


class DynamoApiKeys(_Table):
    """API keys, by the hash of their secret."""

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        """Return the key with this hash, revoked or not."""
        item = await self._get({"key_hash": key_hash})
        return _api_key(item) if item else None

    async def add(self, key: ApiKey, key_hash: KeyHash) -> None:
        """Keep a key; one with the same secret is replaced."""
        item = {"key_hash": key_hash, **key.model_dump(exclude_none=True)}
        await self._ask("PutItem", TableName=self._name, Item=_to_item(item))

    async def of(self, workspace: WorkspaceId) -> list[ApiKey]:
        """Return all keys of a workspace, newest first; one request per megabyte."""
        rows = await self._rows("workspace = :workspace", {":workspace": workspace})
        return [_api_key(row) for row in rows]

    async def revoke(self, workspace: WorkspaceId, key_id: KeyId, now: int) -> ApiKey | None:
        """Revoke a key and return it, in two requests; None if the workspace has none with this id."""
        if not is_uuid(key_id):
            return None
        rows = await self._rows(
            "workspace = :workspace AND key_id = :key_id", {":workspace": workspace, ":key_id": key_id}
        )
        if not rows:
            return None
        answer = await self._ask(
            "UpdateItem",
            TableName=self._name,
            Key=_to_item({"key_hash": rows[0]["key_hash"]}),
            UpdateExpression="SET revoked_at = if_not_exists(revoked_at, :now)",
            ExpressionAttributeValues=_to_item({":now": now}),
            ReturnValues="ALL_NEW",
        )
        return _api_key(_from_item(answer["Attributes"]))

    async def _rows(self, condition: str, values: Item) -> list[Item]:
        return await self._all(
            {
                "TableName": self._name,
                "IndexName": BY_WORKSPACE,
                "KeyConditionExpression": condition,
                "ExpressionAttributeValues": _to_item(values),
                "ScanIndexForward": False,
            }
        )


def _api_key(item: Item) -> ApiKey:
    return ApiKey(**{name: item[name] for name in ApiKey.model_fields if name in item})


class DynamoAgents(_Table):
    """Agents: immutable versions, and beside them a head that alone carries the workspace."""

    async def current(self, agent_id: AgentId) -> OwnedAgent | None:
        """Return an agent's head, whichever workspace it belongs to; what is no id is not asked for."""
        if not is_uuid(agent_id):
            return None
        item = await self._get({"agent_id": agent_id, "version": HEAD})
        return OwnedAgent(item["workspace"], _agent(item)) if item else None

    async def version(self, agent_id: AgentId, version: int) -> Agent:
        """Return one version of an agent, which outlives the agent itself; raises AgentNotFound."""
        item = await self._get({"agent_id": agent_id, "version": version})
        if item is None:
            raise AgentNotFound
        return _agent(item)

    async def save(self, workspace: WorkspaceId, agent: Agent) -> bool:
        """Make this version the head, if the head is the version before it; tell whether it was.

        One transaction, so that a crash can leave neither a head without its version nor a version number that
        is taken for good.
        """
        document = {"agent_id": agent.agent_id, "document": agent.model_dump_json()}
        version = {**document, "version": agent.version}
        head = {**document, "version": HEAD, "workspace": workspace, "current": agent.version}
        if agent.version == 1:
            head_condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(agent_id)"}
        else:
            head_condition = {
                "ConditionExpression": "#current = :before",
                "ExpressionAttributeNames": {"#current": "current"},
                "ExpressionAttributeValues": _to_item({":before": agent.version - 1}),
            }
        try:
            await self._transact(
                {"Put": {"TableName": self._name, "Item": _to_item(version)}},
                {"Put": {"TableName": self._name, "Item": _to_item(head), **head_condition}},
            )
        except Refused:
            return False
        return True

    async def delete(self, workspace: WorkspaceId, agent_id: AgentId) -> None:
        """Remove the head; the versions stay for the sessions that were started with them."""
        try:
            await self._ask(
                "DeleteItem",
                TableName=self._name,
                Key=_to_item({"agent_id": agent_id, "version": HEAD}),
                ConditionExpression="workspace = :workspace",
                ExpressionAttributeValues=_to_item({":workspace": workspace}),
            )
        except Refused:
            return  # somebody else deleted it in the same moment

    async def page(self, workspace: WorkspaceId, query: AgentQuery) -> Page[Agent]:
        """Return one page of a workspace's agents, newest first; a page also ends at a megabyte."""
        request: dict[str, Any] = {
            "TableName": self._name,
            "IndexName": BY_WORKSPACE,
            "KeyConditionExpression": "workspace = :workspace",
            "ExpressionAttributeValues": _to_item({":workspace": workspace}),
            "ScanIndexForward": False,
            "Limit": query.limit + 1,
        }
        if query.cursor is not None:
            last = {"workspace": workspace, "agent_id": cursors.decode(query.cursor), "version": HEAD}
            request["ExclusiveStartKey"] = _to_item(last)
        answer = await self._ask("Query", **request)
        agents = [_agent(_from_item(item)) for item in answer["Items"]]
        shown = agents[: query.limit]
        more = len(agents) > len(shown) or "LastEvaluatedKey" in answer
        return Page[Agent](data=shown, next_cursor=cursors.encode(shown[-1].agent_id) if more else None)


def _agent(item: Item) -> Agent:
    return Agent.model_validate_json(item["document"])


class DynamoSessions(_Table):
    """Sessions, and what LiveKit tells of their rooms."""

    def __init__(self, dynamodb: AwsService, name: str, retention_days: int = 0) -> None:
        super().__init__(dynamodb, name)
        self._retention_seconds = retention_days * DAY_SECONDS

    async def get(self, session_id: SessionId) -> Session | None:
        """Return a session, whichever workspace it belongs to; what is no id is not asked for."""
        if not is_uuid(session_id):
            return None
        item = await self._get({"session_id": session_id})
        return _session(item) if item else None

    async def add(self, session: Session) -> bool:
        """Keep a new session, with no other attribute than those that say something, and tell whether it is new.

        An answer that got lost on the way makes us ask again. Its id is nobody else's, so a row that is
        there already is this one, perhaps with what LiveKit has told by now. It stays as it is.
        """
        item = {
            **{name: value for name in _SCALARS if (value := getattr(session, name)) is not None},
            "participant": session.participant.model_dump(),
            "media": list(session.media),
            "livekit": session.livekit.model_dump(exclude_none=True) | {"other_rooms": {}},
            "metadata": session.metadata,
        }
        if session.failure is not None:
            item["failure"] = session.failure.model_dump()
        if session.due_at is not None:
            item["due_shard"] = _shard(session.session_id)
        if self._retention_seconds:
            item["ttl"] = _kept_until(session, self._retention_seconds)
        try:
            await self._ask(
                "PutItem",
                TableName=self._name,
                Item=_to_item(item),
                ConditionExpression="attribute_not_exists(session_id)",
            )
        except Refused:
            return False
        return True

    async def complete(self, session_id: SessionId, end: CallEnd) -> Session | None:
        """Turn an active session into a completed one, all or nothing.

        None if it was not active, or if turns were kept or more time was given that the end does not know of. What a
        call was hung up for stays its reason. An answer that got lost on the way makes us ask again. The
        condition then fails, but the row that comes back points to our own transcript: that call has won.
        """
        changes = {
            "status": "completed",
            "completed_at": end.completed_at,
            "completed_by": end.completed_by,
            "duration_seconds": end.duration_seconds,
            "end_reason": _Unless(end.end_reason),
            "transcript_id": end.transcript_id,
            "turns": end.turns,
            "request_hash": end.request_hash,
            "extraction": end.extraction.model_dump_json(exclude_defaults=True),
            **_due(session_id, end.due_at),
        }
        condition, values = "#status = :active", Item({":active": "active"})
        if end.checkpoint_turns is not None:
            condition += " AND checkpoint_turns = :checkpoint_turns"
            values |= {":checkpoint_turns": end.checkpoint_turns}
        if end.expires_at is not None:
            condition += " AND expires_at = :expires_at"
            values |= {":expires_at": end.expires_at}
        try:
            return await self._set(session_id, changes, condition, values)
        except Refused as refusal:
            item = _refused(refusal)
            return _session(item) if item.get("transcript_id") == end.transcript_id else None

    async def fail(self, failed: Session) -> Session | None:
        """Turn an active session without kept turns into a failed one; None if it was not that, or was renewed.

        What a call was hung up for stays its reason. All else that is not about the failure stays as it is kept.
        """
        changes = {
            "status": failed.status,
            "failed_at": failed.failed_at,
            "failure": failed.failure and failed.failure.model_dump(),
            "end_reason": _Unless(failed.end_reason),
            **_due(failed.session_id, failed.due_at),
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
        changes = {"hung_up_at": _Unless(now), "end_reason": _Unless(reason), **_due(session_id, now)}
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
            item = _refused(refusal)
            renewed_further = _session(item) if item else None
            return renewed_further if renewed_further and renewed_further.is_on else None

    async def schedule(self, session: Session, due_at: int | None) -> Session | None:
        """Say when to look at a session next, None for never, if nobody has said so since it was read.

        Return the session as it is now; None if it is gone.
        """
        if session.due_at is None:
            condition, values = "attribute_exists(session_id) AND attribute_not_exists(#due_at)", Item()
        else:
            condition, values = "#due_at = :before", {":before": session.due_at}
        try:
            return await self._set(session.session_id, _due(session.session_id, due_at), condition, values)
        except Refused as refusal:
            item = _refused(refusal)
            return _session(item) if item else None

    async def record(self, before: Session, results: JsonValue, extraction: Extraction, due_at: int | None) -> Session:
        """Keep what an extraction gave, unless another was kept since `before` was read; return what is kept now.

        Raises SessionNotFound if the session is gone.
        """
        changes = {
            "results": _json(results),
            "extraction": extraction.model_dump_json(exclude_defaults=True),
            **_due(before.session_id, due_at),
        }
        read = before.extraction.model_dump_json(exclude_defaults=True) if before.extraction else None
        condition = "#status = :completed AND transcript_id = :transcript AND #extraction = :before"
        values = {":completed": "completed", ":transcript": before.transcript_id, ":before": read}
        try:
            return await self._set(before.session_id, changes, condition, values)
        except Refused as refusal:
            if item := _refused(refusal):
                return _session(item)
            raise SessionNotFound from None

    async def due(self, shard: int, now: int) -> AsyncIterator[SessionId]:
        """Return the sessions of one shard for which something has to be done by now, the oldest first.

        One request per _DUE_PER_QUERY of them, made as they are asked for.
        """
        request: dict[str, Any] = {
            "TableName": self._name,
            "IndexName": BY_DUE,
            "KeyConditionExpression": "due_shard = :shard AND due_at <= :now",
            "ExpressionAttributeValues": _to_item({":shard": shard, ":now": now}),
            "Limit": _DUE_PER_QUERY,
        }
        while True:
            answer = await self._ask("Query", **request)
            for item in answer["Items"]:
                yield SessionId(item["session_id"]["S"])
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def delete(self, session_id: SessionId) -> None:
        """Remove a session; raises SessionActive."""
        try:
            await self._ask(
                "DeleteItem",
                TableName=self._name,
                Key=_to_item({"session_id": session_id}),
                ConditionExpression="#status <> :active",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues=_to_item({":active": "active"}),
            )
        except Refused:
            raise SessionActive from None

    async def page(self, workspace: WorkspaceId, query: SessionQuery) -> Page[Session]:
        """Return one page of a workspace's sessions, without results, newest first.

        The index says which rows; a batch request then reads them. A filtered page reads at most MAX_ROWS_READ
        rows of the index, _ROWS_PER_QUERY a request.
        """
        found, last_read = await self._matching(workspace, query)
        shown = found[: query.limit]
        more = shown[-1] if len(found) > len(shown) else last_read
        rows = await self._batch(shown)
        return Page[Session](
            data=[_session(rows[session_id]) for session_id in shown if session_id in rows],
            next_cursor=cursors.encode(more) if more else None,
        )

    async def merge(self, event: RoomEvent) -> Session | None:
        """Merge an event into its session and return it; None if it has none, or one without a room.

        One request for the room that we made. Another room of the same name (a re-join after ours had closed)
        takes a second one and is noted apart, the first _OTHER_ROOMS of them. What is known already stays as it
        is, and the first join is the earliest one told of: so repeats and late events change nothing.
        """
        told = {
            "started_at": event.started_at,
            "finished_at": event.finished_at,
            "metadata": _json(event.metadata),
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
            answer = await self._ask(
                "UpdateItem",
                TableName=self._name,
                Key=_to_item({"session_id": event.session_id}),
                UpdateExpression="SET " + ", ".join(updates),
                ConditionExpression=condition,
                ExpressionAttributeNames={f"#{name}": name for name in told},
                ExpressionAttributeValues=_to_item(
                    {":sid": event.room_sid, **{f":{name}": value for name, value in told.items()}}
                ),
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except Refused as refusal:
            item = _refused(refusal)
            sid = item["livekit"].get("room_sid") if item else None
            if sid is None:
                return None
            return _session(item) if sid == event.room_sid else await self._merge_apart(event, item)
        return _session(_from_item(answer["Attributes"]))

    async def _merge_apart(self, event: RoomEvent, item: Item) -> Session | None:
        """Note what an event tells of a room that is not the one we made, against the row as last read."""
        for _ in range(_MERGE_ATTEMPTS):
            rooms = item["livekit"]["other_rooms"]
            before = rooms.get(event.room_sid)
            after = _merged(before or {}, event)
            if after == before or (before is None and len(rooms) >= _OTHER_ROOMS):
                return _session(item)
            values = {":after": after} if before is None else {":after": after, ":before": before}
            untouched = "attribute_not_exists({0})" if before is None else "{0} = :before"
            try:
                answer = await self._ask(
                    "UpdateItem",
                    TableName=self._name,
                    Key=_to_item({"session_id": event.session_id}),
                    UpdateExpression="SET livekit.other_rooms.#sid = :after",
                    ConditionExpression="attribute_exists(session_id) AND "
                    + untouched.format("livekit.other_rooms.#sid"),
                    ExpressionAttributeNames={"#sid": event.room_sid},
                    ExpressionAttributeValues=_to_item(values),
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except Refused as refusal:
                if not (item := _refused(refusal)):
                    return None
            else:
                return _session(_from_item(answer["Attributes"]))
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
        arguments: dict[str, Any] = (
            {"ExpressionAttributeValues": _to_item({**values, **told})} if values or told else {}
        )
        answer = await self._ask(
            "UpdateItem",
            TableName=self._name,
            Key=_to_item({"session_id": session_id}),
            UpdateExpression=(f"SET {', '.join(sets)} " if sets else "")
            + (f"REMOVE {', '.join(removed)}" if removed else ""),
            ConditionExpression=condition,
            ExpressionAttributeNames={f"#{name}": name for name in names},
            **arguments,
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
        return _session(_from_item(answer["Attributes"]))

    async def _matching(self, workspace: WorkspaceId, query: SessionQuery) -> tuple[list[str], str | None]:
        """Return up to limit + 1 ids that match, and where reading stopped early, if it did."""
        wanted = {
            name: value for name, value in (("status", query.status), ("agent_id", query.agent_id)) if value is not None
        }
        request: dict[str, Any] = {
            "TableName": self._name,
            "IndexName": BY_WORKSPACE,
            "KeyConditionExpression": "workspace = :workspace",
            "ExpressionAttributeValues": _to_item(
                {":workspace": workspace, **{f":{name}": value for name, value in wanted.items()}}
            ),
            "ScanIndexForward": False,
            "Limit": _ROWS_PER_QUERY if wanted else query.limit + 1,
        }
        if wanted:
            request["FilterExpression"] = " AND ".join(f"#{name} = :{name}" for name in wanted)
            request["ExpressionAttributeNames"] = {f"#{name}": name for name in wanted}
        if query.cursor is not None:
            last = {"workspace": workspace, "session_id": cursors.decode(query.cursor)}
            request["ExclusiveStartKey"] = _to_item(last)
        found: list[str] = []
        rows_read = 0
        while True:
            answer = await self._ask("Query", **request)
            found += [item["session_id"]["S"] for item in answer["Items"]]
            rows_read += answer["ScannedCount"]
            if len(found) > query.limit or "LastEvaluatedKey" not in answer:
                return found, None
            if rows_read >= MAX_ROWS_READ:
                return found, answer["LastEvaluatedKey"]["session_id"]["S"]
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def _batch(self, session_ids: Sequence[str]) -> dict[str, Item]:
        """Read rows without their results, in one request unless DynamoDB leaves some for another."""
        names = {f"#{name}": name for name in _LISTED}
        request: dict[str, Any] = {
            self._name: {
                "Keys": [_to_item({"session_id": session_id}) for session_id in session_ids],
                "ProjectionExpression": ", ".join(names),
                "ExpressionAttributeNames": names,
                "ConsistentRead": True,
            }
        }
        rows: dict[str, Item] = {}
        for attempt in range(_BATCH_ATTEMPTS):
            if not session_ids:
                break
            answer = await self._ask("BatchGetItem", RequestItems=request)
            for item in map(_from_item, answer["Responses"].get(self._name, [])):
                rows[item["session_id"]] = item
            if not (request := answer.get("UnprocessedKeys", {})):
                return rows
            await asyncio.sleep(0.05 * 2**attempt)
        if session_ids:
            raise StorageError
        return rows


_UNLISTED: Final = {"results", "extraction", "transcript_id", "turns", "request_hash"}
_LISTED: Final = sorted({field.name for field in fields(Session)} - _UNLISTED)
_SCALARS: Final = sorted(set(_LISTED) - {"participant", "livekit", "metadata", "failure", "media"})


@dataclass(frozen=True, slots=True)
class _Unless:
    """A value that is set unless there is one already."""

    value: Any


async def _pause(attempt: int) -> None:
    """Let a transaction that is under way come to its end: 10 to 20 ms, and twice that each time."""
    await asyncio.sleep(random.uniform(0.01, 0.02) * 2**attempt)  # noqa: S311 (no secret)


def _shard(session_id: SessionId) -> int:
    """Spread sessions over the shards by the random end of their ids."""
    return int(session_id[-2:], 16) % SHARDS


def _kept_until(session: Session, retention_seconds: int) -> int:
    """Tell when a session may go: not before the sweeper has had a day to end it, however short the retention."""
    return max(session.created_at + retention_seconds, session.given_up_at + DAY_SECONDS)


def _due(session_id: SessionId, due_at: int | None) -> Item:
    """Say when a session is due; without a time it is not in the index at all."""
    return {"due_at": due_at, "due_shard": None if due_at is None else _shard(session_id)}


def _merged(facts: Item, event: RoomEvent) -> Item:
    """Add to what is known of a room what an event tells: the first word stands, the earliest join counts."""
    joins = [at for at in (facts.get("first_joined_at"), event.joined_at) if at is not None]
    told = {
        "started_at": facts.get("started_at", event.started_at),
        "first_joined_at": min(joins, default=None),
        "finished_at": facts.get("finished_at", event.finished_at),
        "metadata": facts.get("metadata", _json(event.metadata)),
    }
    return {name: value for name, value in told.items() if value is not None}


def _session(item: Item) -> Session:
    known = {field.name: item[field.name] for field in fields(Session) if field.name in item}
    return Session(
        **{
            **known,
            "participant": Participant(**item["participant"]),
            "livekit": _room_facts(item["livekit"]),
            "max_duration_seconds": item.get("max_duration_seconds"),
            "media": tuple(item["media"]),
            "failure": Problem(**item["failure"]) if "failure" in item else None,
            "results": json.loads(item["results"]) if "results" in item else None,
            "extraction": Extraction.model_validate_json(item["extraction"]) if "extraction" in item else None,
        }
    )


def _room_facts(facts: Item) -> RoomFacts:
    rooms = sorted(facts["other_rooms"].items(), key=lambda room: (room[1].get("started_at", 0), room[0]))
    return RoomFacts(
        **{**facts, "metadata": _parsed(facts.get("metadata"))}
        | {
            "other_rooms": [
                OtherRoom(room_sid=sid, **{**room, "metadata": _parsed(room.get("metadata"))}) for sid, room in rooms
            ]
        }
    )


class DynamoCheckpoints(_Table):
    """Turns that are kept while the call goes on: pieces under the session's own id, each from its first turn's number.

    How many turns are kept is told by the session alone, and changes with the piece in one transaction. So a turn is
    either kept and counted or neither, and nobody writes between two that read the same count.
    """

    def __init__(
        self,
        dynamodb: AwsService,
        sessions_name: str,
        transcripts_name: str,
        retention_days: int = 0,
    ) -> None:
        super().__init__(dynamodb, transcripts_name)
        self._sessions_name = sessions_name
        self._retention_seconds = retention_days * DAY_SECONDS

    async def append(self, session: Session, turns: Sequence[Turn], size: int) -> Session | None:
        """Keep turns behind those that a session has; when this returns, they are durable.

        All or nothing; None if the session is not active any more or turns were kept since it was read.
        """
        first = session.checkpoint_turns
        grown = replace(session, checkpoint_turns=first + len(turns), checkpoint_bytes=session.checkpoint_bytes + size)
        ttl = {"ttl": _kept_until(session, self._retention_seconds)} if self._retention_seconds else {}
        [data] = transcript.pack(turns)
        piece = {**_piece(TranscriptId(session.session_id), first), "data": data, **ttl}
        tally = {
            "TableName": self._sessions_name,
            "Key": _to_item({"session_id": session.session_id}),
            "UpdateExpression": "SET checkpoint_turns = :turns, checkpoint_bytes = :bytes",
            "ConditionExpression": "#status = :active AND checkpoint_turns = :first",
            "ExpressionAttributeNames": {"#status": "status"},
            "ExpressionAttributeValues": _to_item(
                {
                    ":turns": grown.checkpoint_turns,
                    ":bytes": grown.checkpoint_bytes,
                    ":active": "active",
                    ":first": first,
                }
            ),
        }
        try:
            await self._transact({"Update": tally}, {"Put": {"TableName": self._name, "Item": _to_item(piece)}})
        except Refused:
            return None
        return grown

    async def read(self, session: Session) -> list[Turn]:
        """Return all turns that are kept of a session as it was read; one request per megabyte."""
        turns: list[Turn] = []
        rows = await self._all(
            {
                "TableName": self._name,
                "KeyConditionExpression": "transcript_id = :session AND piece < :end",
                "ExpressionAttributeValues": _to_item(
                    {":session": session.session_id, ":end": session.checkpoint_turns}
                ),
                "ConsistentRead": True,
            }
        )
        for row in rows:
            turns += transcript.unpack([row["data"]])
        if len(turns) != session.checkpoint_turns:
            logger.error("kept turns are missing", session_id=session.session_id, found=len(turns))
            raise StorageError
        return turns

    async def delete(self, session_id: SessionId) -> None:
        """Remove what was kept of a session, one request per piece."""
        await DynamoTranscripts(self._dynamodb, self._name).delete(TranscriptId(session_id))


class DynamoTranscripts(_Table):
    """Transcripts, compressed, in pieces that fit an item each."""

    def __init__(self, dynamodb: AwsService, name: str, retention_days: int = 0, clock: Clock = time.time) -> None:
        super().__init__(dynamodb, name)
        self._retention_seconds = retention_days * DAY_SECONDS
        self._clock = clock

    async def put(self, transcript_id: TranscriptId, turns: Sequence[Turn]) -> None:
        """Keep a transcript, one request per piece, side by side; when this returns, it is durable."""
        ttl = {"ttl": int(self._clock()) + self._retention_seconds} if self._retention_seconds else {}
        outcomes = await asyncio.gather(
            *(
                self._ask(
                    "PutItem",
                    TableName=self._name,
                    Item=_to_item({**_piece(transcript_id, number), "data": data, **ttl}),
                )
                for number, data in enumerate(transcript.pack(turns))
            ),
            return_exceptions=True,  # so that no piece is still on its way when a failure is told
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def get(self, transcript_id: TranscriptId) -> list[Turn] | None:
        """Return a transcript, one request per megabyte; None if it is not there."""
        pieces = [row["data"] for row in await self._pieces(transcript_id)]
        return transcript.unpack(pieces) if pieces else None

    async def expire(self, transcript_id: TranscriptId, turns: Sequence[Turn]) -> None:
        """Let a transcript that nothing points to disappear by itself a day from now."""
        ttl = int(self._clock()) + _LOSER_SECONDS
        await asyncio.gather(
            *(self._expire(transcript_id, number, ttl) for number, _ in enumerate(transcript.pack(turns)))
        )

    async def _expire(self, transcript_id: TranscriptId, number: int, ttl: int) -> None:
        try:
            await self._ask(
                "UpdateItem",
                TableName=self._name,
                Key=_to_item(_piece(transcript_id, number)),
                UpdateExpression="SET #ttl = :ttl",
                ConditionExpression="attribute_exists(transcript_id)",
                ExpressionAttributeNames={"#ttl": "ttl"},
                ExpressionAttributeValues=_to_item({":ttl": ttl}),
            )
        except Refused:
            return  # this piece was never written

    async def delete(self, transcript_id: TranscriptId) -> None:
        """Remove a transcript now, one request per piece."""
        await asyncio.gather(
            *(
                self._ask(
                    "DeleteItem",
                    TableName=self._name,
                    Key=_to_item(_piece(transcript_id, row["piece"])),
                )
                for row in await self._pieces(transcript_id)
            )
        )

    async def _pieces(self, transcript_id: TranscriptId) -> list[Item]:
        return await self._all(
            {
                "TableName": self._name,
                "KeyConditionExpression": "transcript_id = :transcript_id",
                "ExpressionAttributeValues": _to_item({":transcript_id": transcript_id}),
                "ConsistentRead": True,
            }
        )


def _piece(transcript_id: TranscriptId, number: int) -> Item:
    return {"transcript_id": transcript_id, "piece": number}


def _json(value: JsonValue) -> str | None:
    """Write free JSON as text: DynamoDB's own types would change numbers, and refuse deep nesting."""
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _parsed(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _to_item(values: Mapping[str, Any]) -> Attributes:
    return {name: _attribute(value) for name, value in values.items()}


def _from_item(attributes: Mapping[str, Any]) -> Item:
    return {name: _value(attribute) for name, attribute in attributes.items()}


def _refused(refusal: Refused) -> Item:
    """Return the row that a condition did not hold for; empty if there was none (ALL_OLD)."""
    return _from_item(refusal.answer.get("Item", {}))


def _attribute(value: Any) -> Attributes:
    """Write a value as DynamoDB's JSON has it (API Reference, "AttributeValue")."""
    content: Any
    match value:
        case None:
            kind, content = "NULL", True
        case bool():
            kind, content = "BOOL", value
        case int() | float():
            kind, content = "N", repr(value)
        case str():
            kind, content = "S", value
        case bytes():
            kind, content = "B", b64encode(value).decode()
        case dict():
            kind, content = "M", _to_item(value)
        case list():
            kind, content = "L", [_attribute(inner) for inner in value]
        case _:
            raise TypeError(type(value))
    return {kind: content}


def _value(attribute: Mapping[str, Any]) -> Any:
    """Read a value; we keep no sets."""
    [(kind, value)] = attribute.items()
    match kind:
        case "S" | "BOOL":
            return value
        case "N":
            return _number(value)
        case "NULL":
            return None
        case "B":
            return b64decode(value)
        case "M":
            return _from_item(value)
        case "L":
            return [_value(inner) for inner in value]
        case _:
            raise TypeError(kind)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text)
        return int(number) if number.is_integer() else number


class DynamoRates(_Table):
    """Counters of a workspace and a minute each, which disappear by themselves; in the table of idempotency keys."""

    def __init__(self, dynamodb: AwsService, name: str, per_minute: int, clock: Clock = time.time) -> None:
        super().__init__(dynamodb, name)
        self._per_minute = per_minute
        self._clock = clock

    async def take(self, workspace: WorkspaceId) -> None:
        """Count one more in this minute; raises RateLimited."""
        now = self._clock()
        minute, into_it = divmod(now, 60)
        try:
            await self._ask(
                "UpdateItem",
                TableName=self._name,
                Key=_to_item({"id": f"rate#{workspace}#{int(minute)}"}),
                UpdateExpression="SET expiration = :end ADD taken :one",
                ConditionExpression="attribute_not_exists(taken) OR taken < :most",
                ExpressionAttributeValues=_to_item({":end": int(now) + 3_600, ":one": 1, ":most": self._per_minute}),
            )
        except Refused:
            raise RateLimited(60 - into_it) from None
