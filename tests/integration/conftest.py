"""Fixtures for the adapters: DynamoDB by moto or a real one, and test servers on loopback."""

import asyncio
import io
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import boto3
import pytest

from pi_voice.adapters.aws import ATTEMPTS, AwsClient, client
from pi_voice.adapters.http_client import HttpClient
from pi_voice.logs import logger
from tests.integration.provider import Provider
from tests.integration.senders import RawServers, RawServing
from tests.integration.store import Store, Tables
from tests.support.moto_server import MotoServer
from tests.support.moving_clock import MovableLoop
from tests.support.patience import DEADLINE, LONG

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

AwsAt = Callable[..., AwsClient]

_ENDPOINT = "AWS_ENDPOINT_URL_DYNAMODB"
_MADE_UP = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[pytest.MonkeyPatch]:
    """Ignore this machine's accounts, profiles and proxies, unless a real DynamoDB is configured."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in _MADE_UP.items():
            if not (os.environ.get(_ENDPOINT) and os.environ.get(name)):
                monkeypatch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield monkeypatch


@pytest.fixture(scope="module")
def moto(environment: pytest.MonkeyPatch) -> Iterator[MotoServer]:
    """AWS by moto, with the environment pointing to it."""
    with MotoServer.running() as moto, environment.context() as patched:
        for name, url in moto.variables.items():
            patched.setenv(name, url)
        yield moto


@pytest.fixture(scope="module")
def dynamodb(request: pytest.FixtureRequest) -> "DynamoDBClient":
    """A boto3 client for the DynamoDB at AWS_ENDPOINT_URL_DYNAMODB, else for moto, to inspect stored rows."""
    if not os.environ.get(_ENDPOINT):
        request.getfixturevalue("moto")
    else:
        request.getfixturevalue("environment")
    return boto3.client("dynamodb")


@pytest.fixture(scope="module")
def aws(dynamodb: "DynamoDBClient") -> AwsClient:
    """The product's client for the same DynamoDB."""
    del dynamodb  # its fixture pointed the environment to it
    return AwsClient(client("dynamodb", time_limit_seconds=LONG), DEADLINE)


@pytest.fixture
def aws_at(monkeypatch: pytest.MonkeyPatch) -> AwsAt:
    """Create clients for other endpoints."""

    def aws_at(
        url: str,
        service: Literal["dynamodb", "sqs"] = "dynamodb",
        seconds: float = DEADLINE,
        time_limit_seconds: float = LONG,
        attempts: int = ATTEMPTS,
    ) -> AwsClient:
        with monkeypatch.context() as environment:
            environment.setenv(f"AWS_ENDPOINT_URL_{service.upper()}", url)
            return AwsClient(client(service, attempts, time_limit_seconds), seconds)

    return aws_at


@pytest.fixture
def store(dynamodb: "DynamoDBClient", aws: AwsClient) -> Iterator[Store]:
    """The adapters on empty tables of the template."""
    tables = Tables(dynamodb)
    yield Store(dynamodb, aws, tables)
    tables.drop()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One event loop, as in a container."""
    with asyncio.Runner(loop_factory=MovableLoop) as runner:
        yield runner


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A loopback port that refuses connections. It stays bound, so that no other process can use it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def provider(runner: asyncio.Runner) -> Iterator[Provider]:
    """A loopback server that records requests and sends prepared responses."""
    provider = Provider()
    runner.run(provider.start())
    yield provider
    runner.run(provider.stop())


@pytest.fixture
def raw(runner: asyncio.Runner) -> Iterator[RawServers]:
    """Start servers that write what they want, and return their URLs."""
    serving = RawServing()
    yield lambda serve, tls=None: runner.run(serving.start(serve, tls))
    runner.run(serving.stop())


@pytest.fixture
def web(runner: asyncio.Runner) -> Iterator[HttpClient]:
    """The HTTP session that the adapters share."""
    web = HttpClient()
    yield web
    runner.run(web.close())


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All log lines in Lambda's format: ours, and the SDKs' at INFO and above."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logger.registered_formatter)
    root = logging.getLogger()  # our logger's lines propagate to it
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)
