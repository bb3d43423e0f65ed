"""Requests to webhook endpoints, on servers that misbehave, with a lookup of our own in place of the system's."""

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from pi_voice.adapters.webhook_sender import MAX_RESPONSE_BYTES, WebhookSender
from pi_voice.adapters.webhook_targets import Lookup
from pi_voice.domain.webhook_deliveries import TRY_SECONDS
from pi_voice.domain.webhook_urls import UrlPolicy
from pi_voice.ports import Sent, SignedRequest
from tests.integration.provider import FLOOD_BYTES, Flood, Provider, breaks_off, hangs, hangs_up, resets, says, stalls
from tests.support.moving_clock import MovableLoop
from tests.support.tls import loopback_tls

LOCAL = UrlPolicy(allows_loopback=True)
BODY = json.dumps({"type": "endpoint.test", "timestamp": 1_800_000_000, "data": {"said": "für 4 ☎"}}).encode()
EVENT_ID = "019a0000-0000-7000-8000-0000000000f1"
SECRET, PREVIOUS = "whsec_" + "c2VjcmV0" * 5, "whsec_" + "b2xkb2xk" * 5

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def request_to(url: str, *secrets: str) -> SignedRequest:
    return SignedRequest(url, EVENT_ID, BODY, secrets or (SECRET,))


def finding(*answers: str) -> tuple[Lookup, list[str]]:
    """Make a lookup that finds a list of addresses each time, and record what it was asked for."""
    left, asked = list(answers), []

    async def lookup(host: str, _: int) -> list[str]:
        asked.append(host)
        return left.pop(0).split() if len(left) > 1 else left[0].split()

    return lookup, asked


@pytest.fixture
def send(runner: asyncio.Runner) -> Callable[..., Sent]:
    """Send a request by a sender for one machine."""

    def send(url: str, *secrets: str, sender: WebhookSender | None = None) -> Sent:
        return runner.run((sender or WebhookSender(LOCAL)).send(request_to(url, *secrets)))

    return send


# ---- The request ------------------------------------------------------------------------------------


def test_the_receiver_gets_the_body_with_a_signature_that_its_library_verifies(
    send: Callable[..., Sent], provider: Provider
) -> None:
    provider.answers(says("thanks", 202))

    sent = send(f"{provider.url}/hook?a=b%20c")

    assert (sent.http_status, sent.error, sent.response) == (202, None, b"thanks")
    [received] = provider.received
    assert (received.method, received.path, received.body) == ("POST", "/hook?a=b%20c", BODY)
    assert Webhook(SECRET).verify(received.body, dict(received.headers)) == json.loads(BODY)


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


def test_a_receiver_that_never_reads_the_body_has_timed_out(
    send: Callable[..., Sent], raw: Callable[[Serve], str]
) -> None:
    async def reads_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MovableLoop)
        loop.let_pass(TRY_SECONDS + 1)
        await asyncio.Event().wait()

    sent = send(raw(reads_nothing))

    assert (sent.http_status, sent.error) == (None, "timeout")


