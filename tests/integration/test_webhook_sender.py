"""Requests with events to webhook endpoints: each has a connection of its own, and counts by its status."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from pi_voice.adapters.webhook_sender import MAX_RESPONSE_BYTES, WebhookSender
from pi_voice.domain.webhook_deliveries import TRY_SECONDS
from pi_voice.ports import Sent, SignedRequest
from tests.integration.provider import FLOOD_BYTES, Flood, Provider, breaks_off, says, stalls
from tests.integration.senders import BODY, EVENT_ID, LOCAL, SECRET, RawServers, let_pass, request_to

Send = Callable[[str], Sent]


@pytest.fixture
def send(runner: asyncio.Runner) -> Send:
    """Send a request by a sender for one machine."""
    return lambda url: runner.run(WebhookSender(LOCAL).send(request_to(url)))


def test_a_request_has_these_headers_and_no_others(runner: asyncio.Runner, provider: Provider) -> None:
    provider.answers(says(""))
    sender = WebhookSender(LOCAL, clock=lambda: 1_800_000_000.9)

    runner.run(sender.send(request_to(provider.url)))

    [received] = provider.received
    signature = Webhook(SECRET).sign(EVENT_ID, datetime.fromtimestamp(1_800_000_000, UTC), BODY.decode())
    assert dict(received.headers) == {
        "Host": provider.authority,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "Content-Length": str(len(BODY)),
        "Content-Type": "application/json",
        "User-Agent": "pi-voice/1",
        "webhook-id": EVENT_ID,
        "webhook-timestamp": "1800000000",
        "webhook-signature": signature,
    }


def test_a_session_of_three_megabytes_is_sent_as_it_is(runner: asyncio.Runner, provider: Provider) -> None:
    provider.answers(says(""))
    body = json.dumps({"said": "für 4 ☎" * 200_000}, ensure_ascii=False).encode()

    sent = runner.run(WebhookSender(LOCAL).send(SignedRequest(provider.url, EVENT_ID, body, (SECRET,))))

    assert sent.error is None
    [received] = provider.received
    assert len(body) > 2_000_000
    assert (received.body, received.headers["Content-Length"]) == (body, str(len(body)))
    Webhook(SECRET).verify(received.body, dict(received.headers))


def test_each_request_has_a_connection_of_its_own(send: Send, provider: Provider) -> None:
    provider.answers(says(""))

    for _ in range(3):
        send(provider.url)

    assert provider.connections == 3


@pytest.mark.parametrize("flood", [Flood(chunked=False), Flood(chunked=True)])
def test_one_kilobyte_of_a_response_of_256_megabytes_is_read(send: Send, provider: Provider, flood: Flood) -> None:
    provider.answers(flood)

    sent = send(provider.url)

    assert (sent.http_status, sent.error) == (200, None)
    assert sent.response == b" " * MAX_RESPONSE_BYTES
    assert flood.sent < FLOOD_BYTES / 4


def test_a_compressed_response_is_not_unpacked(send: Send, provider: Provider) -> None:
    async def claims_gzip(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"not gzip", headers={"Content-Encoding": "gzip"})

    provider.answers(claims_gzip)

    assert send(provider.url).response == b"not gzip"


def test_a_response_that_does_not_end_counts_by_its_status(send: Send, provider: Provider) -> None:
    provider.answers(stalls)

    sent = send(provider.url)

    assert (sent.http_status, sent.error, sent.response) == (200, None, b"{")
    assert sent.milliseconds >= TRY_SECONDS * 1000


def test_a_response_that_breaks_off_counts_by_its_status(send: Send, provider: Provider) -> None:
    provider.answers(breaks_off)

    assert (send(provider.url)).error is None


def test_a_receiver_that_sends_its_response_byte_by_byte_is_cut_off_after_15_seconds(
    send: Send, raw: RawServers
) -> None:
    written = []

    async def drips(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for letter in b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello":
            writer.write(bytes([letter]))
            await writer.drain()
            written.append(letter)
            for _turn in range(5):  # until the client reads it
                await asyncio.sleep(0)
            let_pass(1.0)

    sent = send(raw(drips))

    assert (sent.http_status, sent.error) == (None, "timeout")
    assert len(written) < 20


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 65_536,
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 5_000,
        b"HTTP/1.1 " + b"2" * 65_536,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"\x00" * 65_536,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 65_536,
    ],
)
def test_a_receiver_that_sends_headers_without_end_has_failed(send: Send, raw: RawServers, part: bytes) -> None:
    written = 0

    async def floods(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while written < 2**26:
            writer.write(part)
            await writer.drain()
            written += len(part)
            let_pass(0.01)

    sent = send(raw(floods))

    assert sent.error in ("connection_failed", "timeout", None)
    assert (sent.error is None) == (sent.http_status == 200)
    assert written < 2**26
