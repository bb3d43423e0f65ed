"""The idempotency store while DynamoDB responds byte by byte, which restarts the read timeout of botocore."""

import asyncio
import io
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from pi_voice.adapters.aws import AwsClient, client
from pi_voice.adapters.idempotency import Idempotency
from pi_voice.domain.errors import SessionNotActive, StorageError
from pi_voice.domain.idempotency import IdempotentRequest
from tests.integration.conftest import AwsAt
from tests.integration.provider import Provider, says

DONE = says("{}", content_type="application/x-amz-json-1.0")
CONTEXT: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 30_000)


async def trickles(request: web.Request) -> web.StreamResponse:
    """Respond byte by byte, for minutes."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    for _ in range(1000):
        await response.write(b" ")
        await asyncio.sleep(0.2)
    return response


@pytest.fixture
def keys(provider: Provider, aws_at: AwsAt) -> Idempotency:
    return Idempotency(aws_at(provider.url), "idempotency")


def limit_requests(keys: Idempotency) -> None:
    """Limit the following requests to three seconds, with attempts in the first one only."""
    keys._store._dynamodb = AwsClient(client("dynamodb"), seconds=3.0)  # noqa: SLF001 (earlier ones need longer)


def once(runner: asyncio.Runner, keys: Idempotency, done: list[str], error: Exception | None = None) -> str:
    """Run the work once in a thread while the provider's loop runs, and limit the requests after it."""

    def work() -> str:
        limit_requests(keys)
        done.append("the id")
        if error is not None:
            raise error
        return "the id"

    request = IdempotentRequest("acme", "POST /agents", "a-key", b"{}")
    return runner.run(asyncio.to_thread(keys.once, request, CONTEXT, work))


def test_a_timeout_while_locking_the_key_prevents_the_work(
    provider: Provider, runner: asyncio.Runner, keys: Idempotency, logged: io.StringIO
) -> None:
    provider.answers(trickles)
    limit_requests(keys)
    done: list[str] = []

    with pytest.raises(StorageError):
        once(runner, keys, done)

    assert done == []
    assert "TimeoutError" in logged.getvalue()


def test_a_timeout_while_storing_the_result_still_returns_it(
    provider: Provider, runner: asyncio.Runner, keys: Idempotency
) -> None:
    provider.answers(DONE, trickles)
    done: list[str] = []

    assert once(runner, keys, done) == "the id"
    assert done == ["the id"]


def test_a_timeout_while_releasing_the_key_still_raises_the_error_of_the_work(
    provider: Provider, runner: asyncio.Runner, keys: Idempotency
) -> None:
    provider.answers(DONE, trickles)

    with pytest.raises(SessionNotActive):
        once(runner, keys, [], SessionNotActive())
