"""The store under test: tables of the template under unique names, and the adapters on them."""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from botocore.client import BaseClient
from botocore.exceptions import ClientError

from local import template
from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.agents import DynamoAgents
from pi_voice.adapters.dynamodb.api_keys import DynamoApiKeys
from pi_voice.adapters.dynamodb.rates import DynamoRateLimiter
from pi_voice.adapters.dynamodb.sessions import DynamoSessions
from pi_voice.adapters.dynamodb.tool_calls import DynamoToolCalls
from pi_voice.adapters.dynamodb.transcripts import DynamoCheckpoints, DynamoTranscripts
from pi_voice.adapters.dynamodb.webhook_deliveries import DynamoWebhookDeliveries
from pi_voice.adapters.dynamodb.webhook_endpoints import DynamoWebhookEndpoints
from pi_voice.domain.ids import Clock
from pi_voice.domain.sessions import Session
from pi_voice.settings import TableNames

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

_TEMPLATE = Path(__file__).parents[2] / "template.yaml"
_ROWS_PER_BATCH = 25

Request = Callable[..., Any]
Row = dict[str, Any]


class Tables:
    """Tables of a single test as in template.yaml, each created at its first use."""

    def __init__(self, dynamodb: "DynamoDBClient") -> None:
        self._dynamodb = dynamodb
        self._prefix = f"test-{uuid.uuid4().hex}"
        self._made: set[str] = set()  # threads may use a table concurrently

    @cached_property
    def agents(self) -> str:
        return self._make("agents")

    @cached_property
    def sessions(self) -> str:
        return self._make("sessions")

    @cached_property
    def transcripts(self) -> str:
        return self._make("transcripts")

    @cached_property
    def api_keys(self) -> str:
        return self._make("api_keys")

    @cached_property
    def webhook_endpoints(self) -> str:
        return self._make("webhook_endpoints")

    @cached_property
    def webhook_deliveries(self) -> str:
        return self._make("webhook_deliveries")

    @cached_property
    def idempotency(self) -> str:
        return self._make("idempotency")

    def drop(self) -> None:
        for name in self._made:
            self._dynamodb.delete_table(TableName=name)

    def _make(self, kind: str) -> str:
        name = f"{self._prefix}-voice_{kind}"
        try:
            made = self._dynamodb.create_table(**{**_definitions()[kind], "TableName": name})
            is_there = made["TableDescription"]["TableStatus"] == "ACTIVE"
        except self._dynamodb.exceptions.ResourceInUseException:
            is_there = False  # a server that had just started responded late, and botocore repeated the request
        self._made.add(name)
        if not is_there:
            self._dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
        return name


