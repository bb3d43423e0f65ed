"""The poller invokes functions as Lambda's event source mappings do, and loses no message."""

import asyncio
import hashlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from mypy_boto3_sqs.client import SQSClient

from local.aws import aws_stand_in
from local.poller import Poller, failures
from local.sqs import client, make_queues
from local.stack import background_tasks
from local.template import Queue, QueueEvents
from local.workers import FunctionError, Workers
from tests.local.conftest import Background, Project
from tests.local.processes import until

Event = dict[str, Any]
Answering = Callable[[Event], Any]

MAX_RECEIVES = 2
CRASHES = """
    import os

    def handler(event, context):
        [record] = event["Records"]
        if record["attributes"]["ApproximateReceiveCount"] == "1":
            os._exit(3)
"""
NUMBERS = itertools.count()


def broken(_: Event) -> Any:
    raise FunctionError({"errorType": "LookupError", "errorMessage": "no such luck"})


def bodies(event: Event) -> list[str]:
    return sorted(record["body"] for record in event["Records"])


@dataclass
class Function:
    """A function that records its events and answers by `answer`."""

    answer: Answering = lambda _: None
    events: list[Event] = field(default_factory=list)

    async def __call__(self, logical_id: str, event: Event) -> Any:
        assert logical_id == "Work"
        self.events.append(event)
        return self.answer(event)

    def receives(self, body: str) -> int:
        return sum(body in bodies(event) for event in self.events)


@dataclass
class Line:
    """A queue with its dead-letter queue; received messages become visible again when the test says so."""

    sqs: SQSClient
    background: Background
    name: str = field(default_factory=lambda: f"line-{next(NUMBERS)}")

    @property
    def queues(self) -> list[Queue]:
        dead = f"{self.name}-dead"
        return [Queue(self.name, {"VisibilityTimeout": "3600"}, dead, MAX_RECEIVES), Queue(dead, {}, None, 0)]

    def make(self) -> "Line":
        make_queues(self.sqs, self.queues)
        return self

    def send(self, *messages: str, **options: Any) -> None:
        url = self.sqs.get_queue_url(QueueName=self.name)["QueueUrl"]
        for message in messages:
            self.sqs.send_message(QueueUrl=url, MessageBody=message, **options)

    def bring_back(self, event: Event) -> None:
        """Make the messages of an event visible again, except deleted ones."""
        url = self.sqs.get_queue_url(QueueName=self.name)["QueueUrl"]
        for record in event["Records"]:
            with suppress(self.sqs.exceptions.ReceiptHandleIsInvalid):
                self.sqs.change_message_visibility(
                    QueueUrl=url, ReceiptHandle=record["receiptHandle"], VisibilityTimeout=0
                )

    def count(self, name: str = "") -> int:
        """Count the messages of the queue, invisible ones included.

        Counts twice, because moto counts the visible messages first, and misses those that become visible in between.
        """
        url = self.sqs.get_queue_url(QueueName=name or self.name)["QueueUrl"]
        kinds: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        counted = [self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=kinds)["Attributes"] for _ in range(2)]
        return max(sum(map(int, each.values())) for each in counted)

    def dead(self) -> int:
        return self.count(f"{self.name}-dead")

    def feeding(
        self, function: Callable[[str, Event], Awaitable[Any]], batch_size: int = 10, **terms: Any
    ) -> AbstractContextManager[None]:
        """Poll the queue for a function while the context is open."""
        events = QueueEvents(self.name, batch_size, **{"reports_failures": True, "max_concurrency": None, **terms})
        url = f"{self.sqs.meta.endpoint_url}/000000000000/{self.name}"
        poller = Poller(self.sqs, url, events, "Work", function, pause_seconds=0.05)
        return self.background.during(background_tasks([poller.run()]))


@pytest.fixture(scope="module")
def sqs(background: Background) -> Iterator[SQSClient]:
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "local")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        made = client(background.enter(aws_stand_in()))
        yield made
        made.close()


@pytest.fixture
def line(sqs: SQSClient, background: Background) -> Line:
    return Line(sqs, background).make()


def test_a_message_arrives_in_lambdas_format_and_is_deleted(line: Line) -> None:
    attributes = {
        "color": {"DataType": "String", "StringValue": "red"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\0\1"},
    }
    function = Function()
    with line.feeding(function):
        line.send('{"a": 1}', MessageAttributes=attributes)
        until(lambda: len(function.events) == 1 and line.count() == 0)

    [record] = function.events[0].pop("Records")
    assert function.events == [{}]
    assert record.pop("messageId")
    assert record.pop("receiptHandle")
    assert record.pop("md5OfMessageAttributes")
    system = record.pop("attributes")
    assert system.keys() == {
        "ApproximateReceiveCount",
        "SentTimestamp",
        "SenderId",
        "ApproximateFirstReceiveTimestamp",
    }
    assert system["ApproximateReceiveCount"] == "1"
    assert all(isinstance(value, str) for value in system.values())
    lists: dict[str, Any] = {"stringListValues": [], "binaryListValues": []}
    assert record == {
        "body": '{"a": 1}',
        "messageAttributes": {
            "color": {"stringValue": "red", **lists, "dataType": "String"},
            "bytes": {"binaryValue": "AAE=", **lists, "dataType": "Binary"},
        },
        "md5OfBody": hashlib.md5(b'{"a": 1}', usedforsecurity=False).hexdigest(),
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:us-east-1:000000000000:{line.name}",
        "awsRegion": "us-east-1",
    }


def test_a_batch_has_at_most_batch_size_messages(line: Line) -> None:
    line.send("a", "b", "c")
    function = Function()
    with line.feeding(function, batch_size=2):
        until(lambda: line.count() == 0)

    assert sorted(len(event["Records"]) for event in function.events) == [1, 2]


def test_only_messages_reported_as_failed_are_retried(line: Line) -> None:
    def refuse_bad(event: Event) -> Any:
        failed = [
            r for r in event["Records"] if (r["body"], r["attributes"]["ApproximateReceiveCount"]) == ("bad", "1")
        ]
        return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in failed]}

    line.send("good", "bad")
    function = Function(refuse_bad)
    with line.feeding(function):
        until(lambda: line.count() == 1)
        line.bring_back(function.events[0])
        until(lambda: line.count() == 0)

    assert (function.receives("good"), function.receives("bad")) == (1, 2)
    assert line.dead() == 0


