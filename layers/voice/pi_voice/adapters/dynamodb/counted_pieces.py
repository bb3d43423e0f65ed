"""Pieces of a session whose number is in its row: saved turns and tool calls."""

from dataclasses import replace
from typing import Any, Final

from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.attributes import Item, to_item
from pi_voice.adapters.dynamodb.session_items import (
    duties_of,
    duty_attributes,
    retained_until,
    stored_duties,
    stored_event,
    unchanged_duties,
)
from pi_voice.adapters.dynamodb.table import ConditionFailed, Table
from pi_voice.adapters.dynamodb.updates import Appended, update_of
from pi_voice.domain.errors import StorageError
from pi_voice.domain.sessions import DAY_SECONDS, Session
from pi_voice.domain.webhook_events import event_of_first_sign

_ATTEMPTS: Final = 5


class CountedPieces(Table):
    """Pieces of sessions. One transaction writes a piece and changes the row, while the session is active."""

    def __init__(self, dynamodb: AwsClient, sessions_name: str, transcripts_name: str, retention_days: int = 0) -> None:
        super().__init__(dynamodb, transcripts_name)
        self._sessions_name = sessions_name
        self._retention_seconds = retention_days * DAY_SECONDS

    def _ttl(self, session: Session) -> Item:
        return {"ttl": retained_until(session, self._retention_seconds)} if self._retention_seconds else {}

    async def _count(
        self, session: Session, counts: Item, condition: str, values: Item, put: dict[str, Any], now: int
    ) -> Session:
        """Put a piece and change the counts of its session, if it is active and a condition holds; return the session.

        The first one of a session is its first sign of life: the same transaction records it with its event. It then
        depends on the duties that were read, and is repeated if only they changed, or if another sign was earlier.
        Raises ConditionFailed, and StorageError.
        """
        event = event_of_first_sign(session.started_at, now)
        before = session.duties
        stored: Item | None = stored_duties(before)
        for _ in range(_ATTEMPTS):
            counted = replace(session, **counts)
            changes, all_conditions, all_values = counts, f"#status = :active AND {condition}", values
            if event is not None:
                duties = event.duties_after(before)
                counted = replace(
                    counted, started_at=event.at, owed_events=(*session.owed_events, event), duties=duties
                )
                changes = {
                    **counts,
                    "started_at": event.at,
                    "owed_events": Appended(stored_event(event)),
                    **duty_attributes(session.session_id, duties),
                }
                unchanged, read = unchanged_duties(stored)
                all_conditions += f" AND attribute_not_exists(#started_at) AND {unchanged}"
                all_values = {**values, **read}
            update = update_of(changes)
            count = {
                "TableName": self._sessions_name,
                "Key": to_item({"session_id": session.session_id}),
                "UpdateExpression": update.expression,
                "ConditionExpression": all_conditions,
                "ExpressionAttributeNames": {"#status": "status", **update.names},
                "ExpressionAttributeValues": to_item({":active": "active", **all_values, **update.values}),
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
            try:
                await self._transact({"Update": count}, {"Put": {"TableName": self._name, **put}})
            except ConditionFailed as failed:
                current = failed.item.get("duties")
                if event is None or failed.item.get("status") != "active":
                    raise
                if "started_at" in failed.item:
                    event = None
                elif current == stored:
                    raise
                else:
                    before, stored = self._read(duties_of, failed.item), current
            else:
                return counted
        raise StorageError
