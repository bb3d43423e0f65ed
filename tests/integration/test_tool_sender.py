"""Requests to the endpoints of server tools: connections that stay open, and receivers that misbehave."""

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from pi_voice.adapters.tool_sender import ToolSender
from pi_voice.domain.tool_calls import MAX_RESPONSE_BYTES
from pi_voice.ports import Sent
from tests.integration.provider import FLOOD_BYTES, Flood, Provider, compresses, hangs, says, stalls
from tests.integration.senders import (
    BODY,
    EVENT_ID,
    LOCAL,
    SECRET,
    RawServers,
    Scripted,
    finding,
    let_pass,
    request_to,
)
from tests.support.tls import loopback_tls

SECONDS = 10.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

Send = Callable[[str], Sent]


@pytest.fixture
def sender(runner: asyncio.Runner) -> Iterator[ToolSender]:
    sender = ToolSender(LOCAL)
    yield sender
    runner.run(sender.close())


@pytest.fixture
def send(runner: asyncio.Runner, sender: ToolSender) -> Send:
    """Send a request as in a container, whose event loop stands still between its requests."""
    return lambda url: runner.run(sender.send(request_to(url), SECONDS))


def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Send a TCP reset, as a NAT gateway does for an expired connection."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def write_and_hang_up(answer: bytes) -> Callable[[asyncio.StreamWriter], None]:
    def act(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    return act


async def settle() -> None:
    """Let everything happen that has been caused."""
    for _ in range(50):
        await asyncio.sleep(0)


# ---- Connections ------------------------------------------------------------------------------------


def test_requests_to_a_host_use_one_connection(send: Send, provider: Provider) -> None:
    provider.answers(says('{"free": true}'))

    sent = [send(f"{provider.url}/tools/{number}") for number in range(3)]

    assert [(each.http_status, each.error, each.response) for each in sent] == [(200, None, b'{"free": true}')] * 3
    assert [received.path for received in provider.received] == ["/tools/0", "/tools/1", "/tools/2"]
    assert provider.connections == 1


def test_a_request_has_these_headers_and_no_others(runner: asyncio.Runner, provider: Provider) -> None:
    provider.answers(says(""))
    sender = ToolSender(LOCAL, clock=lambda: 1_800_000_000.9)

    runner.run(sender.send(request_to(provider.url), SECONDS))
    runner.run(sender.close())

    [received] = provider.received
    signature = Webhook(SECRET).sign(EVENT_ID, datetime.fromtimestamp(1_800_000_000, UTC), BODY.decode())
    assert dict(received.headers) == {
        "Host": provider.authority,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Content-Length": str(len(BODY)),
        "Content-Type": "application/json",
        "User-Agent": "pi-voice/1",
        "webhook-id": EVENT_ID,
        "webhook-timestamp": "1800000000",
        "webhook-signature": signature,
    }


@pytest.mark.parametrize("status", [204, 404, 500])
def test_a_connection_stays_open_after_any_whole_response(send: Send, provider: Provider, status: int) -> None:
    provider.answers(says("" if status == 204 else '{"error": "x"}', status))

    for _ in range(2):
        send(provider.url)

    assert provider.connections == 1


def test_hosts_share_no_connection_even_at_the_same_address(send: Send, provider: Provider) -> None:
    provider.answers(says("{}"))
    other_host = provider.url.replace("127.0.0.1", "localhost")

    for url in (provider.url, other_host, provider.url, other_host):
        assert send(url).error is None

    assert provider.connections == 2


def test_requests_at_the_same_time_have_connections_of_their_own(
    runner: asyncio.Runner, sender: ToolSender, raw: RawServers
) -> None:
    receiver = Scripted([OK, OK])
    url = raw(receiver)

    async def send_both() -> list[Sent]:
        return await asyncio.gather(*(sender.send(request_to(url), SECONDS) for _ in range(2)))

    sent = [*runner.run(send_both()), *runner.run(send_both())]

    assert [each.error for each in sent] == [None] * 4
    assert sorted(receiver.used) == [0, 0, 1, 1]


def test_a_connection_that_was_closed_while_idle_is_not_used(
    runner: asyncio.Runner, send: Send, raw: RawServers
) -> None:
    receiver = Scripted([write_and_hang_up(OK)])
    url = raw(receiver)

    for _ in range(3):
        assert send(url).error is None
        runner.run(settle())

    assert receiver.used == [0, 1, 2]


@pytest.mark.parametrize("answer", [OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), OK.replace(b"1.1", b"1.0")])
def test_a_connection_that_the_response_ends_is_closed(
    runner: asyncio.Runner, send: Send, raw: RawServers, answer: bytes
) -> None:
    receiver = Scripted([answer, OK])
    url = raw(receiver)

    for _ in range(2):
        assert send(url).error is None

    runner.run(settle())
    assert receiver.used == [0, 1]
    assert receiver.open == set()


