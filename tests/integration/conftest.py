"""What the adapters meet in these tests: DynamoDB by moto or for real, and providers of our own on loopback."""

import asyncio
import io
import logging
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from moto import mock_aws

from pi_voice.adapters import dynamodb as adapter
from pi_voice.adapters.web import Web
from pi_voice.logs import logger
from tests.integration.provider import Provider
from tests.integration.store import Store, Tables

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

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
    """Keep this machine's accounts, profiles and proxies out, except where a real DynamoDB is asked for."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in _MADE_UP.items():
            if not (os.environ.get(_ENDPOINT) and os.environ.get(name)):
                monkeypatch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield monkeypatch


@pytest.fixture(scope="module")
def dynamodb(environment: pytest.MonkeyPatch) -> Iterator["DynamoDBClient"]:
    """The product's own client, of the DynamoDB that AWS_ENDPOINT_URL_DYNAMODB names, else of moto in this process."""
    if os.environ.get(_ENDPOINT):
        yield adapter.client()
        return
    environment.delenv(_ENDPOINT, raising=False)
    with mock_aws():
        client = adapter.client()
        _one_request_at_a_time(client)
        yield client


def _one_request_at_a_time(client: "DynamoDBClient") -> None:
    """Let moto finish each request before the next: a condition and its write are two steps to it, not one."""
    turn = threading.Lock()
    client.meta.events.register_first("before-send.dynamodb", lambda **_: _take(turn))
    client.meta.events.register_last("response-received.dynamodb", lambda **_: turn.release())


def _take(turn: threading.Lock) -> None:
    turn.acquire()


@pytest.fixture
def store(dynamodb: "DynamoDBClient") -> Iterator[Store]:
    """The template's tables, empty, and the adapters over them."""
    tables = Tables(dynamodb)
    yield Store(dynamodb, tables)
    tables.drop()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One event loop, as a container has one."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def provider(runner: asyncio.Runner) -> Iterator[Provider]:
    """A server on loopback that keeps what it is sent and answers as it is told."""
    provider = Provider()
    runner.run(provider.start())
    yield provider
    runner.run(provider.stop())


@pytest.fixture
def web(runner: asyncio.Runner) -> Iterator[Web]:
    """The HTTP session that the adapters share."""
    web = Web()
    yield web
    runner.run(web.close())


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All log lines as Lambda would keep them: ours, and the SDKs' from INFO on."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logger.registered_formatter)
    root = logging.getLogger()  # where our logger's lines arrive as well
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)
