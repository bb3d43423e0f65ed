"""Agents: immutable versions, and a head with the workspace."""

import uuid
from typing import Any, Final

from pi_voice.adapters.dynamodb.attributes import Item, from_item, to_item
from pi_voice.adapters.dynamodb.documents import read_document
from pi_voice.adapters.dynamodb.table import BY_WORKSPACE, ConditionFailed, Table
from pi_voice.domain.agents import MAX_VERSION, Agent, ListAgentsQuery, ListAgentVersionsQuery, OwnedAgent
from pi_voice.domain.errors import AgentVersionNotFound, InvalidCursor
from pi_voice.domain.ids import AgentId, WorkspaceId, is_uuid
from pi_voice.domain.pagination import Page, decode_cursor, encode_cursor

HEAD: Final = 0
"""Sort key of an agent's head; versions count from 1."""


class DynamoAgents(Table):
    """Agents: immutable versions, and a head, which alone has the workspace."""

    async def current(self, agent_id: AgentId) -> OwnedAgent | None:
        """Return an agent's head, in any workspace; an invalid id sends no request. Raises UnreadableRow."""
        if not is_uuid(agent_id):
            return None
        item = await self._get({"agent_id": agent_id, "version": HEAD})
        return self._read(_owned_agent, item) if item else None

    async def version(self, agent_id: AgentId, version: int) -> Agent:
        """Return one version of an agent, also after the agent was deleted.

        Raises AgentVersionNotFound, UnreadableRow.
        """
        item = await self._get({"agent_id": agent_id, "version": version})
        if item is None:
            raise AgentVersionNotFound
        return self._read(_agent, item)

    async def version_page(self, agent_id: AgentId, query: ListAgentVersionsQuery) -> Page[Agent]:
        """Return one page of an agent's versions, newest first, of at most one megabyte; raises InvalidCursor."""
        highest = MAX_VERSION if query.cursor is None else _version_in(query.cursor) - 1
        if highest < 1:  # DynamoDB refuses an empty range
            return Page[Agent](data=[])
        answer = await self._request(
            "query",
            TableName=self._name,
            KeyConditionExpression="agent_id = :agent AND version BETWEEN :first AND :last",
            ExpressionAttributeValues=to_item({":agent": agent_id, ":first": 1, ":last": highest}),
            ScanIndexForward=False,
            Limit=query.limit + 1,
            ConsistentRead=True,
        )
        rows = list(map(from_item, answer["Items"]))
        shown = rows[: query.limit]
        more = len(rows) > len(shown) or "LastEvaluatedKey" in answer
        return Page[Agent](
            data=self._readable(_agent, shown),
            next_cursor=_cursor_at(shown[-1]["version"]) if more else None,
        )

    async def save(self, workspace: WorkspaceId, agent: Agent, request_hash: str | None = None) -> bool:
        """Make this version the head if the head is the previous version; return whether it was.

        The head has the hash of the request, by which a repeat is recognized until the next change. One transaction,
        so that a crash leaves neither a head without its version nor a version without its head.
        """
        document = {"agent_id": agent.agent_id, "document": agent.model_dump_json()}
        version = {**document, "version": agent.version}
        head = {**document, "version": HEAD, "workspace": workspace, "current": agent.version}
        if request_hash is not None:
            head["request_hash"] = request_hash
        if agent.version == 1:
            head_condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(agent_id)"}
        else:
            head_condition = {
                "ConditionExpression": "#current = :before",
                "ExpressionAttributeNames": {"#current": "current"},
                "ExpressionAttributeValues": to_item({":before": agent.version - 1}),
            }
        try:
            await self._transact(
                {"Put": {"TableName": self._name, "Item": to_item(version)}},
                {"Put": {"TableName": self._name, "Item": to_item(head), **head_condition}},
            )
        except ConditionFailed:
            return False
        return True

    async def delete(self, workspace: WorkspaceId, agent_id: AgentId) -> None:
        """Delete the head; the versions remain for the sessions that use them."""
        try:
            await self._request(
                "delete_item",
                TableName=self._name,
                Key=to_item({"agent_id": agent_id, "version": HEAD}),
                ConditionExpression="workspace = :workspace",
                ExpressionAttributeValues=to_item({":workspace": workspace}),
            )
        except ConditionFailed:
            return  # a concurrent request deleted it

    async def page(self, workspace: WorkspaceId, query: ListAgentsQuery) -> Page[Agent]:
        """Return one page of a workspace's agents, newest first, of at most one megabyte; raises InvalidCursor."""
        request: dict[str, Any] = {
            "TableName": self._name,
            "IndexName": BY_WORKSPACE,
            "KeyConditionExpression": "workspace = :workspace",
            "ExpressionAttributeValues": to_item({":workspace": workspace}),
            "ScanIndexForward": False,
            "Limit": query.limit + 1,
        }
        if query.cursor is not None:
            last = {"workspace": workspace, "agent_id": decode_cursor(query.cursor), "version": HEAD}
            request["ExclusiveStartKey"] = to_item(last)
        answer = await self._request("query", **request)
        rows = list(map(from_item, answer["Items"]))
        shown = rows[: query.limit]
        more = len(rows) > len(shown) or "LastEvaluatedKey" in answer
        return Page[Agent](
            data=self._readable(_agent, shown),
            next_cursor=encode_cursor(shown[-1]["agent_id"]) if more else None,
        )


def _agent(item: Item) -> Agent:
    return read_document(Agent, item["document"])


def _owned_agent(item: Item) -> OwnedAgent:
    return OwnedAgent(item["workspace"], _agent(item), item.get("request_hash"))


def _cursor_at(version: int) -> str:
    return encode_cursor(str(uuid.UUID(int=version)))


def _version_in(cursor: str) -> int:
    """Return the version in a cursor; raises InvalidCursor, also for a cursor of another list."""
    version = uuid.UUID(decode_cursor(cursor)).int
    if not 1 <= version <= MAX_VERSION:
        raise InvalidCursor
    return version
