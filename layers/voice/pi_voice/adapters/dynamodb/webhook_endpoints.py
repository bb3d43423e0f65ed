"""Webhook endpoints, in the partition of their workspace."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from pi_voice.adapters.dynamodb.attributes import Item, from_item, to_item
from pi_voice.adapters.dynamodb.table import ConditionFailed, Table
from pi_voice.domain.ids import EndpointId, WorkspaceId, is_uuid
from pi_voice.domain.pagination import Page, decode_cursor, encode_cursor
from pi_voice.domain.webhook_endpoints import SecretVersion, WebhookEndpoint

if TYPE_CHECKING:  # most functions do not need these models
    from pi_voice.domain.webhook_endpoint_api import ListWebhookEndpointsQuery, WebhookDisabledReason

_PLAIN: Final = {field.name for field in fields(WebhookEndpoint)} - {"events", "include", "secret", "previous_secret"}
"""Fields that are stored as they are."""


class DynamoWebhookEndpoints(Table):
    """Webhook endpoints. Their secrets are not stored, only which master and which generation they are derived from."""

    async def find(self, workspace: WorkspaceId, endpoint_id: EndpointId) -> WebhookEndpoint | None:
        """Return an endpoint of a workspace; an invalid id sends no request. Raises UnreadableRow."""
        if not is_uuid(endpoint_id):
            return None
        item = await self._get(_key(workspace, endpoint_id))
        return self._read(_endpoint, item) if item else None

    async def in_workspace(self, workspace: WorkspaceId) -> list[WebhookEndpoint]:
        """Return all endpoints of a workspace, newest first, without those that cannot be read.

        One request per megabyte.
        """
        return self._readable(_endpoint, await self._all(self._list(workspace)))

    async def page(self, workspace: WorkspaceId, query: "ListWebhookEndpointsQuery") -> Page[WebhookEndpoint]:
        """Return one page of a workspace's endpoints, newest first, of at most one megabyte; raises InvalidCursor."""
        request = {**self._list(workspace), "Limit": query.limit + 1}
        if query.cursor is not None:
            request["ExclusiveStartKey"] = to_item(_key(workspace, EndpointId(decode_cursor(query.cursor))))
        answer = await self._request("query", **request)
        rows = list(map(from_item, answer["Items"]))
        shown = rows[: query.limit]
        more = len(rows) > len(shown) or "LastEvaluatedKey" in answer
        # Without validation, because the page holds stored endpoints, which are no documents.
        return Page[WebhookEndpoint].model_construct(
            data=self._readable(_endpoint, shown),
            next_cursor=encode_cursor(shown[-1]["endpoint_id"]) if more else None,
        )

    async def add(self, endpoint: WebhookEndpoint) -> None:
        """Store a new endpoint."""
        await self._request("put_item", TableName=self._name, Item=to_item(_item(endpoint)))

    async def update(self, before: WebhookEndpoint, after: WebhookEndpoint) -> WebhookEndpoint | None:
        """Store what the owner changed and return the endpoint; None if the owner changed it since the read.

        Only what differs is written: what deliveries changed since the read remains.
        """
        changed = {**_item(after), "revision": before.revision + 1}
        return await self._change(before, changed, "#revision = :was_revision")

    async def rotate(self, before: WebhookEndpoint, after: WebhookEndpoint) -> WebhookEndpoint | None:
        """Store a new secret's version and return the endpoint; None if the secret changed since the read."""
        return await self._change(before, _item(after), "#secret_generation = :was_secret_generation")

    async def delete(self, workspace: WorkspaceId, endpoint_id: EndpointId) -> bool:
        """Delete an endpoint, and return whether there was one."""
        if not is_uuid(endpoint_id):
            return False
        answer = await self._request(
            "delete_item", TableName=self._name, Key=to_item(_key(workspace, endpoint_id)), ReturnValues="ALL_OLD"
        )
        return "Attributes" in answer

    async def note_failure(
        self, endpoint: WebhookEndpoint, now: int, *, timed_out: bool = False
    ) -> WebhookEndpoint | None:
        """Record since when the events of an endpoint fail, and whether it hangs, and return it.

        A later failure does not change the time. None if the endpoint was deleted, or has another URL by now. A failure
        that changes nothing about the endpoint that was read needs no request.
        """
        after = endpoint.after_failure(now, timed_out=timed_out)
        if after == endpoint:
            return endpoint
        values: Item = {":now": now, ":url": endpoint.url, ":timeouts": after.timeouts}
        expression = "SET failing_since = if_not_exists(failing_since, :now), timeouts = :timeouts"
        if after.resting_until is None:
            expression += " REMOVE resting_until"
        else:
            expression += ", resting_until = :until"
            values[":until"] = after.resting_until
        return await self._update(
            endpoint,
            UpdateExpression=expression,
            ConditionExpression="#url = :url",
            ExpressionAttributeNames={"#url": "url"},
            ExpressionAttributeValues=to_item(values),
        )

    async def note_success(self, endpoint: WebhookEndpoint) -> None:
        """Record that an event was delivered to an endpoint, so that it neither fails nor hangs any more.

        An endpoint that was not failing when it was read needs no request.
        """
        if endpoint.failing_since is None:
            return
        await self._update(
            endpoint,
            UpdateExpression="REMOVE failing_since, timeouts, resting_until",
            ConditionExpression="failing_since = :before",
            ExpressionAttributeValues=to_item({":before": endpoint.failing_since}),
        )

    async def disable(
        self, endpoint: WebhookEndpoint, reason: "WebhookDisabledReason", now: int
    ) -> WebhookEndpoint | None:
        """Disable an endpoint and return it.

        None if it was disabled before, was deleted, has another URL by now, or, for `failing`, has worked since. The
        same request sent twice returns it twice.
        """
        condition = "#url = :url AND (attribute_not_exists(disabled_at) OR (disabled_at = :now AND #reason = :reason))"
        values: Item = {":now": now, ":reason": reason, ":url": endpoint.url}
        if reason == "failing":
            condition += " AND failing_since = :since"
            values[":since"] = endpoint.failing_since
        return await self._update(
            endpoint,
            UpdateExpression="SET disabled_at = :now, #reason = :reason",
            ConditionExpression=condition,
            ExpressionAttributeNames={"#url": "url", "#reason": "disabled_reason"},
            ExpressionAttributeValues=to_item(values),
        )

    async def _change(self, before: WebhookEndpoint, changed: Item, condition: str) -> WebhookEndpoint | None:
        """Write the attributes that differ, on a condition on those before; None if it does not hold."""
        stored = _item(before)
        new = {name: value for name, value in changed.items() if stored.get(name) != value}
        gone = stored.keys() - changed.keys()
        expression = "SET " + ", ".join(f"#{name} = :{name}" for name in sorted(new))
        if gone:
            expression += " REMOVE " + ", ".join(f"#{name}" for name in sorted(gone))
        guard = condition.partition(" ")[0].removeprefix("#")
        return await self._update(
            before,
            UpdateExpression=expression,
            ConditionExpression=condition,
            ExpressionAttributeNames={f"#{name}": name for name in {*new, *gone, guard}},
            ExpressionAttributeValues=to_item(
                {**{f":{name}": value for name, value in new.items()}, f":was_{guard}": stored[guard]}
            ),
        )

    async def _update(self, endpoint: WebhookEndpoint, **request: Any) -> WebhookEndpoint | None:
        """Send an update with a condition that a row that is not there does not meet; None if it is not met."""
        try:
            answer = await self._request(
                "update_item",
                TableName=self._name,
                Key=to_item(_key(endpoint.workspace, endpoint.endpoint_id)),
                ReturnValues="ALL_NEW",
                **request,
            )
        except ConditionFailed:
            return None
        return self._read(_endpoint, from_item(answer["Attributes"]))

    def _list(self, workspace: WorkspaceId) -> dict[str, Any]:
        return {
            "TableName": self._name,
            "KeyConditionExpression": "workspace = :workspace",
            "ExpressionAttributeValues": to_item({":workspace": workspace}),
            "ScanIndexForward": False,
            "ConsistentRead": True,
        }


def _key(workspace: WorkspaceId, endpoint_id: EndpointId) -> Item:
    return {"workspace": workspace, "endpoint_id": endpoint_id}


def _item(endpoint: WebhookEndpoint) -> Item:
    item = {name: getattr(endpoint, name) for name in _PLAIN}
    item |= {"events": list(endpoint.events), "include": list(endpoint.include)}
    item |= _secret_item("secret", endpoint.secret) | _secret_item("previous_secret", endpoint.previous_secret)
    return {name: value for name, value in item.items() if value is not None}


def _secret_item(name: str, version: SecretVersion | None) -> Item:
    return {} if version is None else {f"{name}_master": version.master_id, f"{name}_generation": version.generation}


def _secret(name: str, item: Item) -> SecretVersion:
    return SecretVersion(str(item[f"{name}_master"]), int(item[f"{name}_generation"]))


def _endpoint(item: Item) -> WebhookEndpoint:
    plain = {name: item[name] for name in _PLAIN if name in item}
    return WebhookEndpoint(
        **plain,
        events=tuple(item.get("events", ())),
        include=tuple(item.get("include", ())),
        secret=_secret("secret", item),
        previous_secret=_secret("previous_secret", item) if "previous_secret_master" in item else None,
    )
