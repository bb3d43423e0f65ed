"""The queues in SQS by moto, and their errors."""

import asyncio
import io
import json
import uuid
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest

from local import template
from pi_voice.adapters.sqs import SqsDeliveryQueue, SqsSessionQueue
from pi_voice.domain.errors import StorageError
from pi_voice.domain.ids import EndpointId, SessionId
from tests.integration.conftest import AwsAt
from tests.integration.provider import Answer, Provider, hangs_up, says
from tests.integration.samples import a_delivery
from tests.support.moto_server import MotoServer
from tests.support.template import ROOT

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

run = asyncio.run

URL = "https://sqs.test/extractions"
SESSION_ID = SessionId("019a0000-0000-7000-8000-000000000002")


@pytest.fixture
def sqs(moto: MotoServer) -> "SQSClient":
    return boto3.client("sqs", endpoint_url=moto.url)


@pytest.fixture
def url(sqs: "SQSClient") -> str:
    return sqs.create_queue(QueueName=f"extractions-{uuid.uuid4().hex}", Attributes={"VisibilityTimeout": "540"})[
        "QueueUrl"
    ]


@pytest.fixture
def queue(aws_at: AwsAt, moto: MotoServer, url: str) -> SqsSessionQueue:
    return SqsSessionQueue(aws_at(moto.url, "sqs"), url)


def messages(sqs: "SQSClient", url: str, **options: Any) -> list[Any]:
    return sqs.receive_message(**{"QueueUrl": url, "MaxNumberOfMessages": 10, **options}).get("Messages", [])


def test_a_message_has_only_the_session_id(queue: SqsSessionQueue, sqs: "SQSClient", url: str) -> None:
    run(queue.put(SESSION_ID))

    [message] = messages(sqs, url)
    assert json.loads(message["Body"]) == {"session_id": SESSION_ID}


def test_one_client_sends_many_messages(queue: SqsSessionQueue, sqs: "SQSClient", url: str) -> None:
    async def put() -> None:
        await asyncio.gather(*(queue.put(SESSION_ID) for _ in range(5)))

    run(put())
    run(queue.put(SESSION_ID))

    assert len(messages(sqs, url)) == 6


def test_a_delayed_message_is_delivered_again(queue: SqsSessionQueue, sqs: "SQSClient", url: str) -> None:
    run(queue.put(SESSION_ID))
    [message] = messages(sqs, url)
    assert messages(sqs, url) == []

    run(queue.delay(message["ReceiptHandle"], 0))

    [again] = messages(sqs, url)
    assert again["MessageId"] == message["MessageId"]


def test_creating_the_queue_sends_no_request() -> None:
    assert SqsSessionQueue(cast("Any", None), URL) is not None


# ---- Deliveries -------------------------------------------------------------------------------------


@pytest.fixture
def deliveries_url(sqs: "SQSClient") -> str:
    """Create a queue with the attributes that the template gives to that of deliveries."""
    read = template.load(ROOT / "template.yaml", {"LIVEKIT_URL": "wss://livekit.example"})
    [queue] = [queue for queue in read.queues if queue.name.endswith("-deliveries.fifo")]
    attributes: Any = dict(queue.attributes)
    return sqs.create_queue(QueueName=f"{uuid.uuid4().hex}.fifo", Attributes=attributes)["QueueUrl"]


@pytest.fixture
def deliveries(aws_at: AwsAt, moto: MotoServer, deliveries_url: str) -> SqsDeliveryQueue:
    return SqsDeliveryQueue(aws_at(moto.url, "sqs"), deliveries_url)


def test_a_message_of_a_delivery_names_its_next_try(
    deliveries: SqsDeliveryQueue, sqs: "SQSClient", deliveries_url: str
) -> None:
    delivery = a_delivery(tries=3, redeliveries=2)
    run(deliveries.put(delivery))

    [message] = messages(sqs, deliveries_url, MessageSystemAttributeNames=["All"])
    assert json.loads(message["Body"]) == {
        "endpoint_id": delivery.endpoint_id,
        "delivery_id": delivery.delivery_id,
        "redeliveries": 2,
        "tries": 3,
    }
    assert message["Attributes"]["MessageGroupId"] == delivery.endpoint_id
    assert message["Attributes"]["MessageDeduplicationId"] == f"{delivery.delivery_id}#2#3"


def test_a_try_that_is_queued_repeatedly_is_one_message(
    deliveries: SqsDeliveryQueue, sqs: "SQSClient", deliveries_url: str
) -> None:
    delivery = a_delivery()
    for _ in range(3):
        run(deliveries.put(delivery))

    assert len(messages(sqs, deliveries_url)) == 1


