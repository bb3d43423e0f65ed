"""Requests to webhook endpoints by either sender, on servers that misbehave, with lookups of our own."""

import asyncio
import functools
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from pi_voice.adapters.tool_sender import ToolSender
from pi_voice.adapters.webhook_sender import WebhookSender
from pi_voice.adapters.webhook_targets import Lookup, system_lookup
from pi_voice.domain.webhook_deliveries import TRY_SECONDS
from pi_voice.domain.webhook_urls import UrlPolicy
from pi_voice.ports import Sent, SignedRequest
from tests.integration.provider import Provider, hangs, hangs_up, resets, says
from tests.integration.senders import (
    ANY_PORT,
    BODY,
    LOCAL,
    PREVIOUS,
    SECRET,
    RawServers,
    finding,
    let_pass,
    request_to,
)
from tests.support.tls import loopback_tls

Send = Callable[[SignedRequest], Coroutine[Any, Any, Sent]]


class NewSender(Protocol):
    """Creates a sender."""

    def __call__(
        self, policy: UrlPolicy = LOCAL, lookup: Lookup = system_lookup, *, tls: ssl.SSLContext | None = None
    ) -> Send: ...


@pytest.fixture(params=["events", "tools"])
def new_sender(request: pytest.FixtureRequest, runner: asyncio.Runner) -> Iterator[NewSender]:
    """Create senders of events, or of tools with the same time limit."""
    opened: list[ToolSender] = []

    def new_sender(
        policy: UrlPolicy = LOCAL, lookup: Lookup = system_lookup, *, tls: ssl.SSLContext | None = None
    ) -> Send:
        if request.param == "events":
            return WebhookSender(policy, lookup, tls=tls).send
        opened.append(ToolSender(policy, lookup, tls=tls))
        return functools.partial(opened[-1].send, seconds=TRY_SECONDS)

    yield new_sender
    for sender in opened:
        runner.run(sender.close())


@pytest.fixture
def send(runner: asyncio.Runner, new_sender: NewSender) -> Callable[..., Sent]:
    """Send a request by a sender for one machine."""
    sender = new_sender()
    return lambda url, *secrets: runner.run(sender(request_to(url, *secrets)))


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