def test_during_a_rotation_both_secrets_verify_the_request(send: Callable[..., Sent], provider: Provider) -> None:
    provider.answers(says(""))

    send(provider.url, SECRET, PREVIOUS)

    [received] = provider.received
    for secret in (SECRET, PREVIOUS):
        Webhook(secret).verify(received.body, dict(received.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "b3RoZXJz" * 5).verify(received.body, dict(received.headers))


def test_each_request_has_a_connection_of_its_own(send: Callable[..., Sent], provider: Provider) -> None:
    provider.answers(says(""))

    for _ in range(3):
        send(provider.url)

    assert provider.connections == 3


def test_a_cookie_of_a_response_is_not_sent_with_the_next_request(runner: asyncio.Runner, provider: Provider) -> None:
    async def sets_a_cookie(_: web.Request) -> web.StreamResponse:
        return web.Response(headers={"Set-Cookie": "a=b"})

    provider.answers(sets_a_cookie)
    sender = WebhookSender(LOCAL)
    for _ in range(2):
        runner.run(sender.send(request_to(provider.url)))

    assert [received.headers.get("Cookie") for received in provider.received] == [None, None]


def test_neither_a_proxy_nor_a_netrc_of_the_environment_is_used(
    send: Callable[..., Sent], provider: Provider, closed_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login user password hush\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("NO_PROXY")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    provider.answers(says(""))

    assert send(provider.url).error is None

    [received] = provider.received
    assert "Authorization" not in received.headers


# ---- The response -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_status_of_200_to_299_is_success(send: Callable[..., Sent], provider: Provider, status: int) -> None:
    provider.answers(says("", status))

    sent = send(provider.url)

    assert (sent.http_status, sent.error) == (status, None)
    assert sent.milliseconds >= 0


@pytest.mark.parametrize("status", [400, 401, 404, 410, 429, 500, 503, 599])
def test_any_other_status_is_an_error(send: Callable[..., Sent], provider: Provider, status: int) -> None:
    provider.answers(says("no", status))

    sent = send(provider.url)

    assert (sent.http_status, sent.error, sent.response) == (status, "http_error", b"no")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["http://169.254.169.254/latest/meta-data/", "/elsewhere", ""])
def test_a_redirect_is_not_followed(send: Callable[..., Sent], provider: Provider, status: int, location: str) -> None:
    async def redirects(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": location} if location else {})

    provider.answers(redirects)

    sent = send(provider.url)

    assert (sent.http_status, sent.error) == (status, "redirected")
    assert len(provider.received) == 1


@pytest.mark.parametrize("flood", [Flood(chunked=False), Flood(chunked=True)])
def test_one_kilobyte_of_a_response_of_256_megabytes_is_read(
    send: Callable[..., Sent], provider: Provider, flood: Flood
) -> None:
    provider.answers(flood)

    sent = send(provider.url)

    assert (sent.http_status, sent.error) == (200, None)
    assert sent.response == b" " * MAX_RESPONSE_BYTES
    assert flood.sent < FLOOD_BYTES / 4


def test_a_compressed_response_is_not_unpacked(send: Callable[..., Sent], provider: Provider) -> None:
    async def claims_gzip(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"not gzip", headers={"Content-Encoding": "gzip"})

    provider.answers(claims_gzip)

    assert send(provider.url).response == b"not gzip"


def test_a_response_that_does_not_end_counts_by_its_status(send: Callable[..., Sent], provider: Provider) -> None:
    provider.answers(stalls)

    sent = send(provider.url)

    assert (sent.http_status, sent.error, sent.response) == (200, None, b"{")
    assert sent.milliseconds >= TRY_SECONDS * 1000


def test_a_response_that_breaks_off_counts_by_its_status(send: Callable[..., Sent], provider: Provider) -> None:
    provider.answers(breaks_off)

    assert (send(provider.url)).error is None


@pytest.mark.parametrize("answer", [hangs_up, resets])
def test_a_connection_that_is_closed_without_a_response_has_failed(
    send: Callable[..., Sent], provider: Provider, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> None:
    provider.answers(answer)

    sent = send(provider.url)

    assert (sent.http_status, sent.error, sent.response) == (None, "connection_failed", b"")
    assert len(provider.received) == 1  # no second attempt: the receiver may have processed the first


def test_a_receiver_that_does_not_respond_in_15_seconds_has_timed_out(
    send: Callable[..., Sent], provider: Provider
) -> None:
    provider.answers(hangs)

    sent = send(provider.url)

    assert (sent.http_status, sent.error) == (None, "timeout")


def test_a_port_that_refuses_connections_has_failed(send: Callable[..., Sent], closed_port: int) -> None:
    assert send(f"http://127.0.0.1:{closed_port}/").error == "connection_failed"


# ---- Receivers that are no HTTP servers -------------------------------------------------------------


@pytest.fixture
def raw(runner: asyncio.Runner) -> Iterator[Callable[[Serve], str]]:
    """Start servers that write what they want, and return their URLs."""
    servers = []
    serving: set[asyncio.Task[None] | None] = set()

    def start(serve: Serve) -> str:
        async def safely(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving.add(asyncio.current_task())
            try:
                with suppress(ConnectionError, asyncio.CancelledError):
                    await serve(reader, writer)
            finally:
                if writer.transport.get_write_buffer_size():
                    writer.transport.abort()
                writer.close()

        server = runner.run(asyncio.start_server(safely, "127.0.0.1", 0))
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"

    async def stop() -> None:
        for server in servers:
            server.close()
        for task in filter(None, serving):
            task.cancel()
        await asyncio.gather(*filter(None, serving))

    yield start
    runner.run(stop())


def test_a_receiver_that_sends_its_response_byte_by_byte_is_cut_off_after_15_seconds(
    send: Callable[..., Sent], raw: Callable[[Serve], str]
) -> None:
    written = []

    async def drips(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MovableLoop)
        for letter in b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello":
            writer.write(bytes([letter]))
            await writer.drain()
            written.append(letter)
            for _turn in range(5):  # until the client reads it
                await asyncio.sleep(0)
            loop.let_pass(1.0)

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
def test_a_receiver_that_sends_headers_without_end_has_failed(
    send: Callable[..., Sent], raw: Callable[[Serve], str], part: bytes
) -> None:
    written = 0

    async def floods(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MovableLoop)
        while written < 2**26:
            writer.write(part)
            await writer.drain()
            written += len(part)
            loop.let_pass(0.01)

    sent = send(raw(floods))

    assert sent.error in ("connection_failed", "timeout", None)
    assert (sent.error is None) == (sent.http_status == 200)
    assert written < 2**26


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
    ],
)
def test_a_response_that_is_no_http_has_failed(
    send: Callable[..., Sent], raw: Callable[[Serve], str], answer: bytes
) -> None:
    async def writes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(answer)
        await writer.drain()

    assert send(raw(writes)).error == "connection_failed"


# ---- Addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://127.0.0.1:8443/",
        "https://169.254.169.254/latest/meta-data/",
        "https://2130706433/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://user@hooks.example.com/",
        "https://hooks.example.com:9001/",
    ],
)
def test_a_url_that_the_policy_refuses_is_not_sent_to(runner: asyncio.Runner, url: str) -> None:
    lookup, asked = finding("8.8.8.8")

    sent = runner.run(WebhookSender(UrlPolicy(), lookup).send(request_to(url)))

    assert (sent.http_status, sent.error) == (None, "address_refused")
    assert asked == []


