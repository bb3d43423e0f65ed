"""Tool calls of a session, in its partition of pieces: one item per call, under `tool_call#0#<call_id>`."""

import gzip
import zlib
from typing import Final

from pi_voice.adapters.dynamodb.attributes import Item, to_item
from pi_voice.adapters.dynamodb.counted_pieces import CountedPieces
from pi_voice.adapters.dynamodb.documents import read_document
from pi_voice.adapters.dynamodb.table import ConditionFailed
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.tool_calls import ToolCall

_PREFIX: Final = "tool_call#0#"


class DynamoToolCalls(CountedPieces):
    """Tool calls, each recorded once.

    The session's row holds their number and size. One transaction writes a call and updates both, so a call is either
    recorded and counted or neither, and only while the session is active.
    """

    async def record(self, session: Session, call: ToolCall, size: int) -> Session | None:
        """Record a call of a session. When this returns, it is durable. Transition: `record_tool_call`.

        None if the session is not active, if a call was recorded since it was read, or if this call is recorded.
        """
        data = gzip.compress(call.model_dump_json().encode(), mtime=0)
        piece = {**_key(session.session_id, call.call_id), "number": session.tool_calls, "data": data}
        put = {
            "Item": to_item({**piece, **self._ttl(session)}),
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

    async def find(self, session_id: SessionId, call_id: str) -> ToolCall | None:
        """Return a recorded call; None if there is none. Raises UnreadableRow."""
        item = await self._get(_key(session_id, call_id))
        return self._read(_call, item) if item else None

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


def _call(item: Item) -> ToolCall:
    try:
        text = gzip.decompress(item["data"])
    except (EOFError, OSError, zlib.error) as error:
        message = "the item is damaged"
        raise ValueError(message) from error
    return read_document(ToolCall, text)