@dataclass(frozen=True, slots=True)
class Store:
    """The adapters on tables of a single test."""

    dynamodb: "DynamoDBClient"
    """boto3 client to inspect stored rows."""

    aws: AwsClient
    """Client of the adapters."""

    names: Tables | TableNames

    @property
    def api_keys(self) -> DynamoApiKeys:
        return DynamoApiKeys(self.aws, self.names.api_keys)

    @property
    def agents(self) -> DynamoAgents:
        return DynamoAgents(self.aws, self.names.agents)

    @property
    def sessions(self) -> DynamoSessions:
        return self.sessions_kept()

    def sessions_kept(self, days: int = 0) -> DynamoSessions:
        return DynamoSessions(self.aws, self.names.sessions, days)

    @property
    def transcripts(self) -> DynamoTranscripts:
        return DynamoTranscripts(self.aws, self.names.transcripts)

    @property
    def checkpoints(self) -> DynamoCheckpoints:
        return self.checkpoints_kept()

    @property
    def tool_calls(self) -> DynamoToolCalls:
        return self.tool_calls_kept()

    def tool_calls_kept(self, days: int = 0) -> DynamoToolCalls:
        return DynamoToolCalls(self.aws, self.names.sessions, self.names.transcripts, days)

    @property
    def webhook_deliveries(self) -> DynamoWebhookDeliveries:
        return DynamoWebhookDeliveries(self.aws, self.names.webhook_deliveries)

    @property
    def webhook_endpoints(self) -> DynamoWebhookEndpoints:
        return DynamoWebhookEndpoints(self.aws, self.names.webhook_endpoints)

    def checkpoints_kept(self, days: int = 0) -> DynamoCheckpoints:
        return DynamoCheckpoints(self.aws, self.names.sessions, self.names.transcripts, days)

    def transcripts_kept(self, days: int, clock: Clock) -> DynamoTranscripts:
        return DynamoTranscripts(self.aws, self.names.transcripts, days, clock)

    def rates(self, per_minute: int, clock: Clock, operation: str = "creates") -> DynamoRateLimiter:
        return DynamoRateLimiter(self.aws, self.names.idempotency, operation, per_minute, clock)

    def through(self, **instead: Callable[[Request], Request]) -> "Store":
        """Return the same store with some requests of its client replaced, by operation, such as `get_item`."""
        wrapped = cast("BaseClient", _Wrapped(self.aws.boto3_client, instead))
        return replace(self, aws=AwsClient(wrapped, self.aws.seconds))

    def rows(self, table: str) -> list[Row]:
        """Return all rows of a table as they are stored."""
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def row_of(self, session: Session) -> Row:
        """Return a session's row as it is stored."""
        key = {"session_id": {"S": session.session_id}}
        return dict(self.dynamodb.get_item(TableName=self.names.sessions, Key=key, ConsistentRead=True)["Item"])

    def words(self) -> str:
        """Return everything that is stored, as one text to search."""
        names = self.names
        tables = (names.agents, names.sessions, names.transcripts, names.api_keys, names.webhook_endpoints)
        return json.dumps([self.rows(table) for table in tables], default=repr, ensure_ascii=False)

    def fill_sessions(self, rows: Iterable[Row]) -> None:
        """Write many session rows with few requests."""
        self.fill(self.names.sessions, rows)

    def fill(self, table: str, rows: Iterable[Row]) -> None:
        """Write many rows with few requests."""
        waiting = [{"PutRequest": {"Item": row}} for row in rows]
        for start in range(0, len(waiting), _ROWS_PER_BATCH):
            batch: dict[str, Any] = {table: waiting[start : start + _ROWS_PER_BATCH]}
            while batch:
                batch = dict(self.dynamodb.batch_write_item(RequestItems=batch)["UnprocessedItems"])


class _Wrapped:
    """A boto3 client with replaced operations."""

    def __init__(self, client: BaseClient, instead: Mapping[str, Callable[[Request], Request]]) -> None:
        self._client = client
        self._instead = instead

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        return self._instead[name](real) if name in self._instead else real


def sent_twice(request: Request) -> Request:
    """Send the request twice and return the second response, as a retry after a lost response does."""

    def twice(**arguments: Any) -> Any:
        request(**arguments)
        return request(**arguments)

    return twice


def never_sent(_: Request) -> Request:
    """Fail the test if the request is sent."""

    def refuse(**_: Any) -> Any:
        message = "this request should not be sent"
        raise AssertionError(message)

    return refuse


@cache
def _definitions() -> dict[str, Any]:
    """Read the tables' definitions: agents, sessions, transcripts, api_keys."""
    tables = template.load(_TEMPLATE, {"LIVEKIT_URL": "wss://livekit.example"}).tables
    return {table.name.partition("-voice_")[2]: table.definition for table in tables}


def canceled(*reasons: str) -> ClientError:
    """Make the error of a transaction that DynamoDB cancels, with a reason per item."""
    response: Any = {
        "Error": {"Code": "TransactionCanceledException", "Message": "Transaction cancelled: what the caller said"},
        "CancellationReasons": [{"Code": reason} for reason in reasons],
    }
    return ClientError(response, "TransactWriteItems")


def cancelling(times: int, *reasons: str, after: bool = False) -> Callable[[Request], Request]:
    """Cancel the first `times` transactions; with `after`, each is executed before the error."""
    left = [times]

    def instead(transact: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            if left[0]:
                left[0] -= 1
                if after:
                    transact(**arguments)
                raise canceled(*reasons)
            return transact(**arguments)

        return ask

    return instead


CONFLICTS: Final = [
    ("TransactionConflict", "None"),
    ("None", "TransactionConflict"),
    ("TransactionConflict", "TransactionConflict"),
    ("ThrottlingError", "None"),
    ("ProvisionedThroughputExceeded", "None"),
]
