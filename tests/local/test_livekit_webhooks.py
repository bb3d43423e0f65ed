"""The LiveKit stand-in's webhooks: bytes, signature and order."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import jwt
import pytest
from aiohttp import web
from livekit.api import TokenVerifier, WebhookReceiver
from livekit.protocol.models import Room
from livekit.protocol.room import CreateRoomRequest, DeleteRoomRequest, UpdateRoomMetadataRequest

from local.http_server import serving
from local.stand_ins.livekit import Rooms
from local.stand_ins.livekit_webhooks import Webhooks
from tests.local.conftest import Background
from tests.local.processes import until
from tests.support.template import ROOT

GENUINE = json.loads((ROOT / "tests/support/livekit_webhooks.json").read_text(encoding="utf-8"))
KEY, SECRET = "a-webhook-key", "a-webhook-secret-that-is-long-enough"
Request = TypeVar("Request")
Result = TypeVar("Result")


@dataclass
class Receiver:
    """A receiver of webhooks; `answers` are the statuses of its next answers, and later ones are 200."""

    answers: list[int] = field(default_factory=list)
    received: list[tuple[bytes, str, str]] = field(default_factory=list)

    async def receive(self, request: web.Request) -> web.Response:
        headers = request.headers
        self.received.append((await request.read(), headers["Authorization"], headers["Content-Type"]))
        return web.Response(status=self.answers.pop(0) if self.answers else 200)


class Sender:
    """Rooms that send webhooks to a receiver, called from outside their event loop."""

    def __init__(self, background: Background, answers: list[int]) -> None:
        self.receiver = Receiver(answers)
        self._background = background
        self.rooms = background.enter(self._open())

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Rooms]:
        app = web.Application()
        app.router.add_post("/", self.receiver.receive)
        async with serving(app) as url, aiohttp.ClientSession() as client:
            webhooks = Webhooks(client, url, (KEY, SECRET), pauses=(0, 0, 0, 0))
            rooms = Rooms(webhooks)
            yield rooms
            rooms.stop()
            await webhooks.stop()

    def open(self, name: str, **fields: Any) -> Room:
        return self._background.run(self._do(self.rooms.create, CreateRoomRequest(name=name, **fields)))

    def update_metadata(self, name: str, metadata: str) -> None:
        self._background.run(
            self._do(self.rooms.update_metadata, UpdateRoomMetadataRequest(room=name, metadata=metadata))
        )

    def close(self, name: str) -> None:
        self._background.run(self._do(self.rooms.delete, DeleteRoomRequest(room=name)))

    async def _do(self, work: Callable[[Request], Result], request: Request) -> Result:
        return work(request)

    def received(self, number: int) -> list[tuple[bytes, str, str]]:
        """Wait for a number of webhooks and return them."""
        until(lambda: len(self.receiver.received) >= number)
        assert len(self.receiver.received) == number
        return self.receiver.received

    def events(self, number: int) -> list[tuple[str, str]]:
        """Wait for a number of webhooks and return their events and rooms."""
        bodies = [json.loads(body) for body, _, _ in self.received(number)]
        return [(body["event"], body["room"]["name"]) for body in bodies]


def test_a_room_sends_a_webhook_when_it_starts_and_when_it_is_finished(background: Background) -> None:
    sender = Sender(background, [])
    room = sender.open("one", metadata="first", empty_timeout=600)
    sender.update_metadata("one", "last")
    sender.close("one")

    (started, _, _), (finished, _, kind) = sender.received(2)
    first, last = json.loads(started), json.loads(finished)
    assert kind == "application/webhook+json"
    assert (first["event"], first["room"]["metadata"]) == ("room_started", "first")
    assert (last["event"], last["room"]["metadata"]) == ("room_finished", "last")
    assert last["room"] == {**first["room"], "metadata": "last"}
    assert last["room"]["sid"] == room.sid
    assert first["id"].startswith("EV_")
    assert first["id"] != last["id"]


def test_the_body_is_camel_case_without_zeros_and_with_large_numbers_as_text(background: Background) -> None:
    sender = Sender(background, [])
    sender.open("one")

    [(body, _, _)] = sender.received(1)
    event = json.loads(body)
    assert event["room"]["emptyTimeout"] == 300
    assert event["room"]["turnPassword"]
    assert isinstance(event["createdAt"], str)
    assert "numParticipants" not in event["room"]
    assert "metadata" not in event["room"]


def test_the_fields_are_those_of_a_livekit_servers_webhooks(background: Background) -> None:
    sender = Sender(background, [])
    sender.open("one", metadata="told")
    sender.close("one")

    genuine = {webhook["event"]: webhook["body"] for webhook in GENUINE["webhooks"]}
    for body, _, _ in sender.received(2):
        sent = json.loads(body)
        recorded = json.loads(genuine[sent["event"]])
        assert sent.keys() == recorded.keys()
        assert sent["room"].keys() == recorded["room"].keys()
        assert sent["room"]["enabledCodecs"] == recorded["room"]["enabledCodecs"]


def test_the_signature_is_bare_short_lived_and_binds_the_bytes(background: Background) -> None:
    sender = Sender(background, [])
    sender.open("one")

    [(body, token, _)] = sender.received(1)
    claims = jwt.decode(token, SECRET, ["HS256"])
    assert claims.keys() == {"iss", "exp", "nbf", "iat", "sha256"}
    assert claims["iss"] == KEY
    assert claims["exp"] - claims["iat"] == 300
    assert base64.b64decode(claims["sha256"]) == hashlib.sha256(body).digest()
    assert WebhookReceiver(TokenVerifier(KEY, SECRET)).receive(body.decode(), token).room.name == "one"


@pytest.mark.parametrize("failure", [500, 503, 429])
def test_a_failed_webhook_is_retried_with_the_same_bytes_and_token(background: Background, failure: int) -> None:
    sender = Sender(background, [failure, failure])
    sender.open("one")

    assert len(set(sender.received(3))) == 1


def test_a_webhook_is_given_up_after_five_attempts_and_the_next_one_is_sent(
    background: Background, capsys: pytest.CaptureFixture[str]
) -> None:
    sender = Sender(background, [500] * 5)
    sender.open("one")
    sender.close("one")

    assert sender.events(6) == [("room_started", "one")] * 5 + [("room_finished", "one")]
    assert "gave up the webhook room_started of one" in capsys.readouterr().err


def test_a_refused_webhook_is_not_retried(background: Background) -> None:
    sender = Sender(background, [401])
    sender.open("one")
    sender.close("one")

    assert sender.events(2) == [("room_started", "one"), ("room_finished", "one")]


def test_opening_a_room_twice_sends_one_webhook(background: Background) -> None:
    sender = Sender(background, [])
    sender.open("one")
    sender.open("one")
    sender.close("one")

    assert sender.events(2) == [("room_started", "one"), ("room_finished", "one")]


def test_a_room_that_times_out_sends_a_webhook(background: Background) -> None:
    sender = Sender(background, [])
    sender.open("one", empty_timeout=1)

    assert sender.events(2) == [("room_started", "one"), ("room_finished", "one")]


def test_stopping_cancels_pending_webhooks() -> None:
    async def left_over() -> list[str]:
        async with aiohttp.ClientSession() as client:
            webhooks = Webhooks(client, "http://127.0.0.1:9", (KEY, SECRET))
            webhooks.send("room_started", Room(name="one"))
            webhooks.send("room_finished", Room(name="one"))
            await webhooks.stop()
            return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(left_over()) == []
