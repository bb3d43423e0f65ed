"""LiveKit's webhooks: signed as by a LiveKit server, delivered in order per room, with five attempts each."""

import asyncio
import base64
import hashlib
import secrets
import string
import sys
import time
from collections.abc import Sequence
from http.client import INTERNAL_SERVER_ERROR, TOO_MANY_REQUESTS
from typing import Final

import aiohttp
import jwt
from google.protobuf.json_format import MessageToJson
from livekit.protocol.models import Room
from livekit.protocol.webhook import WebhookEvent

PAUSES_SECONDS: Final = (1.0, 2.0, 4.0, 8.0)
"""A LiveKit server's pauses after failed attempts, except the last."""

_TOKEN_SECONDS: Final = 300
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30)


class Webhooks:
    """Delivers events to one URL, signed with one key."""

    def __init__(
        self, client: aiohttp.ClientSession, url: str, key: tuple[str, str], pauses: Sequence[float] = PAUSES_SECONDS
    ) -> None:
        self._client = client
        self._url = url
        self._api_key, self._api_secret = key
        self._pauses = pauses
        self._latest: dict[str, asyncio.Task[None]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def send(self, event: str, room: Room) -> None:
        """Queue an event; it is delivered after all earlier events of the room were delivered or given up."""
        message = WebhookEvent(event=event, room=room, id=new_id("EV_"), created_at=int(time.time()))
        delivery = asyncio.create_task(
            self._deliver(MessageToJson(message, indent=None).encode(), self._latest.get(room.name)),
            name=f"{event} of {room.name}",
        )
        self._latest[room.name] = delivery
        self._under_way.add(delivery)
        delivery.add_done_callback(lambda done: self._forget(room.name, done))

    async def stop(self) -> None:
        """Cancel all pending deliveries."""
        deliveries = list(self._under_way)
        for delivery in deliveries:
            delivery.cancel()
        await asyncio.gather(*deliveries, return_exceptions=True)

    def _forget(self, room_name: str, delivery: asyncio.Task[None]) -> None:
        self._under_way.discard(delivery)
        if self._latest.get(room_name) is delivery:
            del self._latest[room_name]

    async def _deliver(self, body: bytes, earlier: asyncio.Task[None] | None) -> None:
        if earlier:
            await asyncio.wait([earlier])
        token = self._sign(body)
        for pause in (*self._pauses, None):
            if await self._post(body, token):
                return
            if pause is not None:
                await asyncio.sleep(pause)
        what = asyncio.current_task()
        print(f"The LiveKit stand-in gave up the webhook {what and what.get_name()}.", file=sys.stderr)

    def _sign(self, body: bytes) -> str:
        now = int(time.time())
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        claims = {"iss": self._api_key, "exp": now + _TOKEN_SECONDS, "nbf": now, "iat": now, "sha256": checksum}
        return jwt.encode(claims, self._api_secret, algorithm="HS256")

    async def _post(self, body: bytes, token: str) -> bool:
        """Send once; return True unless the answer asks for a retry (429 or 5xx) or there is none."""
        headers = {
            "Authorization": token,
            "Content-Type": "application/webhook+json",
            "User-Agent": "Go-http-client/1.1",
        }
        try:
            async with self._client.post(self._url, data=body, headers=headers, timeout=_TIMEOUT) as answer:
                return answer.status != TOO_MANY_REQUESTS and answer.status < INTERNAL_SERVER_ERROR
        except (aiohttp.ClientError, TimeoutError):
            return False


def new_id(prefix: str) -> str:
    """Generate an id in LiveKit's format: a prefix for its kind, and twelve letters and digits."""
    return prefix + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(12))