def test_during_a_rotation_both_secrets_verify_the_request(send: Callable[..., Sent], provider: Provider) -> None:
    provider.answers(says(""))

    send(provider.url, SECRET, PREVIOUS)

    [received] = provider.received
    for secret in (SECRET, PREVIOUS):
        Webhook(secret).verify(received.body, dict(received.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "b3RoZXJz" * 5).verify(received.body, dict(received.headers))


def test_a_cookie_of_a_response_is_not_sent_with_the_next_request(
    send: Callable[..., Sent], provider: Provider
) -> None:
    async def sets_a_cookie(_: web.Request) -> web.StreamResponse:
        return web.Response(headers={"Set-Cookie": "a=b"})

    provider.answers(sets_a_cookie)

    for _ in range(2):
        send(provider.url)

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


def test_a_receiver_that_never_reads_the_body_has_timed_out(send: Callable[..., Sent], raw: RawServers) -> None:
    async def reads_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        let_pass(TRY_SECONDS + 1)
        await asyncio.Event().wait()

    sent = send(raw(reads_nothing))

    assert (sent.http_status, sent.error) == (None, "timeout")


def test_a_port_that_refuses_connections_has_failed(send: Callable[..., Sent], closed_port: int) -> None:
    assert send(f"http://127.0.0.1:{closed_port}/").error == "connection_failed"


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
def test_a_response_that_is_no_http_has_failed(send: Callable[..., Sent], raw: RawServers, answer: bytes) -> None:
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
def test_a_url_that_the_policy_refuses_is_not_sent_to(runner: asyncio.Runner, new_sender: NewSender, url: str) -> None:
    lookup, asked = finding("8.8.8.8")

    sent = runner.run(new_sender(UrlPolicy(), lookup)(request_to(url)))

    assert (sent.http_status, sent.error) == (None, "address_refused")
    assert asked == []


@pytest.mark.parametrize("addresses", ["127.0.0.1", "::1", "169.254.169.254", "10.0.0.1 fd00::1", "::ffff:127.0.0.1"])
def test_a_host_with_private_addresses_only_is_not_connected_to(
    runner: asyncio.Runner, new_sender: NewSender, addresses: str
) -> None:
    lookup, asked = finding(addresses)

    sent = runner.run(new_sender(UrlPolicy(), lookup)(request_to("https://hooks.example.com/")))

    assert (sent.http_status, sent.error) == (None, "address_refused")
    assert asked == ["hooks.example.com"]


def test_the_address_that_is_checked_is_connected_to_even_if_the_lookup_changes_its_mind(
    runner: asyncio.Runner, new_sender: NewSender, provider: Provider
) -> None:
    provider.answers(says(""))
    port = urlsplit(provider.url).port
    lookup, asked = finding("127.0.0.1", "10.255.255.1", "169.254.169.254")

    # No TLS is spoken on this port, so a handshake that fails shows that it was connected to.
    sender = new_sender(ANY_PORT, lookup)
    sent = runner.run(sender(request_to(f"https://hooks.example.com:{port}/")))
    again = runner.run(sender(request_to(f"https://hooks.example.com:{port}/")))

    assert sent.error == "tls_failed"
    assert again.error == "address_refused"  # nothing is remembered of the first lookup
    assert asked == ["hooks.example.com", "hooks.example.com"]


def test_of_several_addresses_only_the_permitted_ones_are_tried(
    runner: asyncio.Runner, new_sender: NewSender, provider: Provider
) -> None:
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
        return await new_sender(ANY_PORT, lookup)(request_to(f"https://hooks.example.com:{port}/"))

    runner.run(connect())

    assert connected == [("127.0.0.1", port)]


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "unknown"), socket.gaierror(socket.EAI_AGAIN, "try again"), OSError()]
)
def test_a_host_that_is_not_found_has_failed(runner: asyncio.Runner, new_sender: NewSender, error: OSError) -> None:
    async def lookup(_: str, __: int) -> list[str]:
        raise error

    sent = runner.run(new_sender(UrlPolicy(), lookup)(request_to("https://hooks.example.com/")))

    assert (sent.http_status, sent.error) == (None, "connection_failed")


def test_a_lookup_that_hangs_has_timed_out(runner: asyncio.Runner, new_sender: NewSender) -> None:
    async def lookup(_: str, __: int) -> list[str]:
        let_pass(TRY_SECONDS)
        await asyncio.Event().wait()
        raise AssertionError

    sent = runner.run(new_sender(UrlPolicy(), lookup)(request_to("https://hooks.example.com/")))

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
    runner: asyncio.Runner, new_sender: NewSender, secure: tuple[str, ssl.SSLContext]
) -> None:
    url, trusting = secure

    assert runner.run(new_sender(tls=trusting)(request_to(url))).response == b"secure"


def test_a_certificate_of_an_unknown_authority_is_refused(
    send: Callable[..., Sent], secure: tuple[str, ssl.SSLContext]
) -> None:
    url, _ = secure

    assert send(url).error == "tls_failed"


def test_a_certificate_for_another_host_is_refused(
    runner: asyncio.Runner, new_sender: NewSender, secure: tuple[str, ssl.SSLContext]
) -> None:
    url, trusting = secure
    lookup, _ = finding("127.0.0.1")
    sender = new_sender(ANY_PORT, lookup, tls=trusting)

    sent = runner.run(sender(request_to(url.replace("127.0.0.1", "hooks.example.com"))))

    assert (sent.http_status, sent.error) == (None, "tls_failed")


def test_a_server_without_tls_is_refused_on_an_https_url(send: Callable[..., Sent], provider: Provider) -> None:
    provider.answers(says(""))

    assert send(provider.url.replace("http://", "https://")).error == "tls_failed"
