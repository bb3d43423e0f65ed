"""The environment of durability tests: the parts of the local stack, with a faulty path to every service.

There is one instance of each service (DynamoDB, SQS, LiveKit, Gemini) and its state. Functions run in lanes: each lane
has its own workers and its own faulty paths, so that many faults can run concurrently. Nothing runs by itself, except
in `Lane.by_itself`: a test advances the time and runs the scheduled job.
"""

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Never, Self, TypeVar, get_args
from uuid import uuid4

import pytest
from livekit import api
from livekit.protocol.models import Room
from livekit.protocol.room import CreateRoomRequest, ListRoomsRequest

from local import dynamodb, sqs
from local.aws import aws_stand_in
from local.gateway import http_api
from local.http_server import serving
from local.poller import Poller, failures
from local.scheduler import Scheduler
from local.services import Gemini, LiveKit, Services, function_variables, machine_variables
from local.stack import TEMPLATE
from local.stand_ins.gemini import gemini_stand_in
from local.stand_ins.livekit import livekit_stand_in
from local.template import Function, Schedule, load
from local.workers import Workers
from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.api_keys import DynamoApiKeys
from pi_voice.adapters.dynamodb.webhook_endpoints import DynamoWebhookEndpoints
from pi_voice.domain.api_keys import CreateApiKeyRequest
from pi_voice.domain.ids import EndpointId, WorkspaceId, uuid7
from pi_voice.domain.webhook_endpoints import SecretVersion, WebhookEndpoint
from pi_voice.domain.webhook_events import SessionEventType
from pi_voice.settings import TableNames
from pi_voice.use_cases.manage_api_keys import ManageApiKeys
from tests.durability.faulty_path import FaultyPaths, Reply, aws_name, by_token, gemini_name, livekit_name
from tests.local.conftest import Answer, Background, Site
from tests.support.patience import DEADLINE
from tests.support.session_rows import put_back

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_sqs.client import SQSClient

BASE: Final = "/api/v1/voice"
NOWHERE: Final = "http://127.0.0.1:9"
"""A closed port for LiveKit's webhooks, so that nothing happens by itself."""

_AT_ONCE: Final = 4
"""Concurrent requests to the services; moto serves one at a time and would also execute abandoned ones."""

_BEAT_SECONDS: Final = 0.1
_STANDSTILL_SECONDS: Final = 0.5

_ROUNDS: Final = 10
_TRIES: Final = 5
_QUEUE: Final = "extractions"
_EVENT_QUEUE: Final = "-events"
_DEAD_LETTERS: Final = "extractions-dead"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Caller:
    """A caller with an API key, in a workspace of its own."""

    site: Site
    workspace: str
    key: str
    endpoint_id: str
    """An endpoint of the workspace that is subscribed to all events."""
    is_patient: bool = False
    """Whether the caller retries retryable errors: a busy machine may exceed DynamoDB's time limit."""

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Call a route; underscores in the names of headers stand for hyphens."""
        pairs = [("Authorization", f"Bearer {self.key}")]
        pairs += [(name.replace("_", "-"), value) for name, value in headers.items()]
        if body is not None:
            pairs.append(("Content-Type", "application/json"))
        for _ in range(_TRIES if self.is_patient else 1):
            answer = self.site.call(method, BASE + path, None if body is None else json.dumps(body), pairs)
            if answer.status < 500:
                break
        return answer

    def get(self, path: str) -> Any:
        """Read an object that has to exist."""
        answer = self.call("GET", path)
        assert answer.status == 200, answer.body
        return answer.json["data"]

    def post(self, path: str, body: object, **headers: str) -> Answer:
        return self.call("POST", path, body, **headers)


@dataclass(frozen=True)
class Lane:
    """Workers of all functions, and their paths to the services."""

    paths: FaultyPaths
    site: Site
    _workers: Workers
    _background: Background

    def invoke(self, function: str, event: object) -> Any:
        """Call a function by its logical id; raises FunctionError."""
        return self._background.run(self._workers.invoke(function, event))

    def kill(self, function: str) -> None:
        """Kill the busy worker of a function, as kill -9 does."""
        pool = self._workers._pools[function]  # noqa: SLF001 (workers have no public method for it)
        [pid] = [worker._process.pid for worker in pool._all if not worker._free]  # noqa: SLF001
        os.kill(pid, signal.SIGKILL)

    def kill_one(self, chance: random.Random, functions: Collection[str]) -> str | None:
        """Kill a busy worker of these functions, as kill -9 does, and return its function; None if none is busy."""
        busy = [
            (function, worker._process.pid)  # noqa: SLF001
            for function in sorted(functions)
            for worker in tuple(self._workers._pools[function]._all)  # noqa: SLF001 (another thread changes it)
            if worker._writer is not None and not worker._free  # noqa: SLF001 (no writer: it is starting or has ended)
        ]
        if not busy:
            return None
        function, pid = chance.choice(busy)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return function

    @contextmanager
    def by_itself(self, pollers: Iterable[Poller], jobs: Collection[str], seconds: float) -> Iterator[None]:
        """Deliver the messages of queues, and run jobs on a schedule."""
        schedulers = [Scheduler(Schedule(job, 1), seconds, job, self._workers.invoke) for job in jobs]

        @asynccontextmanager
        async def running() -> AsyncIterator[None]:
            tasks = [
                asyncio.create_task(run()) for run in [each.run for each in schedulers] + [each.run for each in pollers]
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        with self._background.during(running()):
            yield

    def poller(self, world: "World", function: str) -> Poller:
        """Return the poller of a function's queue."""
        [events] = [events for each in world.functions if each.logical_id == function for events in each.queues]
        return Poller(world.sqs, world.queue_urls[events.queue], events, function, self._workers.invoke, 0.5)

    def caller(self, caller: Caller) -> Caller:
        """Return the same caller for this lane's functions."""
        return Caller(self.site, caller.workspace, caller.key, caller.endpoint_id)


