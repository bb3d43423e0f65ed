"""The queue of extractions in SQS by moto, and its errors."""

import asyncio
import io
import json
import uuid
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest

from pi_voice.adapters.sqs import SqsSessionQueue
from pi_voice.domain.errors import StorageError
from pi_voice.domain.ids import SessionId
from tests.integration.conftest import AwsAt
from tests.integration.provider import Answer, Provider, hangs_up, says
from tests.support.moto_server import MotoServer

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


def messages(sqs: "SQSClient", url: str) -> list[Any]:
    return sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])


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
