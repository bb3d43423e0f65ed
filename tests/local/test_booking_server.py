"""The server of the example's tools, run as a program: what it answers, refuses and books."""

import http.client
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from local.real.parts import free_port
from tests.support.template import ROOT
from tests.support.webhooks import SECONDS, SECRET, WRONG_SIGNATURES, Printed, printing, signed

CLEAN: Final = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
TABLE: Final = {"day": "Friday", "time": "19:30", "area": "terrace", "guests": 6}
TAKEN: Final = {"error": "No such table is free. Offer another time or area."}

Answer = tuple[int, Any]
Ask = Callable[..., Answer]


@contextmanager
def running(**variables: str) -> Iterator[tuple[Printed, str]]:
    """Run the server; yield what it prints, and its URL."""
    port = free_port()
    command = [sys.executable, str(ROOT / "examples/booking_server.py")]
    with printing(command, env={**CLEAN, "PORT": str(port), "WEBHOOK_SECRET": SECRET, **variables}) as printed:
        printed.until(lambda lines: lines == [f"Tools on http://127.0.0.1:{port}/"])
        yield printed, f"http://127.0.0.1:{port}/"


@pytest.fixture
def url() -> Iterator[str]:
    with running() as (_, url):
        yield url


def ask(url: str, webhook_id: str, name: str, arguments: Any, session: str = "s1", **headers: str) -> Answer:
    """Call a tool as Pi Voice does, and return status and answer."""
    data = {"session_id": session, "participant": {"identity": "guest-17"}, "name": name, "arguments": arguments}
    return send(url, webhook_id, {"type": "tool.call", "timestamp": 1_795_338_960, "data": data}, **headers)


def send(url: str, webhook_id: str, event: Any, **headers: str) -> Answer:
    body = json.dumps(event)
    sent = {**signed(webhook_id, body), **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)
    try:
        connection.request("POST", "/", body, {name: value.encode() for name, value in sent.items()})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    return response.status, json.loads(content) if content else None


def test_the_times_and_areas_with_a_table_that_is_large_enough_are_found(url: str) -> None:
    six, eight, nine = (ask(url, f"find-{n}", "find_slots", {"day": "Friday", "guests": n}) for n in (6, 8, 9))

    assert six == (200, {"free": [f"{time} {area}" for time in TIMES for area in ("inside", "terrace")]})
    assert eight == (200, {"free": [f"{time} inside" for time in TIMES]})
    assert nine == (200, {"free": []})


TIMES: Final = ("18:00", "19:30", "21:00")


def test_a_booked_table_is_free_no_more(url: str) -> None:
    booked = ask(url, "w1", "book_table", TABLE, "s1")
    again = ask(url, "w2", "book_table", TABLE, "s2")
    found = ask(url, "w3", "find_slots", {"day": "Friday", "guests": 6}, "s2")
    saturday = ask(url, "w4", "book_table", {**TABLE, "day": "Saturday"}, "s2")

    assert booked == (200, {"table": "T12"})
    assert again == (409, TAKEN)
    assert "19:30 terrace" not in found[1]["free"]
    assert "18:00 terrace" in found[1]["free"]
    assert saturday == (200, {"table": "T12"})


def test_the_smallest_table_with_enough_seats_is_booked(url: str) -> None:
    inside = {**TABLE, "area": "inside", "guests": 3}

    assert [ask(url, f"w{n}", "book_table", inside, f"s{n}")[1] for n in range(3)] == [
        {"table": "T4"},
        {"table": "T8"},
        TAKEN,
    ]


def test_a_repeated_call_gets_the_same_answer_and_books_once(url: str) -> None:
    inside = {**TABLE, "area": "inside", "guests": 3}
    first, repeat, other = (ask(url, name, "book_table", inside, name) for name in ("w1", "w1", "w2"))

    assert (first, repeat, other) == ((200, {"table": "T4"}), (200, {"table": "T4"}), (200, {"table": "T8"}))


def test_a_repeated_call_that_was_refused_stays_refused(url: str) -> None:
    nobody = {**TABLE, "guests": 20}

    assert [ask(url, "w1", "book_table", each) for each in (nobody, TABLE)] == [(409, TAKEN)] * 2


def test_another_call_of_the_session_for_the_same_time_gets_the_same_table(url: str) -> None:
    inside = {**TABLE, "area": "inside", "guests": 3}

    assert [ask(url, webhook_id, "book_table", inside) for webhook_id in ("w1", "w2")] == [(200, {"table": "T4"})] * 2


def test_of_callers_at_the_same_time_one_gets_the_table(url: str) -> None:
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda n: ask(url, f"w{n}", "book_table", TABLE, f"s{n}"), range(8)))

    assert Counter(status for status, _ in answers) == {200: 1, 409: 7}


def test_repeats_at_the_same_time_get_one_answer(url: str) -> None:
    inside = {**TABLE, "area": "inside", "guests": 3}
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda n: ask(url, "w1", "book_table", inside, f"s{n}"), range(8)))

    assert answers == [(200, {"table": "T4"})] * 8


def test_a_table_stays_booked_and_an_answer_known_after_a_crash(tmp_path: Path) -> None:
    database = str(tmp_path / "bookings.db")
    with running(DATABASE=database) as (printed, url):
        booked = ask(url, "w1", "book_table", TABLE, "s1")
        printed.process.send_signal(signal.SIGKILL)
    with running(DATABASE=database) as (_, url):
        repeat = ask(url, "w1", "book_table", TABLE, "s1")
        other = ask(url, "w2", "book_table", TABLE, "s2")

    assert booked == repeat == (200, {"table": "T12"})
    assert other == (409, TAKEN)


@pytest.mark.parametrize("signature", WRONG_SIGNATURES)
def test_a_wrong_or_malformed_signature_is_401_and_books_nothing(url: str, signature: str) -> None:
    assert ask(url, "w1", "book_table", TABLE, webhook_signature=signature) == (401, None)
    assert ask(url, "w1", "book_table", TABLE) == (200, {"table": "T12"})


def test_a_test_of_the_endpoint_is_acknowledged(url: str) -> None:
    event = {"type": "endpoint.test", "timestamp": 1_795_338_960, "data": {"endpoint_id": "e1"}}

    assert send(url, "t1", event) == (204, None)


def test_each_call_is_printed() -> None:
    with running() as (printed, url):
        ask(url, "w1", "book_table", TABLE)
        lines = printed.until(lambda lines: len(lines) == 2)

    assert lines[1] == f'book_table {json.dumps(TABLE)} 200 {{"table": "T12"}}'