@dataclass
class Pulse:
    """A timer that ticks ten times a second: a late tick means that the machine stood still."""

    standstills: int = 0

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[Self]:
        beats = asyncio.create_task(self._beat())
        try:
            yield self
        finally:
            beats.cancel()

    async def _beat(self) -> Never:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _BEAT_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)
            self.standstills += loop.time() > due + _STANDSTILL_SECONDS


@dataclass(frozen=True)
class World:
    """The services, and operations on their state."""

    services: Services
    dynamodb_url: str
    sqs_url: str
    livekit: LiveKit
    gemini: Gemini
    dynamodb: "DynamoDBClient"
    sqs: "SQSClient"
    tables: TableNames
    all_tables: tuple[str, ...]
    queue_urls: Mapping[str, str]
    functions: tuple[Function, ...]
    machine: Mapping[str, str]
    background: Background
    pulse: Pulse
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """Start everything except the functions, and stop it afterwards."""
        services = Services.chosen_by({**os.environ, "CLIENT_TOKEN_SECRET": uuid4().hex})
        background = Background()
        with pytest.MonkeyPatch.context() as environment:
            try:
                aws_url = "" if services.dynamodb_url and services.sqs_url else background.enter(aws_stand_in())
                dynamodb_url, sqs_url = services.dynamodb_url or aws_url, services.sqs_url or aws_url
                livekit = background.enter(livekit_stand_in(NOWHERE, None))
                gemini = background.enter(gemini_stand_in())
                machine = machine_variables(os.environ, dynamodb_url, sqs_url)
                for name, value in machine.items():
                    environment.setenv(name, value)
                rows, queues = dynamodb.client(dynamodb_url), sqs.client(sqs_url)
                variables = function_variables(services, livekit, gemini, dynamodb_url, sqs_url)
                template = load(TEMPLATE, variables, services.parameters)
                dynamodb.make_tables(rows, template.tables)
                queue_urls = sqs.make_queues(queues, template.queues)
                yield cls(
                    services=services,
                    dynamodb_url=dynamodb_url,
                    sqs_url=sqs_url,
                    livekit=livekit,
                    gemini=gemini,
                    dynamodb=rows,
                    sqs=queues,
                    tables=TableNames.of(template.functions[0].environment),
                    all_tables=tuple(table.name for table in template.tables),
                    queue_urls=queue_urls,
                    functions=tuple(load(TEMPLATE, variables, services.parameters, queue_urls).functions),
                    machine=machine,
                    background=background,
                    pulse=background.enter(Pulse().beating()),
                )
            finally:
                background.stop()

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """Yield a lane; its workers start on demand and stop with it."""
        with self.background.during(self._lane()) as lane:
            yield lane

    @asynccontextmanager
    async def _lane(self) -> AsyncIterator[Lane]:
        paths = FaultyPaths(at_once=self.turns)
        async with (
            paths.to(self.dynamodb_url, aws_name) as dynamodb_url,
            paths.to(self.sqs_url, aws_name) as sqs_url,
            paths.to(self.livekit.url, livekit_name) as livekit_url,
            paths.to(str(self.gemini.base_url), gemini_name, numbering()) as gemini_url,
        ):
            paths.always(lambda name: name.startswith("DynamoDB TransactWriteItems"), by_token())
            livekit = LiveKit(livekit_url.replace("http", "ws", 1), self.livekit.api_key, self.livekit.api_secret)
            gemini = Gemini(self.gemini.api_key, gemini_url)
            variables = function_variables(self.services, livekit, gemini, dynamodb_url, sqs_url)
            functions = [
                replace(function, environment={**function.environment, **variables}) for function in self.functions
            ]
            workers = Workers(functions, self.machine)
            try:
                async with serving(http_api(functions, workers)) as url:
                    yield Lane(paths, Site(url), workers, self.background)
            finally:
                await workers.stop()

    def caller(self, lane: Lane) -> Caller:
        """Return a new caller."""
        workspace = f"w-{uuid4().hex[:12]}"
        manage_api_keys = ManageApiKeys(DynamoApiKeys(AwsClient(self.dynamodb, DEADLINE), self.tables.api_keys))
        request = CreateApiKeyRequest(workspace=workspace, name="durability")
        created = self.background.run(manage_api_keys.create_api_key(request))
        endpoint = WebhookEndpoint(
            endpoint_id=EndpointId(uuid7()),
            workspace=WorkspaceId(workspace),
            url="https://receiver.example.com",
            secret=SecretVersion("a1", 1),
            created_at=0,
            updated_at=0,
            events=get_args(SessionEventType.__value__),
        )
        endpoints = DynamoWebhookEndpoints(AwsClient(self.dynamodb, DEADLINE), self.tables.webhook_endpoints)
        self.background.run(endpoints.add(endpoint))
        return Caller(lane.site, workspace, created.api_key, endpoint.endpoint_id)

    # ---- Time ----

    def unhurried(self, work: Callable[[], Result]) -> Result:
        """Run an operation, and repeat it if it failed while the machine stood still, which exceeds time limits.

        For the setup of a fault only: checks of the state afterwards get no second try.
        """
        for _ in range(_TRIES):
            before = self.pulse.standstills
            try:
                return work()
            except (Exception, pytest.fail.Exception):
                if self.pulse.standstills == before:
                    raise
        return work()

    def let_pass(self, session_id: str, seconds: int) -> None:
        """Move all times of a session into the past by this many seconds."""
        key = {"session_id": {"S": session_id}}
        row: dict[str, Any] = self.dynamodb.get_item(TableName=self.tables.sessions, Key=key)["Item"]
        put_back(row, seconds)
        self.dynamodb.put_item(TableName=self.tables.sessions, Item=row)

    def forget_keys_in_progress(self) -> None:
        """Let enough time pass that no request counts as in progress under its Idempotency-Key."""
        table = self.tables.idempotency
        for row in self.dynamodb.scan(TableName=table)["Items"]:
            if row.get("status") == {"S": "INPROGRESS"}:  # counters of rate limits have none
                self.dynamodb.put_item(TableName=table, Item={**row, "in_progress_expiration": {"N": "1"}})

    def put_into_row(self, session_id: str, **attributes: Any) -> None:
        """Write attributes of a session in the form that DynamoDB stores; a dictionary in `livekit` is merged."""
        key = {"session_id": {"S": session_id}}
        row: Any = self.dynamodb.get_item(TableName=self.tables.sessions, Key=key)["Item"]
        row["livekit"]["M"].update(attributes.pop("livekit", {}))
        self.dynamodb.put_item(TableName=self.tables.sessions, Item={**row, **attributes})

    # ---- The schedule and the queue ----

    def let_schedule_run(self, lane: Lane) -> None:
        """Run the sweeper and the workers of both queues until all find no work."""
        for _ in range(_ROUNDS):
            swept = lane.invoke("SweepSessions", {})["data"]
            worked = self.work_on_queue(lane), self.work_on_events(lane)
            if not any(worked) and not any(swept.values()):
                return
        pytest.fail("The schedule found something to do every time.")

    def work_on_queue(self, lane: Lane) -> int:
        """Deliver all unfinished extractions to their worker, and return their number; raises FunctionError."""
        return self._work(lane, self.queue_url, "ExtractResults")

    def work_on_events(self, lane: Lane) -> int:
        """Deliver all sessions that owe events to their worker, and return their number; raises FunctionError."""
        return self._work(lane, self.event_queue_url, "DispatchEvents")

    def _work(self, lane: Lane, url: str, function: str) -> int:
        """Deliver all messages to a worker, one at a time, and return their number; raises FunctionError.

        A failed message is visible again at once, without its delay.
        """
        for number in count():
            answer = self.sqs.receive_message(
                QueueUrl=url, MessageSystemAttributeNames=["All"], MaxNumberOfMessages=1, WaitTimeSeconds=0
            )
            if not (messages := answer.get("Messages")):
                return number
            [message] = messages
            record = {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "eventSource": "aws:sqs",
            }
            done = False
            try:
                failed = failures(lane.invoke(function, {"Records": [record]}), {message["MessageId"]})
                done = not failed
            finally:
                if done:
                    self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                else:
                    self.sqs.change_message_visibility(
                        QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
                    )
            if not done:
                return number + 1
        raise AssertionError  # an endless counter

    def rows_of(self, session_id: str) -> list[dict[str, Any]]:
        """Return all that is stored of a session: its row or tombstone, and its pieces."""
        values = {":id": {"S": session_id}}
        row = self.dynamodb.get_item(
            TableName=self.tables.sessions, Key={"session_id": {"S": session_id}}, ConsistentRead=True
        )
        pieces = self.dynamodb.query(
            TableName=self.tables.transcripts,
            KeyConditionExpression="session_id = :id",
            ExpressionAttributeValues=values,
            ConsistentRead=True,
        )
        return [*([row["Item"]] if "Item" in row else []), *pieces["Items"]]

    def put_into_queue(self, session_id: str) -> None:
        """Deliver a message of a session again, as SQS may."""
        self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=json.dumps({"session_id": session_id}))

    def put_into_event_queue(self, session_id: str) -> None:
        """Deliver a message of a session that may owe events."""
        self.sqs.send_message(QueueUrl=self.event_queue_url, MessageBody=json.dumps({"session_id": session_id}))

    def redrive(self) -> int:
        """Move all dead letters back to the queue, as SQS does for `make redrive`; return their number.

        moto has no message move tasks.
        """
        [url] = [url for name, url in self.queue_urls.items() if name.endswith(_DEAD_LETTERS)]
        received = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        for message in received:
            self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=message["Body"])
            self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return len(received)

    def empty_queue(self) -> None:
        """Delete all messages of both queues."""
        for url in (self.queue_url, self.event_queue_url):
            while messages := self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
                for message in messages:
                    self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    @property
    def queue_url(self) -> str:
        """The queue of unfinished extractions."""
        [url] = [url for name, url in self.queue_urls.items() if name.endswith(_QUEUE)]
        return url

    @property
    def event_queue_url(self) -> str:
        """The queue of sessions that owe events."""
        [url] = [url for name, url in self.queue_urls.items() if name.endswith(_EVENT_QUEUE)]
        return url

    def dispatched(self, caller: Caller, session_id: str) -> list[str]:
        """Return the types of the events of a session that have a delivery to the caller's endpoint."""
        answer = self.dynamodb.query(
            TableName=self.tables.webhook_deliveries,
            KeyConditionExpression="endpoint_id = :endpoint",
            ExpressionAttributeValues={":endpoint": {"S": caller.endpoint_id}},
            ConsistentRead=True,
        )
        return [row["type"]["S"] for row in answer["Items"] if row["session_id"]["S"] == session_id]

    # ---- LiveKit ----

    def rooms(self) -> dict[str, Room]:
        """Return all open rooms by name."""

        async def ask() -> list[Room]:
            async with api.LiveKitAPI(self.livekit.url, self.livekit.api_key, self.livekit.api_secret) as livekit:
                return list((await livekit.room.list_rooms(ListRoomsRequest())).rooms)

        return {room.name: room for room in self.background.run(ask())}

    def open_room(self, name: str) -> None:
        """Open a room, as a join does if there is none."""

        async def order() -> None:
            async with api.LiveKitAPI(self.livekit.url, self.livekit.api_key, self.livekit.api_secret) as livekit:
                await livekit.room.create_room(CreateRoomRequest(name=name))

        self.background.run(order())


def numbering() -> Any:
    """Let Gemini return a different answer every time, so that a second set of results is noticed."""
    numbers = count(1)

    def edit(name: str, reply: Reply) -> Reply:
        if name != "Gemini generateContent" or reply.status != 200:
            return reply
        body = json.loads(reply.body)
        [part] = body["candidates"][0]["content"]["parts"]
        part["text"] = json.dumps(dict.fromkeys(json.loads(part["text"]), f"answer {next(numbers)}"))
        headers = {name: value for name, value in reply.headers.items() if name.lower() != "content-encoding"}
        return Reply(200, headers, json.dumps(body).encode())

    return edit
