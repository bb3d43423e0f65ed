"""The crash matrix of deliveries: the worker, or the job that queues them, is killed at each of its requests.

Afterwards time passes, the job runs, and the receiver has the event: at least once, always with the same id, after at
most eight tries. Each cell has an endpoint and an event of its own.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import pytest

from local.workers import FunctionError
from tests.durability.faulty_path import killing
from tests.durability.world import Caller, Lane, World
from tests.support.webhook_receiver import Receiver

pytestmark = pytest.mark.durability

FIND: Final = "DynamoDB GetItem webhook_deliveries"
ENDPOINT: Final = "DynamoDB GetItem webhook_endpoints"
SESSION: Final = "DynamoDB GetItem sessions"
CHANGE: Final = "DynamoDB UpdateItem webhook_deliveries"
QUEUED: Final = "SQS SendMessage"

WORKER: Final = ((FIND, 1), (ENDPOINT, 1), (CHANGE, 1), (SESSION, 1), (CHANGE, 2))
"""Requests of the worker: read the delivery and its endpoint, count the try, read the session, record the outcome."""

RESTING: Final = ((FIND, 1), (ENDPOINT, 1), (CHANGE, 1))
"""Those of the worker while the endpoint rests: the delivery is put off."""

JUDGED: Final = "DynamoDB UpdateItem webhook_endpoints"
"""The request that records that an endpoint hangs, or responds again."""

JOB: Final = ((FIND, 1), (ENDPOINT, 1), (CHANGE, 1), (QUEUED, 1))
"""Requests of the job for one delivery, after it has read the index: whether its endpoint hangs, and the message."""

MAX_TRIES: Final = 8

When = Literal["before", "after"]


@dataclass
class Event:
    """An event that is delivered to a receiver."""

    world: World
    lane: Lane
    caller: Caller
    receiver: Receiver
    endpoint_id: str
    delivery_id: str

    @property
    def row(self) -> dict[str, Any]:
        key = {"endpoint_id": {"S": self.endpoint_id}, "delivery_id": {"S": self.delivery_id}}
        table = self.world.tables.webhook_deliveries
        return dict(self.world.dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"])

    @property
    def shown(self) -> dict[str, Any]:
        [delivery] = self.caller.get(f"/webhook-endpoints/{self.endpoint_id}/deliveries")
        return dict(delivery)

    def deliver(self) -> None:
        """Deliver the messages of this endpoint, each once; raises FunctionError."""
        for message in self._messages():
            record = {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
            }
            self.lane.invoke("DeliverEvent", {"Records": [record]})

    def sweep(self) -> None:
        """Run the job; raises FunctionError."""
        self.lane.invoke("SweepDeliveries", {})

    def rest(self, seconds: int) -> None:
        """Let the endpoint rest, as after two timeouts; of a rest in the past only the end is left to come."""
        self.world.dynamodb.update_item(
            TableName=self.world.tables.webhook_endpoints,
            Key={"workspace": {"S": self.caller.workspace}, "endpoint_id": {"S": self.endpoint_id}},
            UpdateExpression="SET failing_since = :since, timeouts = :two, resting_until = :until",
            ExpressionAttributeValues={
                ":since": {"N": str(int(time.time()) - 90)},
                ":two": {"N": "2"},
                ":until": {"N": str(int(time.time()) + seconds)},
            },
        )

    def let_pass(self) -> None:
        """Let the pause before the next try pass."""
        row = self.row
        if "due_at" in row:
            self.world.dynamodb.put_item(
                TableName=self.world.tables.webhook_deliveries, Item={**row, "due_at": {"N": "1"}}
            )

    def _messages(self) -> list[Any]:
        """Take all messages of this endpoint out of the queue: SQS hides those of a killed worker."""
        [url] = [url for name, url in self.world.queue_urls.items() if name.endswith("-deliveries.fifo")]
        found = []
        while received := self.world.sqs.receive_message(
            QueueUrl=url, MessageSystemAttributeNames=["All"], MaxNumberOfMessages=10
        ).get("Messages"):
            for message in received:
                self.world.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                if json.loads(message["Body"])["delivery_id"] == self.delivery_id:
                    found.append(message)
        return found


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver.running() as receiver:
        yield receiver


@pytest.fixture
def event(world: World, lane: Lane, receiver: Receiver) -> Event:
    """An event of a completed session, dispatched to the queue."""
    event = world.unhurried(lambda: an_event(world, lane, receiver))
    event.sweep()  # what other tests left due
    return event


def an_event(world: World, lane: Lane, receiver: Receiver) -> Event:
    caller = world.caller(lane)
    receiver.bodies.clear()
    receiver.ids.clear()
    receiver.statuses = [204]
    created = caller.post("/webhook-endpoints", {"url": receiver.url, "events": ["session.completed"]})
    endpoint = created.json["data"]
    receiver.secret = endpoint["secret"]
    agent = caller.post("/agents", {"name": "Ana", "instructions": "Take the call."}).json["data"]["agent_id"]
    request = {"agent_id": agent, "participant": {"identity": "caller-1"}}
    session_id = caller.post("/sessions", request).json["data"]["session_id"]
    turns = [{"role": "user", "text": "A table for two, please."}]
    assert caller.post(f"/sessions/{session_id}/complete", {"transcript": turns}).status == 200
    message = {"messageId": "m", "receiptHandle": "r", "attributes": {"ApproximateReceiveCount": "1"}}
    record = {**message, "body": json.dumps({"session_id": session_id})}
    assert lane.invoke("DispatchEvents", {"Records": [record]}) == {"batchItemFailures": []}
    [delivery] = caller.call("GET", f"/webhook-endpoints/{endpoint['endpoint_id']}/deliveries").json["data"]
    return Event(world, lane, caller, receiver, endpoint["endpoint_id"], delivery["delivery_id"])


def die(event: Event, function: str, step: tuple[str, int], when: When, work: Callable[[], None]) -> None:
    """Do the work of a function whose worker is killed at one of its requests."""
    died = []

    def kill() -> None:
        event.lane.kill(function)
        died.append(step)

    name, number = step
    fault = killing(kill, afterwards=when == "after")
    with (
        event.lane.paths.faulty(lambda each: each == name, fault, only=number),
        pytest.raises(FunctionError),
    ):
        work()
    assert died == [step]


def finish(event: Event) -> dict[str, Any]:
    """Let time pass and the job run until the delivery has ended; return its row."""
    for _ in range(MAX_TRIES + 1):
        event.let_pass()
        event.sweep()
        event.deliver()
        if event.row["status"] != {"S": "pending"}:
            return event.row
    return pytest.fail("The delivery did not end.")


def test_a_delivery_sends_the_listed_requests(event: Event) -> None:
    event.lane.paths.log.clear()

    event.deliver()

    assert event.lane.paths.log == [name for name, _ in WORKER]
    assert event.row["status"] == {"S": "succeeded"}


def test_the_job_sends_the_listed_requests(event: Event) -> None:
    event.let_pass()
    event.lane.paths.log.clear()

    event.sweep()

    assert [name for name in event.lane.paths.log if "Query" not in name] == [name for name, _ in JOB]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", WORKER, ids=lambda step: f"{step[0]} ({step[1]})")
def test_no_event_is_lost_when_the_worker_is_killed(
    event: Event, step: tuple[str, int], when: When, record_property: Callable[[str, object], None]
) -> None:
    record_property("crash", ["deliver an event", f"{step[0]} ({step[1]})", when])

    die(event, "DeliverEvent", step, when, event.deliver)
    ended = finish(event)

    assert ended["status"] == {"S": "succeeded"}
    assert len(set(event.receiver.ids)) == 1
    assert len(event.receiver.ids) <= int(ended["tries"]["N"]) <= 2
    record_property("outcome", f"received {len(event.receiver.ids)} times, {ended['tries']['N']} tries")


def test_a_delivery_to_an_endpoint_that_rests_sends_the_listed_requests(event: Event) -> None:
    event.rest(600)
    event.lane.paths.log.clear()

    event.deliver()

    assert event.lane.paths.log == [name for name, _ in RESTING]
    assert (event.row["status"], event.row["tries"]) == ({"S": "pending"}, {"N": "0"})
    assert event.receiver.ids == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", RESTING, ids=lambda step: f"{step[0]} ({step[1]})")
def test_no_event_is_lost_when_the_worker_is_killed_while_the_endpoint_rests(
    event: Event, step: tuple[str, int], when: When, record_property: Callable[[str, object], None]
) -> None:
    record_property("crash", ["put a delivery off", step[0], when])
    event.rest(600)

    die(event, "DeliverEvent", step, when, event.deliver)
    event.rest(-1)
    ended = finish(event)

    assert (ended["status"], ended["tries"]) == ({"S": "succeeded"}, {"N": "1"})
    assert len(event.receiver.ids) == 1
    assert event.caller.get(f"/webhook-endpoints/{event.endpoint_id}")["resting_until"] is None
    record_property("outcome", "received once, after the rest")


@pytest.mark.parametrize("when", ["before", "after"])
def test_no_event_is_lost_when_the_worker_is_killed_as_it_ends_a_rest(
    event: Event, when: When, record_property: Callable[[str, object], None]
) -> None:
    record_property("crash", ["end the rest of an endpoint", JUDGED, when])
    event.rest(-1)

    die(event, "DeliverEvent", (JUDGED, 1), when, event.deliver)

    assert event.row["status"] == {"S": "succeeded"}
    assert len(event.receiver.ids) == 1
    resting_until = event.caller.get(f"/webhook-endpoints/{event.endpoint_id}")["resting_until"]
    assert (resting_until is None) == (when == "after")  # otherwise the next event ends it
    record_property("outcome", "received once")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", JOB, ids=lambda step: f"{step[0]} ({step[1]})")
def test_no_event_is_lost_when_the_job_is_killed(
    event: Event, step: tuple[str, int], when: When, record_property: Callable[[str, object], None]
) -> None:
    record_property("crash", ["queue a delivery", step[0], when])
    event.let_pass()

    die(event, "SweepDeliveries", step, when, event.sweep)
    ended = finish(event)

    assert ended["status"] == {"S": "succeeded"}
    assert len(event.receiver.ids) == 1
    record_property("outcome", "received once")


@pytest.mark.parametrize("step", [(CHANGE, 2), (SESSION, 1)], ids=lambda step: step[0])
def test_a_worker_that_is_killed_at_every_try_makes_eight_tries_and_the_delivery_fails_visibly(
    event: Event, step: tuple[str, int]
) -> None:
    for _ in range(MAX_TRIES):
        event.let_pass()
        event.sweep()
        die(event, "DeliverEvent", step, "before", event.deliver)
    ended = finish(event)

    assert (ended["status"], ended["tries"]) == ({"S": "failed"}, {"N": "8"})
    assert len(event.receiver.ids) == (MAX_TRIES if step == (CHANGE, 2) else 0)
