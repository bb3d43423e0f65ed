"""`make webhook-example` beside `make run`, as a newcomer types it, and its receiver in Node.js."""

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import pytest

from demo.webhook_example import receiver
from local.real import parts
from local.running import LocalApi, running_api
from tests.support.template import environment
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

pytestmark = pytest.mark.real

CLEAN: Final = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalApi]:
    for name in ("node", "npm"):
        parts.program("Node.js", name)
    with running_api(CLEAN) as running:
        yield running


@pytest.mark.parametrize("backend", ["python", "node"])
def test_two_commands_print_the_events_of_a_call(stack: LocalApi, backend: str) -> None:
    port, receiver_port = urlsplit(stack.base_url).port, parts.free_port()
    command = ["make", "webhook-example", f"PORT={port}", f"RECEIVER_PORT={receiver_port}", f"BACKEND={backend}"]
    with printing(command, cwd=parts.ROOT, env=environment(), start_new_session=True) as printed:
        try:
            printed.until(lambda lines: any(line.startswith("endpoint.test ") for line in lines))
            session_id = small_call(stack)
            printed.until(lambda lines: set(events_of(lines, session_id)) == EVENTS_OF_A_CALL)
            forged = post(f"http://127.0.0.1:{receiver_port}/", BODY, signed("e1"))
        finally:
            os.killpg(printed.process.pid, signal.SIGINT)  # as Ctrl-C does: make, the command and the receiver get it
        lines = printed.rest()

    assert forged == 401
    assert "Deleted the webhook endpoint." in lines
    assert ask(stack, "GET", "/webhook-endpoints")["data"] == []


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Printed, str]]:
    """Run the receiver in Node.js without the command; yield what it prints, and its URL."""
    parts.program("Node.js", "npm")
    subprocess.run(["make", "webhook-receiver"], cwd=parts.ROOT, check=True, timeout=SECONDS)  # noqa: S607
    port = parts.free_port()
    with printing(receiver("node"), env={**CLEAN, "PORT": str(port), "WEBHOOK_SECRET": SECRET}) as printed:
        printed.until(lambda lines: lines == [f"Listening on http://127.0.0.1:{port}/"])
        yield printed, f"http://127.0.0.1:{port}/"


def test_the_receiver_prints_a_repeated_event_once(started: tuple[Printed, str]) -> None:
    printed, url = started
    repeated, last = BODY.replace("s1", "repeated"), BODY.replace("s1", "last")

    assert [post(url, repeated, signed("repeated", repeated)) for _ in range(3)] == [204, 204, 204]
    assert post(url, last, signed("last", last)) == 204
    lines = printed.until(lambda lines: bool(events_of(lines, "last")))
    assert events_of(lines, "repeated") == ["session.completed"]


@pytest.mark.parametrize("signature", WRONG_SIGNATURES)
def test_the_receiver_answers_401_to_a_wrong_or_malformed_signature(
    started: tuple[Printed, str], signature: str
) -> None:
    _, url = started

    assert post(url, BODY, {**signed("wrong"), "webhook-signature": signature}) == 401


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_the_receiver_answers_401_without_a_header(started: tuple[Printed, str], name: str) -> None:
    _, url = started
    headers = signed("missing")
    del headers[name]

    assert post(url, BODY, headers) == 401


def test_the_receiver_takes_one_of_two_signatures(started: tuple[Printed, str]) -> None:
    _, url = started
    headers = signed("rotated")
    both = f"{WRONG_SIGNATURES[0]} {headers['webhook-signature']}"

    assert post(url, BODY, {**headers, "webhook-signature": both}) == 204
    assert post(url, BODY + " ", {**headers, "webhook-signature": both}) == 401
