"""Receivers of webhooks for tests, and what is sent to them."""

import base64
import http.client
import json
import queue
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from standardwebhooks import Webhook

from local.running import LocalApi

Json = Any

SECONDS: Final = 300
"""Far longer than anything here takes, because other tests may use all cores."""

SECRET: Final = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
BODY: Final = json.dumps(
    {"type": "session.completed", "timestamp": 1_795_338_960, "data": {"session_id": "s1", "status": "completed"}}
)
WRONG_SIGNATURES: Final = (
    "v1," + base64.b64encode(b"x" * 32).decode(),
    "v2," + base64.b64encode(b"x" * 32).decode(),
    "v1",
    "v1,",
    "v1,!",
    "v1,a",
    "v1,a,b",
    ",",
    " ",
    "v1,é",
)


class Printed:
    """The lines that a program prints, read by a thread so that waiting for one has a limit."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._is_over = False
        self._arriving: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def until(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the lines so far fulfill a condition, and return them; fails if the program ends before."""
        while not condition(self.lines):
            line = self._arriving.get(timeout=SECONDS)
            assert line is not None, f"it ended with {self.process.wait(SECONDS)}: {self.lines}"
            self.lines.append(line)
        return self.lines

    def rest(self) -> list[str]:
        """Wait until the program has ended, and return all its lines."""
        while not self._is_over:
            line = self._arriving.get(timeout=SECONDS)
            self._is_over = line is None
            self.lines += [line] if line is not None else []
        self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return self.lines

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._arriving.put(line.rstrip())
        self._arriving.put(None)


@contextmanager
def printing(command: Sequence[str], **options: Any) -> Iterator[Printed]:
    """Run a program, and end it by SIGTERM if it still runs."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    ) as process:
        printed = Printed(process)
        try:
            yield printed
        finally:
            process.terminate()
            try:
                printed.rest()
            finally:
                process.kill()


def signed(event_id: str, body: str = BODY, secret: str = SECRET, at: datetime | None = None) -> dict[str, str]:
    """Return the headers of a webhook."""
    sent_at = at or datetime.now(UTC)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": Webhook(secret).sign(event_id, sent_at, body),
    }


def post(url: str, body: str | bytes, headers: Mapping[str, str]) -> int:
    """Send a request to a receiver, and return the status."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)
    encoded = {name: value.encode() for name, value in headers.items()}
    try:
        connection.request("POST", "/", body, encoded)
        response = connection.getresponse()
        response.read()
    finally:
        connection.close()
    return response.status


def ask(api: LocalApi, method: str, route: str, body: Json = None) -> Json:
    """Send a request to the API with its key, and return the body of the response."""
    connection = http.client.HTTPConnection(urlsplit(api.base_url).netloc, timeout=SECONDS)
    headers = {"Authorization": f"Bearer {api.api_key}", "Content-Type": "application/json"}
    try:
        connection.request(method, f"/api/v1/voice{route}", None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    assert response.status < 300, text
    return json.loads(text) if text else None


def small_call(api: LocalApi) -> str:
    """Make a call of two turns with an agent that wants a name, and return the id of its session."""
    agent = {"name": "Mia", "instructions": "Be kind.", "output_schema": {"guest_name": "Full name"}}
    agent_id = ask(api, "POST", "/agents", agent)["data"]["agent_id"]
    request = {"agent_id": agent_id, "participant": {"identity": "guest-1", "name": "Ana"}}
    session_id = str(ask(api, "POST", "/sessions", request)["data"]["session_id"])
    turns = [
        {"role": "agent", "text": "Linden, this is Mia. What is your name?"},
        {"role": "user", "text": "My name is Ana Torres."},
    ]
    ask(api, "POST", f"/sessions/{session_id}/transcript", {"from": 0, "turns": turns})
    ask(api, "POST", f"/sessions/{session_id}/complete", {"duration_seconds": 9, "transcript": turns})
    return session_id


EVENTS_OF_A_CALL: Final = {"session.started", "session.completed", "extraction.succeeded"}
"""Types of the events of `small_call`."""


def events_of(lines: Sequence[str], session_id: str) -> list[str]:
    """Return the types of a session's events that a receiver has printed."""
    return [line.split()[0] for line in lines if session_id in line]