def test_the_rest_of_a_response_is_not_taken_for_the_next_one(send: Send, raw: RawServers) -> None:
    receiver = Scripted([OK + b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"forged": 1}'])
    url = raw(receiver)

    assert [send(url).response for _ in range(2)] == [b"{}", b"{}"]
    assert receiver.used == [0, 1]


def test_a_new_connection_resolves_and_checks_its_host_anew(runner: asyncio.Runner, provider: Provider) -> None:
    provider.answers(says("{}"), says("{}", 200), says("{}"))
    lookup, asked = finding("127.0.0.1", "169.254.169.254")
    sender = ToolSender(LOCAL, lookup)
    url = provider.url.replace("127.0.0.1", "localhost")

    errors = [runner.run(sender.send(request_to(url), SECONDS)).error for _ in range(2)]
    runner.run(sender.close())
    errors.append(runner.run(sender.send(request_to(url), SECONDS)).error)
    runner.run(sender.close())

    assert errors == [None, None, "address_refused"]
    assert asked == ["localhost", "localhost"]
    assert len(provider.received) == 2


def test_the_url_is_checked_even_if_a_connection_to_its_host_is_open(send: Send, provider: Provider) -> None:
    provider.answers(says("{}"))
    send(provider.url)

    refused = send(provider.url.replace("http://", "http://user@"))

    assert (refused.http_status, refused.error) == (None, "address_refused")
    assert len(provider.received) == 1


# ---- Connections that turn out to be closed ----------------------------------------------------------


@pytest.mark.parametrize("end", [hang_up, reset])
def test_a_request_on_an_open_connection_that_is_closed_without_a_response_is_sent_once_more(
    send: Send, raw: RawServers, end: Callable[[asyncio.StreamWriter], None]
) -> None:
    receiver = Scripted([OK, end], [OK, OK])
    url = raw(receiver)

    send(url)
    sent = send(url)

    assert (sent.http_status, sent.error, sent.response) == (200, None, b"{}")
    assert receiver.used == [0, 0, 1]
    ids = [head.lower().split(b"webhook-id: ")[1].split(b"\r\n")[0] for _, head in receiver.requests]
    assert ids == [EVENT_ID.encode()] * 3
    assert send(url).error is None
    assert receiver.used == [0, 0, 1, 1]  # the new connection stays open


@pytest.mark.parametrize("end", [hang_up, reset])
def test_a_request_is_sent_again_only_once(
    send: Send, raw: RawServers, end: Callable[[asyncio.StreamWriter], None]
) -> None:
    receiver = Scripted([OK, end], [end])
    url = raw(receiver)

    send(url)
    sent = send(url)

    assert (sent.http_status, sent.error) == (None, "connection_failed")
    assert receiver.used == [0, 0, 1]


@pytest.mark.parametrize("end", [hang_up, reset])
def test_a_request_on_a_new_connection_is_not_sent_again(
    send: Send, raw: RawServers, end: Callable[[asyncio.StreamWriter], None]
) -> None:
    receiver = Scripted([end])

    assert send(raw(receiver)).error == "connection_failed"

    assert receiver.used == [0]


@pytest.mark.parametrize("end", [hang_up, reset])
def test_a_request_whose_response_has_begun_is_not_sent_again(
    send: Send, raw: RawServers, end: Callable[[asyncio.StreamWriter], None]
) -> None:
    used = []

    async def breaks_off_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        used.append(0)
        await reader.readuntil(BODY)
        writer.write(OK)
        await reader.readuntil(BODY)
        used.append(1)
        writer.write(OK[:-1])
        await settle()  # until the client has read it
        end(writer)

    url = raw(breaks_off_later)
    send(url)
    sent = send(url)

    assert (sent.error, sent.response) == ("connection_failed", b"")
    assert used == [0, 1]


def test_a_request_is_sent_again_on_a_new_connection_and_not_on_another_idle_one(
    runner: asyncio.Runner, sender: ToolSender, send: Send, raw: RawServers
) -> None:
    receiver = Scripted([OK, hang_up], [OK, hang_up], [OK])
    url = raw(receiver)

    async def send_both() -> None:
        await asyncio.gather(*(sender.send(request_to(url), SECONDS) for _ in range(2)))

    runner.run(send_both())
    sent = send(url)

    assert sent.error is None
    assert (len(receiver.used), receiver.used[-1]) == (4, 2)


def test_both_attempts_have_one_time_limit(runner: asyncio.Runner, sender: ToolSender, raw: RawServers) -> None:
    def hang_up_late(writer: asyncio.StreamWriter) -> None:
        let_pass(SECONDS * 0.6)
        writer.close()

    def be_late(_: asyncio.StreamWriter) -> None:
        let_pass(SECONDS * 0.6)

    receiver = Scripted([OK, hang_up_late], [be_late])
    url = raw(receiver)
    runner.run(sender.send(request_to(url), SECONDS))

    sent = runner.run(sender.send(request_to(url), SECONDS))

    assert (sent.http_status, sent.error) == (None, "timeout")
    assert receiver.used == [0, 0, 1]


@pytest.mark.parametrize("end", [hang_up, reset])
def test_connections_with_tls_stay_open_and_are_replaced_too(
    runner: asyncio.Runner, raw: RawServers, tmp_path: Path, end: Callable[[asyncio.StreamWriter], None]
) -> None:
    tls = loopback_tls(tmp_path)
    receiver = Scripted([OK, OK, end], [OK, write_and_hang_up(OK)], [OK])
    url = raw(receiver, tls.server)
    sender = ToolSender(LOCAL, tls=ssl.create_default_context(cafile=str(tls.ca_file)))

    for used in ([0], [0, 0], [0, 0, 0, 1], [0, 0, 0, 1, 1]):
        assert runner.run(sender.send(request_to(url), SECONDS)).response == b"{}"
        assert receiver.used == used
    runner.run(settle())
    assert runner.run(sender.send(request_to(url), SECONDS)).error is None
    runner.run(sender.close())

    assert receiver.used == [0, 0, 0, 1, 1, 2]


# ---- Whole responses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "error"), [(0, None), (MAX_RESPONSE_BYTES, None), (MAX_RESPONSE_BYTES + 1, "response_too_large")]
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_response_has_at_most_64_kilobytes(
    send: Send, provider: Provider, size: int, error: str | None, status: int
) -> None:
    provider.answers(says(" " * size, status))

    sent = send(provider.url)

    assert sent.http_status == status
    assert sent.error == (error or (None if status == 200 else "http_error"))
    assert len(sent.response) == (0 if error else size)


@pytest.mark.parametrize("flood", [Flood(chunked=False), Flood(chunked=True)])
def test_of_a_response_of_256_megabytes_a_small_part_is_read(
    runner: asyncio.Runner, send: Send, provider: Provider, flood: Flood
) -> None:
    provider.answers(flood)

    sent = send(provider.url)

    assert (sent.http_status, sent.error, sent.response) == (200, "response_too_large", b"")
    runner.run(settle())
    assert flood.sent < FLOOD_BYTES / 4


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{"a":1}\r\n',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"a":1}',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    ],
)
def test_a_response_that_breaks_off_has_failed_with_its_status(send: Send, raw: RawServers, answer: bytes) -> None:
    receiver = Scripted([write_and_hang_up(answer)])

    sent = send(raw(receiver))

    assert (sent.http_status, sent.error, sent.response) == (200, "connection_failed", b"")
    assert receiver.used == [0]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_response_without_length_ends_with_its_connection(send: Send, raw: RawServers, version: bytes) -> None:
    receiver = Scripted([write_and_hang_up(b"HTTP/" + version + b' 200 OK\r\n\r\n{"a": 1}')])

    sent = send(raw(receiver))

    assert (sent.http_status, sent.error, sent.response) == (200, None, b'{"a": 1}')


