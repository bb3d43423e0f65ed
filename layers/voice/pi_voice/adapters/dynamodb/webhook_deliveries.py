"""Deliveries of events to webhook endpoints: tries that are due, and the log of 30 days."""

import random
from collections.abc import AsyncIterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.attributes import Item, from_item, to_item
from pi_voice.adapters.dynamodb.table import ConditionFailed, Table
from pi_voice.domain.ids import DeliveryId, EndpointId, EventId, is_uuid
from pi_voice.domain.pagination import Page, decode_cursor, encode_cursor
from pi_voice.domain.webhook_deliveries import (
    DUE_SHARDS,
    RETENTION_SECONDS,
    Delivery,
    Outcome,
    delivery_id,
)
from pi_voice.ports import DueDelivery

if TYPE_CHECKING:  # most functions do not need this model
    from pi_voice.domain.webhook_delivery_api import ListWebhookDeliveriesQuery

BY_DUE: Final = "by_due"
MAX_ROWS_READ: Final = 1_000
"""Maximum number of rows read for one filtered page."""

_ROWS_PER_QUERY: Final = 100
_DUE_PER_QUERY: Final = 100
_FIELDS: Final = tuple(field.name for field in fields(Delivery))


class DynamoWebhookDeliveries(Table):
    """Deliveries. Each method that changes one is one conditional write."""

    def __init__(self, dynamodb: AwsClient, name: str) -> None:
        super().__init__(dynamodb, name)

    async def add(self, delivery: Delivery) -> bool:
        """Store a new delivery, and return whether it was new. Transition: `deliver`.

        An existing one is not changed.
        """
        item, is_new = _item(delivery), "attribute_not_exists(delivery_id)"
        try:
            await self._request("put_item", TableName=self._name, Item=to_item(item), ConditionExpression=is_new)
        except ConditionFailed:
            return False
        return True

    async def put(self, delivery: Delivery) -> None:
        """Store a delivery that has ended, in place of an earlier one of the same id."""
        await self._request("put_item", TableName=self._name, Item=to_item(_item(delivery)))

    async def find(self, endpoint_id: EndpointId, delivery_id: DeliveryId) -> Delivery | None:
        """Return a delivery; an invalid id sends no request. Raises UnreadableRow."""
        event_id, _, of_endpoint = delivery_id.partition(".")
        if not is_uuid(event_id) or of_endpoint != endpoint_id or not is_uuid(endpoint_id):
            return None
        item = await self._get({"endpoint_id": endpoint_id, "delivery_id": delivery_id})
        return self._read(delivery_of, item) if item else None

    async def page(self, endpoint_id: EndpointId, query: "ListWebhookDeliveriesQuery") -> Page[Delivery]:
        """Return one page of an endpoint's deliveries, newest first; raises InvalidCursor.

        A page of one session's deliveries reads at most MAX_ROWS_READ rows, _ROWS_PER_QUERY per request.
        """
        request: dict[str, Any] = {
            "TableName": self._name,
            "KeyConditionExpression": "endpoint_id = :endpoint",
            "ExpressionAttributeValues": to_item({":endpoint": endpoint_id}),
            "ScanIndexForward": False,
            "Limit": query.limit + 1 if query.session_id is None else _ROWS_PER_QUERY,
            "ConsistentRead": True,
        }
        if query.cursor is not None:
            last = delivery_id(EventId(decode_cursor(query.cursor)), endpoint_id)
            request["ExclusiveStartKey"] = to_item({"endpoint_id": endpoint_id, "delivery_id": last})
        if query.session_id is not None:
            request["FilterExpression"] = "session_id = :session"
            request["ExpressionAttributeValues"] |= to_item({":session": query.session_id})
        found: list[Item] = []
        rows_read, more = 0, None
        while True:
            answer = await self._request("query", **request)
            found += map(from_item, answer["Items"])
            rows_read += answer["ScannedCount"]
            if len(found) > query.limit:
                found = found[: query.limit]
                more = found[-1]["event_id"]
                break
            if "LastEvaluatedKey" not in answer:
                break
            if rows_read >= MAX_ROWS_READ:
                more, _, _ = from_item(answer["LastEvaluatedKey"])["delivery_id"].partition(".")
                break
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        # Without validation, because the page holds stored deliveries, which are no documents.
        return Page[Delivery].model_construct(
            data=self._readable(delivery_of, found), next_cursor=encode_cursor(more) if more else None
        )

    async def due(self, now: int) -> AsyncIterator[list[DueDelivery]]:
        """Yield the deliveries that are due by now, one page per request.

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
                    DueDelivery(row["endpoint_id"], row["delivery_id"], row["due_at"])
                    for row in map(from_item, answer["Items"])
                ]
                if "LastEvaluatedKey" not in answer:
                    break
                request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def put_off(self, due: DueDelivery, until: int) -> Delivery | None:
        """Move the due time of a pending delivery and return it. Transition: `requeue`.

        None if it changed since the index listed it. Raises UnreadableRow.
        """
        try:
            answer = await self._request(
                "update_item",
                TableName=self._name,
                Key=to_item({"endpoint_id": due.endpoint_id, "delivery_id": due.delivery_id}),
                UpdateExpression="SET due_at = :until",
                ConditionExpression="due_at = :read",
                ExpressionAttributeValues=to_item({":until": until, ":read": due.due_at}),
                ReturnValues="ALL_NEW",
            )
        except ConditionFailed:
            return None
        return self._read(delivery_of, from_item(answer["Attributes"]))

    async def claim(self, delivery: Delivery, now: int, due_at: int) -> Delivery | None:
        """Count one more try of a pending delivery and return it. Transition: `claim`.

        None if another try was begun or it ended. If the response of a write was lost, the retry's condition fails, but
        the row that it returns has our times, so the write had succeeded.
        """
        ours = {"tries": delivery.tries + 1, "tried_at": now, "due_at": due_at}
        try:
            return await self._change(delivery, {**ours, "due_shard": delivery.due_shard})
        except ConditionFailed as failed:
            is_ours = {name: failed.item.get(name) for name in ours} == ours
            return self._read(delivery_of, failed.item) if is_ours else None

    async def record(self, delivery: Delivery, outcome: Outcome) -> Delivery | None:
        """Store the outcome of the try that was claimed. Transition: `record_try`.

        A pending delivery stays due when its claim said. None if another try was begun or it ended.
        """
        changes: Item = outcome._asdict()
        if outcome.status != "pending":
            changes |= {"due_at": None, "due_shard": None}
        return await self._changed(delivery, changes)

    async def cancel(self, delivery: Delivery) -> Delivery | None:
        """Turn a pending delivery into a cancelled one. Transition: `cancel`.

        None if another try was begun or it ended.
        """
        return await self._changed(delivery, {"status": "cancelled", "due_at": None, "due_shard": None})

    async def redeliver(self, delivery: Delivery, now: int) -> Delivery | None:
        """Make a delivery that has ended due again, with all its tries. Transition: `redeliver`.

        None if it changed since it was read. It stays in the log for 30 days more.
        """
        changes = {
            "status": "pending",
            "tries": 0,
            "redeliveries": delivery.redeliveries + 1,
            "redelivered_at": now,
            "due_at": now,
            "due_shard": delivery.due_shard,
            "ttl": now + RETENTION_SECONDS,
        }
        return await self._changed(delivery, changes)

    async def _changed(self, delivery: Delivery, changes: Item) -> Delivery | None:
        try:
            return await self._change(delivery, changes)
        except ConditionFailed:
            return None

    async def _change(self, delivery: Delivery, changes: Item) -> Delivery:
        """Change attributes of a delivery whose status and try are as they were read; None removes an attribute.

        Raises ConditionFailed with the row.
        """
        new_values = {name: value for name, value in changes.items() if value is not None}
        removed = [f"#{name}" for name in changes if name not in new_values]
        sets = ", ".join(f"#{name} = :{name}" for name in new_values)
        condition = "#status = :status_read AND #tries = :tries_read AND " + (
            "#redeliveries = :redeliveries_read"
            if delivery.redeliveries
            else "(attribute_not_exists(#redeliveries) OR #redeliveries = :redeliveries_read)"
        )
        read = {name: getattr(delivery, name) for name in ("status", "tries", "redeliveries")}
        answer = await self._request(
            "update_item",
            TableName=self._name,
            Key=to_item({"endpoint_id": delivery.endpoint_id, "delivery_id": delivery.delivery_id}),
            UpdateExpression=f"SET {sets}" + (f" REMOVE {', '.join(removed)}" if removed else ""),
            ConditionExpression=condition,
            ExpressionAttributeNames={f"#{name}": name for name in (*changes, *read)},
            ExpressionAttributeValues=to_item(
                {f":{name}": value for name, value in new_values.items()}
                | {f":{name}_read": value for name, value in read.items()}
            ),
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
        return self._read(delivery_of, from_item(answer["Attributes"]))


def _item(delivery: Delivery) -> Item:
    values = {name: getattr(delivery, name) for name in _FIELDS}
    item = {name: value for name, value in values.items() if value is not None}
    if delivery.due_at is not None:
        item["due_shard"] = delivery.due_shard
    return {**item, "ttl": delivery.created_at + RETENTION_SECONDS}


def delivery_of(item: Item) -> Delivery:
    """Read a delivery from its item; attributes of other versions of the code are ignored."""
    return Delivery(**{name: item[name] for name in _FIELDS if name in item})
