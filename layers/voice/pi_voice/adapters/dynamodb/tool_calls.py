"""Tool calls of a session, in its partition of pieces: one item per call, under `tool_call#0#<call_id>`."""

import gzip
import zlib
from typing import Any, Final

from pi_voice.adapters.dynamodb.attributes import Item, to_item
from pi_voice.adapters.dynamodb.counted_pieces import CountedPieces
from pi_voice.adapters.dynamodb.documents import read_document
from pi_voice.adapters.dynamodb.session_items import DELETED
from pi_voice.adapters.dynamodb.table import ConditionFailed
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.tool_calls import Run, StoredToolCall, ToolCall
from pi_voice.ports import FinishedRun

_PREFIX: Final = "tool_call#0#"


class DynamoToolCalls(CountedPieces):
    """Tool calls, each recorded once.

    The session's row holds their number and size. One transaction writes a call and updates both, so a call is either
    recorded and counted or neither, and only while the session is active.
    """

    async def record(self, session: Session, call: ToolCall, size: int, run: Run | None = None) -> Session | None:
        """Record a call of a session, with its run if it has one. Transition: `record_tool_call`.

        When this returns, it is durable. None if the session is not active, if a call was recorded since it was read,
        or if this call is recorded.
        """
        piece = {**_key(session.session_id, call.call_id), "number": session.tool_calls, "data": _packed(call)}
        put = {
            "Item": to_item({**piece, **_run_attributes(run), **self._ttl(session)}),
            "ConditionExpression": "attribute_not_exists(piece)",
        }
        counts = {"tool_calls": session.tool_calls + 1, "tool_call_bytes": session.tool_call_bytes + size}
        same = "tool_calls = :before"
        if not session.tool_calls:
            same = f"(attribute_not_exists(tool_calls) OR {same})"
        try:
            return await self._count(session, counts, same, {":before": session.tool_calls}, put, call.called_at)
        except ConditionFailed:
            return None

    async def run_again(self, session_id: SessionId, call_id: str, before: Run, ends_at: int) -> Run | None:
        """Begin another run of a call whose run ended without an answer. Transition: `run_tool_again`.

        None if another request did, or if the answer was recorded since.
        """
        run = before._replace(number=before.number + 1, ends_at=ends_at)
        try:
            await self._request(
                "update_item",
                TableName=self._name,
                Key=to_item(_key(session_id, call_id)),
                UpdateExpression="SET runs = :runs, run_ends_at = :ends_at",
                ConditionExpression="runs = :before",
                ExpressionAttributeValues=to_item(
                    {":before": before.number, ":runs": run.number, ":ends_at": run.ends_at}
                ),
            )
        except ConditionFailed:
            return None
        return run

    async def finish(self, session_id: SessionId, call: ToolCall, run: Run, size: int, limit: int) -> FinishedRun:
        """Record the answer of a run, also if the session has ended meanwhile. Transition: `finish_tool_call`.

        When this returns `recorded`, it is durable. `full`: with `size` more bytes the session's calls would exceed
        `limit`. `superseded`: another run has begun, or has ended. `deleted`: the session was. If the response of a
        write was lost, the retry's condition fails, but the piece that it returns has our answer.
        """
        data = _packed(call)
        count: dict[str, Any] = {
            "TableName": self._sessions_name,
            "Key": to_item({"session_id": session_id}),
            "UpdateExpression": "SET tool_call_bytes = tool_call_bytes + :size",
            "ConditionExpression": "#status <> :deleted AND tool_call_bytes <= :room",
            "ExpressionAttributeNames": {"#status": "status"},
            "ExpressionAttributeValues": to_item({":size": size, ":deleted": DELETED, ":room": limit - size}),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        update = {
            "TableName": self._name,
            "Key": to_item(_key(session_id, call.call_id)),
            "UpdateExpression": "SET #data = :data REMOVE event_id, runs, run_ends_at",
            "ConditionExpression": "runs = :runs",
            "ExpressionAttributeNames": {"#data": "data"},
            "ExpressionAttributeValues": to_item({":data": data, ":runs": run.number}),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        try:
            await self._transact({"Update": count}, {"Update": update})
        except ConditionFailed as failed:
            if "piece" in failed.item:
                return "recorded" if failed.item.get("data") == data else "superseded"
            return "full" if failed.item.get("status", DELETED) != DELETED else "deleted"
        return "recorded"

    async def find(self, session_id: SessionId, call_id: str) -> StoredToolCall | None:
        """Return a recorded call; None if there is none. Raises UnreadableRow."""
        item = await self._get(_key(session_id, call_id))
        return self._read(_stored_call, item) if item else None

    async def read(self, session: Session) -> list[ToolCall]:
        """Return the calls of a session in their order, without those that cannot be read; one request per megabyte.

        A session without calls needs no request.
        """
        if not session.tool_calls:
            return []
        rows = await self._all(
            {
                "TableName": self._name,
                "KeyConditionExpression": "session_id = :session AND begins_with(piece, :prefix)",
                "ExpressionAttributeValues": to_item({":session": session.session_id, ":prefix": _PREFIX}),
                "ConsistentRead": True,
            }
        )
        return self._readable(_call, sorted(rows, key=lambda row: int(row.get("number", 0))))


def _key(session_id: SessionId, call_id: str) -> Item:
    return {"session_id": session_id, "piece": f"{_PREFIX}{call_id}"}


def _packed(call: ToolCall) -> bytes:
    return gzip.compress(call.model_dump_json().encode(), mtime=0)


def _run_attributes(run: Run | None) -> Item:
    return {} if run is None else {"event_id": run.event_id, "runs": run.number, "run_ends_at": run.ends_at}


def _stored_call(item: Item) -> StoredToolCall:
    run = Run(item["event_id"], item["runs"], item["run_ends_at"]) if "runs" in item else None
    return StoredToolCall(_call(item), run)


def _call(item: Item) -> ToolCall:
    try:
        text = gzip.decompress(item["data"])
    except (EOFError, OSError, zlib.error) as error:
        message = "the item is damaged"
        raise ValueError(message) from error
    return read_document(ToolCall, text)