@pytest.mark.parametrize("addresses", ["127.0.0.1", "::1", "169.254.169.254", "10.0.0.1 fd00::1", "::ffff:127.0.0.1"])
def test_a_host_with_private_addresses_only_is_not_connected_to(runner: asyncio.Runner, addresses: str) -> None:
    lookup, asked = finding(addresses)

    sent = runner.run(WebhookSender(UrlPolicy(), lookup).send(request_to("https://hooks.example.com/")))

    assert (sent.http_status, sent.error) == (None, "address_refused")
    assert asked == ["hooks.example.com"]


def any_port_on_loopback() -> UrlPolicy:
    """Return a policy that permits loopback addresses, for hosts that are not local by their names."""
    return UrlPolicy(allows_loopback=True, ports=frozenset(range(1, 65_536)))


def test_the_address_that_is_checked_is_connected_to_even_if_the_lookup_changes_its_mind(
    runner: asyncio.Runner, provider: Provider
) -> None:
    provider.answers(says(""))
    port = urlsplit(provider.url).port
    lookup, asked = finding("127.0.0.1", "10.255.255.1", "169.254.169.254")

    # No TLS is spoken on this port, so a handshake that fails shows that it was connected to.
    sent = runner.run(
        WebhookSender(any_port_on_loopback(), lookup).send(request_to(f"https://hooks.example.com:{port}/"))
    )
    again = runner.run(
        WebhookSender(any_port_on_loopback(), lookup).send(request_to(f"https://hooks.example.com:{port}/"))
    )

    assert sent.error == "tls_failed"
    assert again.error == "address_refused"  # nothing is remembered of the first lookup
    assert asked == ["hooks.example.com", "hooks.example.com"]


