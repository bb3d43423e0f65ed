"""The keys' store while DynamoDB answers byte by byte: botocore alone would wait for the last one."""

import asyncio
import io
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from pi_voice.adapters.idempotency import Idempotency
from pi_voice.domain.errors import SessionNotActive, StorageError
from pi_voice.domain.idempotency import IdempotentRequest
from tests.integration.provider import Provider, says
from tests.patience import LONG

DONE = says("{}", content_type="application/x-amz-json-1.0")
CONTEXT: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 30_000)


async def trickles(request: web.Request) -> web.StreamResponse:
    """Answer byte by byte, for minutes."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    for _ in range(1000):
        await response.write(b" ")
        await asyncio.sleep(0.2)
    return response


@pytest.fixture
def keys(provider: Provider, environment: pytest.MonkeyPatch) -> Idempotency:
    with environment.context() as led_there:
        led_there.setenv("AWS_ENDPOINT_URL_DYNAMODB", provider.url)
        return Idempotency("idempotency", time_limit_seconds=LONG)


def lose_patience(keys: Idempotency) -> None:
    """Wait for nothing that is asked from now on for longer than a second."""
    keys._store._time_limit_seconds = 1.0  # noqa: SLF001 (what comes before may take its time)


def once(runner: asyncio.Runner, keys: Idempotency, done: list[str], error: Exception | None = None) -> str:
    """Do something once, while the provider's loop runs, and have no patience any more when it is done."""

    def work() -> str:
        lose_patience(keys)
        done.append("the id")
        if error is not None:
            raise error
        return "the id"

    request = IdempotentRequest("acme", "POST /agents", "a-key", b"{}")
    return runner.run(asyncio.to_thread(keys.once, request, CONTEXT, work))


def test_a_key_that_cannot_be_taken_in_time_stops_the_work_before_it_begins(
    provider: Provider, runner: asyncio.Runner, keys: Idempotency, logged: io.StringIO
) -> None:
    provider.answers(trickles)
    lose_patience(keys)
    done: list[str] = []

    with pytest.raises(StorageError):
        once(runner, keys, done)

    assert done == []
    assert "TimeoutError" in logged.getvalue()


def test_what_was_done_is_answered_where_that_cannot_be_noted_in_time(
    provider: Provider, runner: asyncio.Runner, keys: Idempotency
) -> None:
    provider.answers(DONE, trickles)
    done: list[str] = []

    assert once(runner, keys, done) == "the id"
    assert done == ["the id"]


def test_what_was_refused_is_told_where_the_key_cannot_be_let_go_in_time(
    provider: Provider, runner: asyncio.Runner, keys: Idempotency
) -> None:
    provider.answers(DONE, trickles)

    with pytest.raises(SessionNotActive):
        once(runner, keys, [], SessionNotActive())
