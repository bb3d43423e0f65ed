"""Record the webhooks of a real LiveKit server.

    PYTHONPATH=layers/voice .venv/bin/python -m tests.real.capture_webhooks

writes tests/support/livekit_webhooks.json, which tests/functions/test_webhook_genuine.py replays. The bodies are
unchanged, except for an invented TURN password and API key. Signatures expire, so a test signs the bodies again.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import aiohttp
import jwt
from aiohttp import web

from local.http_server import serving
from local.real import parts
from pi_voice.adapters.http_client import HttpClient
from pi_voice.adapters.livekit import LiveKitRooms
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import Participant, Session
from pi_voice.settings import LiveKitSettings
from tests.integration.samples import a_session
from tests.real.livekit_server import API_KEY, VERSION, Server, running_livekit
from tests.real.participants import PATIENCE_SECONDS, joined, until

FILE: Final = parts.ROOT / "tests/support/livekit_webhooks.json"
SESSION_ID: Final = SessionId("01a203f9-ad2c-7e1c-a82f-4cf4328a69f6")
MADE_UP_CLAIMS: Final = {"iss": "APImadeupkey", "sha256": "of the body"}
MADE_UP_PASSWORD: Final = "a-turn-password-that-opens-nothing"
EVENTS: Final = (
    "room_started",
    "participant_joined",
    "track_published",
    "participant_connection_aborted",
    "track_unpublished",
    "participant_left",
    "room_finished",
)
_RECORDED_HEADERS: Final = ("Content-Type", "User-Agent", "Accept-Encoding")


class Sink:
    """A server that records the webhooks that it receives."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []

    async def receive(self, request: web.Request) -> web.Response:
        """Record a webhook without its secrets."""
        token = request.headers["Authorization"]
        claims = jwt.decode(token, options={"verify_signature": False})
        body = re.sub(r'("turnPassword": ?)"[^"]*"', rf'\1"{MADE_UP_PASSWORD}"', (await request.read()).decode())
        self.received.append(
            {
                "event": json.loads(body)["event"],
                "headers": {name.lower(): request.headers[name] for name in _RECORDED_HEADERS},
                "token": {"header": jwt.get_unverified_header(token), "claims": {**claims, **MADE_UP_CLAIMS}},
                "body": body,
            }
        )
        return web.Response()

    async def has(self, event: str) -> None:
        """Wait until an event has arrived."""

        async def has_arrived() -> bool:
            return any(webhook["event"] == event for webhook in self.received)

        await until(has_arrived)


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Sink, str]]:
    """Run a sink on loopback."""
    sink, app = Sink(), web.Application()
    app.router.add_post("/{path:.*}", sink.receive)
    async with serving(app) as url:
        yield sink, url


async def record() -> list[dict[str, Any]]:
    """Make one call and return its webhooks."""
    async with listening() as (sink, url):
        with running_livekit(url) as server:
            await _call(server, sink)
        return sink.received


async def _call(server: Server, sink: Sink) -> None:
    now = int(time.time())
    session = replace(a_session(ttl_seconds=600, created_at=now, expires_at=now + 600), session_id=SESSION_ID)
    livekit, own_web = server.livekit, HttpClient()
    settings = LiveKitSettings(livekit.url, livekit.api_key, livekit.api_secret)
    rooms = LiveKitRooms(lambda: settings, own_web, time_limit_seconds=PATIENCE_SECONDS)
    try:
        await rooms.open(session)
        connection = rooms.issue_token(session, Participant(identity="ana", name="Ana Ñ 🙂"), ["microphone"])
        async with joined(connection.model_dump()) as ana:
            await ana.speak(440)
            await sink.has("track_published")
            await _come_and_go_without_media(server, rooms, session)
            await sink.has("participant_connection_aborted")
        await sink.has("participant_left")
        await rooms.close(session.session_id)
        await sink.has("room_finished")
    finally:
        await own_web.close()


async def _come_and_go_without_media(server: Server, rooms: LiveKitRooms, session: Session) -> None:
    """Join with the signal connection only, which LiveKit reports as an aborted connection."""
    token = rooms.issue_token(session, Participant(identity="ben"), ["microphone"]).token
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"{server.livekit.url}/rtc", params={"access_token": token, "protocol": "9"}) as signals,
    ):
        await signals.receive_bytes()


def main() -> None:
    """Record the webhooks, check that they contain no secret, and write the file."""
    webhooks = asyncio.run(record())
    text = json.dumps({"livekit_server": VERSION, "webhooks": webhooks}, indent=2, ensure_ascii=False) + "\n"
    assert [webhook["event"] for webhook in webhooks] == list(EVENTS), [webhook["event"] for webhook in webhooks]
    assert API_KEY not in text
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
