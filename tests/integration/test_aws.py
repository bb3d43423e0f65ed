"""The AWS client: retries, deadlines, threads, unreadable responses, connections and TLS."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from aiohttp import web
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError, SSLError

from local.http_server import serving
from pi_voice.adapters import aws
from pi_voice.adapters.aws import AwsClient, DeadlinePassed, UnreadableResponse
from pi_voice.entrypoints.runner import new_event_loop
from tests.integration.conftest import AwsAt
from tests.integration.provider import (
    FLOOD_BYTES,
    Answer,
    Flood,
    Provider,
    breaks_off,
    hangs,
    hangs_up,
    redirects,
    resets,
    says,
)
from tests.support.moving_clock import MovableLoop
from tests.support.patience import DEADLINE, LONG
from tests.support.tls import loopback_tls

KEY = {"session_id": {"S": "1"}}
ROW = says('{"Item": {"turns": {"N": "7"}}}', content_type="application/x-amz-json-1.0")
HUNG = 40

Sleep = Callable[[float], None]


def refusal(code: str, status: int = 400) -> Answer:
    answer = says(json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "no"}), status)
    answer.__name__ = f"{status} {code}"  # pytest shows it as the id of the case
    return answer


async def get(aws: AwsClient) -> Any:
    return (await aws.request("get_item", TableName="rows", Key=KEY)).get("Item")


async def put(aws: AwsClient) -> Any:
    return await aws.request("put_item", TableName="rows", Item=KEY)


def operations(provider: Provider) -> list[str]:
    return [received.headers["X-Amz-Target"].partition(".")[2] for received in provider.received]


@pytest.fixture
def sleep_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sleep], None]:
    """Replace the pauses between the attempts of boto3."""

    def sleep_by(sleep: Sleep) -> None:
        monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=sleep))

    return sleep_by


@pytest.fixture
def pauses(sleep_by: Callable[[Sleep], None]) -> list[float]:
    """Recorded pauses between attempts. No test waits for them."""
    slept: list[float] = []
    sleep_by(slept.append)
    return slept


# ---- Retries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "longest"),
    [
        (refusal("InternalServerError", 500), 0.025),
        (says("<html>", 502, "text/html"), 0.025),
        (says("", 503), 0.025),
        (hangs_up, 0.025),
        (resets, 0.025),
        (refusal("ThrottlingException"), 1),
        (refusal("ProvisionedThroughputExceededException"), 1),
        (refusal("TransactionInProgressException"), 1),
    ],
)
def test_transient_errors_are_retried_after_pauses_that_double(
    aws_at: AwsAt, runner: asyncio.Runner, provider: Provider, pauses: list[float], answer: Answer, longest: float
) -> None:
    provider.answers(answer, answer, ROW)

    assert runner.run(get(aws_at(provider.url))) == {"turns": {"N": "7"}}
    assert len(pauses) == 2
    assert all(0 < pause <= limit for pause, limit in zip(pauses, (longest, 2 * longest), strict=True))


@pytest.mark.parametrize("answer", [refusal("InternalServerError", 500), refusal("ThrottlingException")])
def test_a_persistent_error_is_raised_after_three_attempts(
    aws_at: AwsAt, runner: asyncio.Runner, provider: Provider, pauses: list[float], answer: Answer
) -> None:
    provider.answers(answer)

    with pytest.raises(ClientError):
        runner.run(get(aws_at(provider.url)))

    assert (len(provider.received), len(pauses)) == (3, 2)


@pytest.mark.parametrize(
    "answer",
    [refusal("ConditionalCheckFailedException"), refusal("AccessDeniedException", 403), says("<html>", 404)],
)
def test_a_refusal_is_raised_at_once(
    aws_at: AwsAt, runner: asyncio.Runner, provider: Provider, pauses: list[float], answer: Answer
) -> None:
    provider.answers(answer)

    with pytest.raises(ClientError):
        runner.run(get(aws_at(provider.url)))

    assert (len(provider.received), pauses) == (1, [])


def test_a_redirect_is_not_followed(aws_at: AwsAt, runner: asyncio.Runner, provider: Provider) -> None:
    provider.answers(redirects(provider.url), ROW)

    with pytest.raises(ClientError):
        runner.run(get(aws_at(provider.url)))
    assert len(provider.received) == 1


@pytest.mark.parametrize("chunked", [True, False])
def test_a_response_without_end_is_neither_read_to_its_end_nor_requested_again(
    aws_at: AwsAt, runner: asyncio.Runner, provider: Provider, *, chunked: bool
) -> None:
    flood = Flood(chunked=chunked)
    provider.answers(flood)

    with pytest.raises(UnreadableResponse):
        runner.run(get(aws_at(provider.url)))
    assert len(provider.received) == 1
    assert flood.sent < FLOOD_BYTES


def test_a_silent_server_is_asked_three_times(
    aws_at: AwsAt, runner: asyncio.Runner, provider: Provider, pauses: list[float]
) -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    provider.answers(silent)

    with pytest.raises((ReadTimeoutError, ConnectTimeoutError)):
        runner.run(get(aws_at(provider.url, seconds=LONG / 4, time_limit_seconds=0.2)))
    assert len(pauses) == 2


def test_an_unreachable_server_is_an_error(
    aws_at: AwsAt, runner: asyncio.Runner, closed_port: int, pauses: list[float]
) -> None:
    with pytest.raises(EndpointConnectionError):
        runner.run(get(aws_at(f"http://127.0.0.1:{closed_port}")))
    assert len(pauses) == 2


# ---- Deadlines --------------------------------------------------------------------------------------


def cancel(task: "asyncio.Task[Any]") -> None:
    task.cancel()


def let_the_time_limit_pass(_: "asyncio.Task[Any]") -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MovableLoop)
    loop.let_pass(DEADLINE + 1)


@pytest.mark.parametrize("leave", [cancel, let_the_time_limit_pass])
def test_a_thread_that_pauses_while_its_caller_leaves_sends_nothing_afterwards(
    aws_at: AwsAt,
    runner: asyncio.Runner,
    provider: Provider,
    sleep_by: Callable[[Sleep], None],
    leave: Callable[["asyncio.Task[Any]"], None],
) -> None:
    """On Lambda the thread may be frozen in its pause, and continue during the next invocation."""
    paused, resume = threading.Event(), threading.Event()

    def pause(_: float) -> None:
        paused.set()
        resume.wait(LONG)

    async def invocations(aws: AwsClient) -> None:
        writing = asyncio.create_task(put(aws))
        await asyncio.to_thread(paused.wait, LONG)
        leave(writing)
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await writing
        assert await get(aws) == {"turns": {"N": "7"}}  # the next invocation
        resume.set()
        await asyncio.get_running_loop().shutdown_default_executor()  # waits for the thread

    sleep_by(pause)
    provider.answers(refusal("InternalServerError", 500), ROW)

    runner.run(invocations(aws_at(provider.url)))

    assert operations(provider) == ["PutItem", "GetItem"]


def test_a_request_is_refused_if_it_might_still_be_connecting_at_the_deadline(
    aws_at: AwsAt, runner: asyncio.Runner, provider: Provider
) -> None:
    provider.answers(ROW)

    with pytest.raises(DeadlinePassed):
        runner.run(put(aws_at(provider.url, seconds=LONG - 1, time_limit_seconds=LONG)))
    assert provider.received == []


async def requested(aws: AwsClient, _: ThreadPoolExecutor) -> None:
    await put(aws)


async def called(aws: AwsClient, threads: ThreadPoolExecutor) -> None:
    with ThreadPoolExecutor(1) as own:
        call = own.submit(aws.call, threads, lambda: aws.boto3_client.put_item(TableName="rows", Item=KEY))  # type: ignore[attr-defined]
        await asyncio.wrap_future(call)


@pytest.mark.parametrize("send", [requested, called])
def test_a_request_whose_thread_starts_after_the_deadline_is_not_sent(
    aws_at: AwsAt,
    runner: asyncio.Runner,
    provider: Provider,
    send: Callable[[AwsClient, ThreadPoolExecutor], Coroutine[Any, Any, None]],
) -> None:
    released = threading.Event()

    async def work() -> None:
        loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor(1)
        loop.set_default_executor(threads)
        threads.submit(released.wait, LONG)
        with pytest.raises(TimeoutError) as raised:
            await send(aws_at(provider.url, seconds=0.2, time_limit_seconds=0.1), threads)
        assert raised.type is TimeoutError  # not DeadlinePassed, which the late thread raises
        released.set()
        await loop.shutdown_default_executor()  # waits for the thread

    provider.answers(ROW)
    runner.run(work())

    assert provider.received == []


def test_requests_that_hang_do_not_block_the_next_one(aws_at: AwsAt) -> None:
    async def hang_forty_then_get() -> Any:
        provider = Provider()
        await provider.start()
        provider.answers(*[hangs] * HUNG, ROW)
        aws = aws_at(provider.url)
        hung = [asyncio.create_task(get(aws)) for _ in range(HUNG)]
        async with asyncio.timeout(LONG):
            while len(provider.received) < HUNG:  # noqa: ASYNC110 (the provider has no event for this)
                await asyncio.sleep(0.01)
        for task in hung:
            task.cancel()
        try:
            async with asyncio.timeout(LONG):
                return await get(aws)
        finally:
            await provider.stop()  # ends the threads

    with asyncio.Runner(loop_factory=new_event_loop) as container:
        assert container.run(hang_forty_then_get()) == {"turns": {"N": "7"}}


# ---- Responses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [says(body) for body in ("", "<html>", '{"Item": {"turns": {"N": "7"}}', "[]", "null")] + [breaks_off]
)
def test_an_unreadable_response_is_an_error(
    aws_at: AwsAt, runner: asyncio.Runner, provider: Provider, answer: Answer
) -> None:
    provider.answers(answer)

    with pytest.raises(UnreadableResponse):
        runner.run(get(aws_at(provider.url)))


def test_an_unreadable_response_of_the_queue_is_an_error(
    aws_at: AwsAt, runner: asyncio.Runner, provider: Provider
) -> None:
    provider.answers(says("<html>"))
    sqs = aws_at(provider.url, "sqs")

    with pytest.raises(UnreadableResponse):
        runner.run(sqs.request("send_message", QueueUrl=provider.url, MessageBody="1"))


ATTRIBUTES = {
    "text": {"S": "é"},
    "number": {"N": "1.50"},
    "bytes": {"B": "AQID"},
    "flag": {"BOOL": False},
    "nothing": {"NULL": True},
    "list": {"L": [{"S": "a"}, {"M": {"deep": {"L": [{"N": "1"}]}}}]},
    "map": {"M": {"inner": {"S": ""}, "empty": {"M": {}}}},
    "texts": {"SS": ["a", "b"]},
    "numbers": {"NS": ["1", "2"]},
    "blobs": {"BS": ["AQID", ""]},
    "of a type that boto3 does not know": {"VECTOR": ["1"]},
    "without a value": {"S": None},
    "missing": None,
}


def test_attribute_values_are_read_as_boto3_reads_them(
    aws_at: AwsAt, runner: asyncio.Runner, provider: Provider
) -> None:
    provider.answers(says(json.dumps({"Item": ATTRIBUTES}), content_type="application/x-amz-json-1.0"))
    of_boto3 = boto3.client("dynamodb", endpoint_url=provider.url)

    read = runner.run(get(aws_at(provider.url)))

    assert read == runner.run(get(AwsClient(of_boto3)))
    assert read["map"] == ATTRIBUTES["map"]
    assert read["blobs"] == {"BS": [b"\1\2\3", b""]}


def test_a_response_without_content_may_be_empty(aws_at: AwsAt, runner: asyncio.Runner, provider: Provider) -> None:
    provider.answers(says(""))
    sqs = aws_at(provider.url, "sqs")

    runner.run(sqs.request("change_message_visibility", QueueUrl=provider.url, ReceiptHandle="1", VisibilityTimeout=1))


# ---- Connections ------------------------------------------------------------------------------------


def test_a_connection_is_reused(aws_at: AwsAt, runner: asyncio.Runner, provider: Provider) -> None:
    provider.answers(ROW)
    aws = aws_at(provider.url)

    for _ in range(5):
        runner.run(get(aws))

    assert provider.connections == 1


@pytest.mark.parametrize("end", [hangs_up, resets])
def test_a_dead_connection_is_replaced(
    aws_at: AwsAt, runner: asyncio.Runner, provider: Provider, pauses: list[float], end: Answer
) -> None:
    provider.answers(ROW, end, ROW)
    aws = aws_at(provider.url)
    runner.run(get(aws))

    assert runner.run(get(aws)) == {"turns": {"N": "7"}}
    assert (len(provider.received), len(pauses)) == (3, 1)


@pytest.fixture
def tls(runner: asyncio.Runner, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a server with TLS, and the certificate to trust."""
    made = loopback_tls(tmp_path)
    app = web.Application()
    app.router.add_post("/", ROW)
    server = serving(app, tls=made.server)
    yield runner.run(server.__aenter__()), made.ca_file
    runner.run(server.__aexit__(None, None, None))


def test_a_trusted_certificate_is_accepted(
    tls: tuple[str, Path], aws_at: AwsAt, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, ca_file = tls
    monkeypatch.setenv("AWS_CA_BUNDLE", str(ca_file))

    assert runner.run(get(aws_at(url))) == {"turns": {"N": "7"}}


def test_an_untrusted_certificate_is_refused(
    tls: tuple[str, Path], aws_at: AwsAt, runner: asyncio.Runner, pauses: list[float]
) -> None:
    with pytest.raises(SSLError):
        runner.run(get(aws_at(tls[0])))
    assert len(pauses) == 2


# ---- Defaults ----


def test_a_read_takes_two_seconds_at_most_and_a_request_eight_with_three_attempts() -> None:
    client = AwsClient(aws.client("dynamodb"))
    config: Any = client.boto3_client.meta.config

    assert (config.connect_timeout, config.read_timeout, client.seconds) == (2.0, 2.0, 8.0)
    assert config.retries == {"mode": "standard", "total_max_attempts": 3}
    assert config.max_pool_connections == 32