def test_each_try_and_each_redelivery_is_a_message_of_its_own(
    deliveries: SqsDeliveryQueue, sqs: "SQSClient", deliveries_url: str
) -> None:
    delivery = a_delivery()
    for each in (delivery, replace(delivery, tries=1), replace(delivery, redeliveries=1)):
        run(deliveries.put(each))

    received = [json.loads(message["Body"]) for message in messages(sqs, deliveries_url)]
    assert [(each["redeliveries"], each["tries"]) for each in received] == [(0, 0), (0, 1), (1, 0)]


def test_an_endpoint_whose_message_is_being_processed_does_not_delay_others(
    deliveries: SqsDeliveryQueue, sqs: "SQSClient", deliveries_url: str
) -> None:
    slow, other = EndpointId("019a0000-0000-7000-8000-0000000000e1"), EndpointId("019a0000-0000-7000-8000-0000000000e2")
    for endpoint_id in (slow, slow, other):
        run(deliveries.put(a_delivery(endpoint_id=endpoint_id)))

    first = messages(sqs, deliveries_url, MaxNumberOfMessages=1)
    second = messages(sqs, deliveries_url, MaxNumberOfMessages=1)
    third = messages(sqs, deliveries_url, MaxNumberOfMessages=1)

    assert [json.loads(each["Body"])["endpoint_id"] for each in (*first, *second)] == [slow, other]
    assert third == []
    sqs.delete_message(QueueUrl=deliveries_url, ReceiptHandle=first[0]["ReceiptHandle"])
    [last] = messages(sqs, deliveries_url, MaxNumberOfMessages=1)
    assert json.loads(last["Body"])["endpoint_id"] == slow


# ---- Errors -----------------------------------------------------------------------------------------


def assert_storage_error(runner: asyncio.Runner, work: Coroutine[Any, Any, None], logged: io.StringIO) -> None:
    """Check that the work raises StorageError, and that neither error nor log repeats the cause."""
    with pytest.raises(StorageError) as raised:
        runner.run(work)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert "sqs_request_failed" in logged.getvalue()
    for secret in ("do not tell", SESSION_ID, "127.0.0.1"):
        assert secret not in logged.getvalue()
        assert secret not in repr(raised.value)


def test_a_missing_queue_is_a_storage_error(
    moto: MotoServer, aws_at: AwsAt, runner: asyncio.Runner, url: str, logged: io.StringIO
) -> None:
    queue = SqsSessionQueue(aws_at(moto.url, "sqs"), url + "-of-another-stack")

    assert_storage_error(runner, queue.put(SESSION_ID), logged)
    assert_storage_error(runner, queue.delay("do not tell", 30), logged)


def test_an_invalid_receipt_handle_is_a_storage_error(
    queue: SqsSessionQueue, runner: asyncio.Runner, logged: io.StringIO
) -> None:
    assert_storage_error(runner, queue.delay("do not tell", 30), logged)


REFUSAL = '{"__type": "com.amazonaws.sqs#AccessDenied", "message": "do not tell"}'


@pytest.mark.parametrize(
    ("answer", "attempts"),
    [
        (says(REFUSAL, 400), 1),
        (says(REFUSAL, 403), 1),
        (says("do not tell", 400, "text/plain"), 1),
        (says(REFUSAL, 503), 3),
        (hangs_up, 3),
    ],
)
def test_a_refused_or_broken_request_is_a_storage_error(
    aws_at: AwsAt,
    runner: asyncio.Runner,
    provider: Provider,
    logged: io.StringIO,
    answer: Answer,
    attempts: int,
) -> None:
    provider.answers(answer)

    assert_storage_error(runner, SqsSessionQueue(aws_at(provider.url, "sqs"), URL).put(SESSION_ID), logged)

    assert len(provider.received) == attempts


def test_a_transient_error_is_retried(aws_at: AwsAt, runner: asyncio.Runner, provider: Provider) -> None:
    provider.answers(says(REFUSAL, 503), says('{"MessageId": "1"}', content_type="application/x-amz-json-1.0"))

    runner.run(SqsSessionQueue(aws_at(provider.url, "sqs"), URL).put(SESSION_ID))

    assert len(provider.received) == 2


def test_an_unreachable_queue_is_a_storage_error(
    aws_at: AwsAt, runner: asyncio.Runner, closed_port: int, logged: io.StringIO
) -> None:
    nowhere = f"http://127.0.0.1:{closed_port}"

    assert_storage_error(runner, SqsSessionQueue(aws_at(nowhere, "sqs"), URL).put(SESSION_ID), logged)
