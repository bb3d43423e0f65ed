"""`make webhook-example` beside `make run`, with the receiver in Python: what it prints, refuses and leaves behind."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args
from urllib.parse import urlsplit

import pytest

from demo.voice_api import WEBHOOK_EVENTS
from demo.webhook_example import DESCRIPTION, receiver
from local.errors import CannotStart
from local.real.parts import free_port
from local.running import LocalApi, running_api
from pi_voice.domain.webhook_events import SessionEventType
from tests.local.processes import children, is_running, until
from tests.support.template import ROOT
from tests.support.webhooks import (
    BODY,
    EVENTS_OF_A_CALL,
    SECONDS,
    SECRET,
    WRONG_SIGNATURES,
    Printed,
    ask,
    events_of,
    post,
    printing,
    signed,
    small_call,
)

CLEAN: Final = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
LAST: Final = "Deleted the webhook endpoint."


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalApi]:
    with running_api(CLEAN) as running:
        yield running


def command_for(stack: LocalApi, *arguments: str) -> list[str]:
    port = str(urlsplit(stack.base_url).port)
    return [sys.executable, "-m", "demo.webhook_example", "--port", port, *arguments]


@contextmanager
def webhook_example(stack: LocalApi) -> Iterator[tuple[Printed, str]]:
    """Run the command; yield what it prints, up to the test event, and the URL of its receiver."""
    with printing(command_for(stack, "--receiver-port", str(free_port())), cwd=ROOT, env=CLEAN) as printed:
        lines = printed.until(lambda lines: any(line.startswith("endpoint.test ") for line in lines))
        [url] = [found[1] for line in lines if (found := re.fullmatch(r"Listening on (http://\S+)", line))]
        yield printed, url


def endpoints(stack: LocalApi) -> list[dict[str, Any]]:
    return list(ask(stack, "GET", "/webhook-endpoints")["data"])


def test_a_whole_call_is_printed_a_forged_request_is_refused_and_nothing_is_left(stack: LocalApi) -> None:
    with webhook_example(stack) as (printed, url):
        [endpoint] = endpoints(stack)
        session_id = small_call(stack)
        printed.until(lambda lines: set(events_of(lines, session_id)) == EVENTS_OF_A_CALL)
        forged = post(url, BODY, signed("e1"))  # by another secret
        printed.process.send_signal(signal.SIGINT)
        lines = printed.rest()

    assert (endpoint["url"], endpoint["description"]) == (url, DESCRIPTION)
    assert endpoint["events"] == list(get_args(SessionEventType.__value__))
    assert endpoint["include"] == ["transcript", "results"]
    assert f"endpoint.test {endpoint['endpoint_id']}" in lines
    assert f"session.completed {session_id} completed" in lines
    assert forged == 401
    assert (printed.process.returncode, lines[-1]) == (0, LAST)
    assert endpoints(stack) == []
    assert [line for line in lines if "whsec_" in line or stack.api_key in line] == []


def test_sigterm_deletes_the_endpoint_and_ends_the_receiver(stack: LocalApi) -> None:
    with webhook_example(stack) as (printed, _):
        [process] = children(printed.process.pid)
        printed.process.terminate()
        lines = printed.rest()

    assert (printed.process.returncode, lines[-1]) == (0, LAST)
    assert endpoints(stack) == []
    until(lambda: not is_running(process))


def test_a_receiver_that_ends_is_reported_and_its_endpoint_deleted(stack: LocalApi) -> None:
    with webhook_example(stack) as (printed, _):
        [process] = children(printed.process.pid)
        os.kill(process, signal.SIGKILL)
        lines = printed.rest()

    assert (printed.process.returncode, lines[-1]) == (1, "The receiver has ended with status -9.")
    assert LAST in lines
    assert endpoints(stack) == []


def test_an_endpoint_that_an_earlier_start_left_is_replaced_and_others_stay(stack: LocalApi) -> None:
    left, other = (
        ask(stack, "POST", "/webhook-endpoints", {"url": "http://127.0.0.1:9/", "description": description})["data"]
        for description in (DESCRIPTION, "mine")
    )
    with webhook_example(stack):
        ids = {endpoint["endpoint_id"] for endpoint in endpoints(stack)}
    for endpoint in endpoints(stack):
        ask(stack, "DELETE", f"/webhook-endpoints/{endpoint['endpoint_id']}")

    assert len(ids) == 2
    assert left["endpoint_id"] not in ids
    assert other["endpoint_id"] in ids


# ---- Reasons not to start ----


def ended(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env={**CLEAN, **variables}, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_a_port_in_use_is_reported_in_one_sentence_before_an_endpoint_is_created(stack: LocalApi) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = ended(command_for(stack, "--receiver-port", str(port)))

    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(rf"Port {port} cannot be used \([^\n]+\): choose another, [^\n]+\.\n", result.stderr)


def test_the_check_finds_the_running_api_by_its_port(stack: LocalApi) -> None:
    result = ended(command_for(stack, "--check"))

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--port", "1"],
            "There is no API on port 1: start `make run` in another terminal, and wait until it is ready.",
        ),
        (["--port", "x"], "'x' is not a port: give a number up to 65534, as in `make run PORT=3100`."),
        (["--color"], "Unrecognized arguments: --color."),
    ],
    ids=["no API", "no port", "unknown argument"],
)
def test_an_error_at_start_is_one_sentence(arguments: list[str], sentence: str) -> None:
    result = ended([sys.executable, "-m", "demo.webhook_example", *arguments])

    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"{sentence}\n")


def test_an_api_that_has_crashed_is_reported_in_one_sentence() -> None:
    command = [sys.executable, "-m", "demo.webhook_example", "--check"]
    result = ended(command, BASE="http://127.0.0.1:9", API_KEY="any")

    assert result.returncode == 1
    assert re.fullmatch(r"GET /webhook-endpoints was not answered: [^\n]+\n", result.stderr)


def test_there_are_two_receivers() -> None:
    assert receiver("python")[1].endswith("examples/webhooks/receiver.py")
    with pytest.raises(CannotStart, match=r"^There is no backend 'ruby': give python or node"):
        receiver("ruby")


def test_the_demo_knows_all_events() -> None:
    assert get_args(SessionEventType.__value__) == WEBHOOK_EVENTS


# ---- The receiver ----


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Printed, str]]:
    """Run the receiver without the command; yield what it prints, and its URL."""
    port = free_port()
    with printing(receiver("python"), env={**CLEAN, "PORT": str(port), "WEBHOOK_SECRET": SECRET}) as printed:
        printed.until(lambda lines: lines == [f"Listening on http://127.0.0.1:{port}/"])
        yield printed, f"http://127.0.0.1:{port}/"


def printed_of(printed: Printed, url: str, event_id: str) -> list[str]:
    """Return the lines of an event, once a later one was printed."""
    body = BODY.replace("s1", f"after-{event_id}")
    assert post(url, body, signed(f"after-{event_id}", body)) == 204
    lines = printed.until(lambda lines: any(f"after-{event_id}" in line for line in lines))
    return [line for line in lines if f" {event_id} " in line]


def test_a_repeated_event_is_acknowledged_and_printed_once(started: tuple[Printed, str]) -> None:
    printed, url = started
    body = BODY.replace("s1", "repeated")

    assert [post(url, body, signed("repeated", body)) for _ in range(3)] == [204, 204, 204]
    assert printed_of(printed, url, "repeated") == ["session.completed repeated completed"]


@pytest.mark.parametrize("signature", WRONG_SIGNATURES)
def test_a_wrong_or_malformed_signature_is_401(started: tuple[Printed, str], signature: str) -> None:
    _, url = started

    assert post(url, BODY, {**signed("wrong"), "webhook-signature": signature}) == 401


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_401(started: tuple[Printed, str], name: str) -> None:
    _, url = started
    headers = signed("missing")
    del headers[name]

    assert post(url, BODY, headers) == 401


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_request_of_another_time_is_401(started: tuple[Printed, str], minutes: int) -> None:
    _, url = started

    assert post(url, BODY, signed("replayed", at=datetime.now(UTC) + timedelta(minutes=minutes))) == 401


@pytest.mark.parametrize("timestamp", ["", "soon", "nan", "1e400"])
def test_a_time_that_is_no_number_is_401(started: tuple[Printed, str], timestamp: str) -> None:
    _, url = started

    assert post(url, BODY, {**signed("time"), "webhook-timestamp": timestamp}) == 401


@pytest.mark.parametrize("body", [b"", BODY.encode() + b" ", b"\xff"], ids=["empty", "changed", "not UTF-8"])
def test_another_body_is_401(started: tuple[Printed, str], body: bytes) -> None:
    _, url = started

    assert post(url, body, signed("body")) == 401


@pytest.mark.parametrize("length", ["-1", "x", "99999999", "9" * 5_000])
def test_a_length_that_is_wrong_or_too_large_is_401(started: tuple[Printed, str], length: str) -> None:
    _, url = started

    assert post(url, b"", {**signed("length"), "Content-Length": length}) == 401


def test_one_of_two_signatures_is_enough(started: tuple[Printed, str]) -> None:
    _, url = started
    headers = signed("rotated")

    assert (
        post(url, BODY, {**headers, "webhook-signature": f"{WRONG_SIGNATURES[0]} {headers['webhook-signature']}"})
        == 204
    )