def test_what_follows_a_response_is_neither_part_of_it_nor_of_the_next(
    runner: asyncio.Runner, send: Send, raw: RawServers
) -> None:
    async def adds_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(OK)
        await settle()  # until the client has read it
        writer.write(b", and more")
        await reader.read()

    url = raw(adds_more)
    first = send(url)
    runner.run(settle())
    second = send(url)

    assert [(each.error, each.response) for each in (first, second)] == [(None, b"{}"), (None, b"{}")]


def test_a_compressed_response_is_not_unpacked(send: Send, provider: Provider) -> None:
    provider.answers(compresses("{}"))

    assert gzip.decompress(send(provider.url).response) == b"{}"


@pytest.mark.parametrize("first", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"])
def test_the_final_response_counts(send: Send, raw: RawServers, first: bytes) -> None:
    receiver = Scripted([first * 3 + OK, OK])
    url = raw(receiver)

    assert [send(url).response for _ in range(2)] == [b"{}", b"{}"]
    assert receiver.used == [0, 0]


def test_a_switch_of_protocols_is_an_error(runner: asyncio.Runner, send: Send, raw: RawServers) -> None:
    receiver = Scripted([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello"])

    sent = send(raw(receiver))

    assert (sent.http_status, sent.error, sent.response) == (101, "http_error", b"")
    runner.run(settle())
    assert receiver.open == set()


# ---- Time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "status"), [(hangs, None), (stalls, 200)])
def test_a_receiver_that_does_not_finish_in_time_has_timed_out(
    send: Send,
    provider: Provider,
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
    status: int | None,
) -> None:
    provider.answers(answer)

    sent = send(provider.url)

    assert (sent.http_status, sent.error, sent.response) == (status, "timeout", b"")
    assert sent.milliseconds >= SECONDS * 1000


@pytest.mark.parametrize("begins_with", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"])
def test_a_receiver_that_sends_a_byte_a_second_has_timed_out(send: Send, raw: RawServers, begins_with: bytes) -> None:
    written = 0

    async def drips(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(begins_with)
        for letter in b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + b" " * 99:
            writer.write(bytes([letter]))
            await writer.drain()
            written += 1
            for _turn in range(5):  # until the client reads it
                await asyncio.sleep(0)
            let_pass(1.0)

    sent = send(raw(drips))

    assert (sent.http_status, sent.error) == (200 if begins_with else None, "timeout")
    assert written < SECONDS + 5


def test_a_receiver_that_never_reads_the_request_has_timed_out(send: Send, raw: RawServers) -> None:
    async def reads_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        let_pass(SECONDS + 1)
        await asyncio.Event().wait()

    sent = send(raw(reads_nothing))

    assert (sent.http_status, sent.error) == (None, "timeout")


@pytest.mark.parametrize(
    ("first", "part"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000),
        (b"", b"\x00" * 65_536),
        (b"HTTP/1.1 ", b"2" * 65_536),
        (b"HTTP/1.1 200 OK\r\nX: ", b"a" * 65_536),
        (b"HTTP/1.1 200 OK\r\n", b"X: a\r\n" * 5_000),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65_536),
        (CHUNKED, b"f" * 65_536),
        (CHUNKED, b"1\r\n \r\n" * 20_000),
        (CHUNKED + b"1;", b"a" * 65_536),
        (CHUNKED + b"0\r\n", b"X: a\r\n" * 5_000),
    ],
)
def test_a_receiver_that_sends_without_end_has_failed(send: Send, raw: RawServers, first: bytes, part: bytes) -> None:
    written = 0

    async def floods(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(first)
        while written < 2**26:
            writer.write(part)
            await writer.drain()
            written += len(part)
            let_pass(0.1)

    sent = send(raw(floods))

    assert sent.error in ("connection_failed", "timeout", "response_too_large")
    assert sent.response == b""
    assert written < 2**26


@pytest.mark.parametrize("answer", [b"", OK[:-1]])
def test_a_cancelled_request_closes_its_connection(
    runner: asyncio.Runner, sender: ToolSender, raw: RawServers, answer: bytes
) -> None:
    receiver = Scripted([answer])
    url = raw(receiver)

    async def cancel() -> set[int]:
        sending = asyncio.create_task(sender.send(request_to(url), SECONDS))
        await settle()
        assert receiver.used == [0]
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await settle()
        return receiver.open

    assert runner.run(cancel()) == set()


def test_closing_the_sender_closes_its_idle_connections(
    runner: asyncio.Runner, sender: ToolSender, send: Send, raw: RawServers
) -> None:
    receiver = Scripted([OK, OK])
    send(raw(receiver))

    async def close() -> set[int]:
        await sender.close()
        await settle()
        return receiver.open

    assert runner.run(close()) == set()
