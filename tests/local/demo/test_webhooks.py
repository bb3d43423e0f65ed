"""The receiver of `make demo`: what it verifies, and what it says of deliveries."""

import os
from asyncio import to_thread
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import aiohttp
import pytest

from demo.voice_api import VoiceApi
from demo.webhooks import Receiver, receiving
from local.running import LocalApi, running_api
from tests.support.webhooks import BODY, EVENTS_OF_A_CALL, SECONDS, WRONG_SIGNATURES, ask, signed, small_call

pytestmark = pytest.mark.anyio

CLEAN: Final = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalApi]:
    with running_api(CLEAN) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


async def test_the_deliveries_of_a_call_come_in_order_and_verified(
    stack: LocalApi, http: aiohttp.ClientSession
) -> None:
    async with receiving(VoiceApi(http, stack.base_url, stack.api_key)) as receiver:
        session_id = await to_thread(small_call, stack)
        deliveries = await receiver.deliveries(session_id, EVENTS_OF_A_CALL, SECONDS)

    assert [each["type"] for each in deliveries] == ["session.started", "session.completed", "extraction.succeeded"]
    assert {each["status"] for each in deliveries} == {"succeeded"}
    assert receiver.verified.keys() == {each["event_id"] for each in deliveries}
    assert ask(stack, "GET", "/webhook-endpoints")["data"] == []


async def test_deliveries_that_do_not_come_are_waited_for_within_the_limit(
    stack: LocalApi, http: aiohttp.ClientSession
) -> None:
    async with receiving(VoiceApi(http, stack.base_url, stack.api_key)) as receiver:
        assert await receiver.deliveries("none", {"session.completed"}, seconds=0.5) == []


async def test_a_forged_or_malformed_signature_is_401_and_not_verified(
    stack: LocalApi, http: aiohttp.ClientSession
) -> None:
    async with receiving(VoiceApi(http, stack.base_url, stack.api_key)) as receiver:
        statuses = []
        for signature in WRONG_SIGNATURES:
            headers = {**signed("forged"), "webhook-signature": signature}
            async with http.post(receiver.url, data=BODY, headers=headers) as response:
                statuses.append(response.status)

    assert set(statuses) == {401}
    assert receiver.verified == {}


@pytest.mark.parametrize(
    ("delivery", "line"),
    [
        ({"status": "succeeded", "event_id": "known"}, "session.started       signature verified  12 ms"),
        ({"status": "succeeded", "event_id": "other"}, "session.started       signature not verified  12 ms"),
        (
            {"status": "succeeded", "event_id": "with calls"},
            "session.started       signature verified  12 ms  tool calls: find_slots, hang_up",
        ),
        ({"status": "pending", "error": "timeout"}, "session.started       pending timeout"),
        ({"status": "cancelled"}, "session.started       cancelled"),
    ],
)
async def test_a_delivery_is_described_in_one_line(delivery: dict[str, Any], line: str) -> None:
    async with aiohttp.ClientSession() as http:
        calls = [{"name": "find_slots"}, {"name": "hang_up"}]
        events: dict[str, Any] = {"known": {"data": {"tool_calls": []}}, "with calls": {"data": {"tool_calls": calls}}}
        receiver = Receiver(VoiceApi(http, "http://127.0.0.1:9", "any"), verified=events)
        known = {"type": "session.started", "event_id": "e", "error": None, "milliseconds": 12}

        assert receiver.line({**known, **delivery}) == line