def test_of_several_addresses_only_the_permitted_ones_are_tried(runner: asyncio.Runner, provider: Provider) -> None:
    provider.answers(says(""))
    port = urlsplit(provider.url).port
    lookup, _ = finding("10.255.255.1 169.254.169.254 127.0.0.1")
    connected: list[object] = []

    async def connect() -> Sent:
        loop = asyncio.get_running_loop()
        original = loop.sock_connect

        async def sock_connect(sock: socket.socket, address: object) -> None:
            connected.append(address)
            await original(sock, address)  # type: ignore[arg-type]  # as asyncio calls it

        loop.sock_connect = sock_connect  # type: ignore[method-assign]
        return await WebhookSender(any_port_on_loopback(), lookup).send(
            request_to(f"https://hooks.example.com:{port}/")
        )

    runner.run(connect())

    assert connected == [("127.0.0.1", port)]


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "unknown"), socket.gaierror(socket.EAI_AGAIN, "try again"), OSError()]
)
def test_a_host_that_is_not_found_has_failed(runner: asyncio.Runner, error: OSError) -> None:
    async def lookup(_: str, __: int) -> list[str]:
        raise error

    sent = runner.run(WebhookSender(UrlPolicy(), lookup).send(request_to("https://hooks.example.com/")))

    assert (sent.http_status, sent.error) == (None, "connection_failed")


def test_a_lookup_that_hangs_has_timed_out(runner: asyncio.Runner) -> None:
    async def lookup(_: str, __: int) -> list[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MovableLoop)
        loop.let_pass(TRY_SECONDS)
        await asyncio.Event().wait()
        raise AssertionError

    sent = runner.run(WebhookSender(UrlPolicy(), lookup).send(request_to("https://hooks.example.com/")))

    assert sent.error == "timeout"


# ---- TLS --------------------------------------------------------------------------------------------


@pytest.fixture
def secure(runner: asyncio.Runner, tmp_path: Path) -> Iterator[tuple[str, ssl.SSLContext]]:
    """A server with a certificate for 127.0.0.1, and a context that trusts its CA."""
    tls = loopback_tls(tmp_path)

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(text="secure")

    async def start() -> tuple[web.AppRunner, str]:
        app = web.Application()
        app.router.add_post("/", handle)
        app_runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await app_runner.setup()
        await web.TCPSite(app_runner, "127.0.0.1", 0, ssl_context=tls.server).start()
        return app_runner, f"https://127.0.0.1:{app_runner.addresses[0][1]}/"

    app_runner, url = runner.run(start())
    yield url, ssl.create_default_context(cafile=str(tls.ca_file))
    runner.run(app_runner.cleanup())


def test_a_certificate_of_a_trusted_authority_is_accepted(
    send: Callable[..., Sent], secure: tuple[str, ssl.SSLContext]
) -> None:
    url, trusting = secure

    assert send(url, sender=WebhookSender(LOCAL, tls=trusting)).response == b"secure"


def test_a_certificate_of_an_unknown_authority_is_refused(
    send: Callable[..., Sent], secure: tuple[str, ssl.SSLContext]
) -> None:
    url, _ = secure

    assert send(url).error == "tls_failed"


def test_a_certificate_for_another_host_is_refused(runner: asyncio.Runner, secure: tuple[str, ssl.SSLContext]) -> None:
    url, trusting = secure
    lookup, _ = finding("127.0.0.1")
    sender = WebhookSender(any_port_on_loopback(), lookup, tls=trusting)

    sent = runner.run(sender.send(request_to(url.replace("127.0.0.1", "hooks.example.com"))))

    assert (sent.http_status, sent.error) == (None, "tls_failed")


def test_a_server_without_tls_is_refused_on_an_https_url(send: Callable[..., Sent], provider: Provider) -> None:
    provider.answers(says(""))

    assert send(provider.url.replace("http://", "https://")).error == "tls_failed"