def test_an_error_of_the_function_fails_the_whole_batch_and_is_reported(
    line: Line, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken_at_first(event: Event) -> Any:
        return broken(event) if event["Records"][0]["attributes"]["ApproximateReceiveCount"] == "1" else None

    line.send("a", "b")
    function = Function(broken_at_first)
    # One poller for both: a canceled poller may be in a receive call, which would take the messages.
    with line.feeding(function):
        until(lambda: len(function.events) == 1)
        line.bring_back(function.events[0])
        until(lambda: line.count() == 0)

    assert bodies(function.events[0]) == ["a", "b"]
    assert (function.receives("a"), function.receives("b")) == (2, 2)
    assert "Work: a batch of 2 failed and will be retried: LookupError: no such luck.\n" in capfd.readouterr().err


def test_a_crash_of_the_worker_loses_no_message(
    line: Line, background: Background, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.function("Work", CRASHES)
    workers = Workers(project.template().functions, {})
    line.send("once more")
    crashed: list[Event] = []

    async def invoke(logical_id: str, event: Event) -> Any:
        try:
            return await workers.invoke(logical_id, event)
        except FunctionError:
            crashed.append(event)
            raise

    with line.feeding(invoke):
        until(lambda: len(crashed) == 1)
        line.bring_back(crashed[0])
        until(lambda: line.count() == 0)
    background.run(workers.stop())

    assert "Work: its worker ended with exit status 3.\n" in capfd.readouterr().err
    assert line.dead() == 0


def test_a_message_received_too_often_goes_to_the_dead_letter_queue(line: Line) -> None:
    line.send("hopeless")
    function = Function(broken)
    with line.feeding(function):
        for number in range(MAX_RECEIVES):
            until(lambda: len(function.events) > number)  # noqa: B023 (called within the iteration)
            line.bring_back(function.events[number])
        until(lambda: line.dead() == 1)

    assert len(function.events) == MAX_RECEIVES
    assert line.count() == 0


def test_without_failure_reports_the_answer_is_ignored(line: Line) -> None:
    line.send("a")
    function = Function(lambda _: {"batchItemFailures": [{"itemIdentifier": ""}]})
    with line.feeding(function, reports_failures=False):
        until(lambda: line.count() == 0)

    assert len(function.events) == 1


def test_an_unreadable_queue_is_reported_and_retried(
    sqs: SQSClient, background: Background, capfd: pytest.CaptureFixture[str]
) -> None:
    line, function, output = Line(sqs, background), Function(), []

    def is_reported() -> bool:
        output.append(capfd.readouterr().err)
        return "Work: cannot read the queue: " in "".join(output)

    with line.feeding(function):
        until(is_reported)
        line.make().send("at last")
        until(lambda: len(function.events) == 1)


def test_concurrent_batches_are_limited(line: Line, sqs: SQSClient, background: Background) -> None:
    at_once, gate = [0, 0], threading.Event()  # now, and at most

    async def work(_: str, __: Event) -> None:
        at_once[0] += 1
        at_once[1] = max(at_once)
        await asyncio.to_thread(gate.wait, 300)
        at_once[0] -= 1

    meanwhile = Line(sqs, background).make()
    line.send(*"abcdef")
    meanwhile.send(*"abcdef")
    with line.feeding(work, batch_size=1, max_concurrency=2):
        until(lambda: at_once[0] >= 2)
        with meanwhile.feeding(Function(), batch_size=1):
            until(lambda: meanwhile.count() == 0)
        gate.set()
        until(lambda: line.count() == 0)

    assert at_once[1] == 2


def test_existing_queues_are_unchanged(line: Line) -> None:
    line.send("kept")
    again = make_queues(line.sqs, line.queues)
    changed = make_queues(line.sqs, [Queue(line.name, {"VisibilityTimeout": "7"}, None, 0)])

    assert changed == {line.name: again[line.name]}
    assert line.count() == 1


@pytest.mark.parametrize("answer", [None, {}, {"batchItemFailures": []}, {"batchItemFailures": None}])
def test_an_answer_without_failures_is_a_success(answer: object) -> None:
    assert failures(answer, {"1", "2"}) == set()


@pytest.mark.parametrize(
    "answer",
    [
        "done",
        [1],
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"itemIdentifier": ["1"]}]},
        {"batchItemFailures": [{"id": "1"}]},
        {"batchItemFailures": [{"itemIdentifier": "1"}, {"itemIdentifier": "3"}]},
        {"batchItemFailures": 1},
    ],
    ids=str,
)
def test_an_answer_that_lambda_would_reject_fails_the_batch(answer: object) -> None:
    assert failures(answer, {"1", "2"}) == {"1", "2"}


def test_the_failures_of_an_answer_are_the_ids_it_names() -> None:
    assert failures({"batchItemFailures": [{"itemIdentifier": "2"}]}, {"1", "2"}) == {"2"}
