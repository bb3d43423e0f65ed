"""The webhooks of a call: a receiver on this machine that verifies them, and the API's log of their deliveries."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from demo.errors import CallFailed
from demo.voice_api import WEBHOOK_EVENTS, Json, VoiceApi
from local.http_server import serving

SECONDS: Final = 30.0
"""Time limit for the deliveries of a call, counted from its end."""

_LARGEST_BODY: Final = 10_000_000
_PAUSE_SECONDS: Final = 0.2


@dataclass
class Receiver:
    """A webhook endpoint of an API that can reach this machine."""

    api: VoiceApi
    url: str = ""
    endpoint_id: str = ""
    secret: str = ""
    verified: dict[str, Json] = field(default_factory=dict)
    """The events that came with the right signature, by their ids."""

    async def receive(self, request: web.Request) -> web.Response:
        """Verify a webhook."""
        try:
            event = Webhook(self.secret).verify(await request.read(), dict(request.headers))
        except (WebhookVerificationError, ValueError):
            return web.Response(status=401)
        self.verified[request.headers["webhook-id"]] = event
        return web.Response(status=204)

    async def deliveries(self, session_id: str, expected: Collection[str], seconds: float = SECONDS) -> list[Json]:
        """Return the deliveries of a session's events, oldest first, once those of all expected types have ended.

        After the time limit, some may be missing or pending. Raises CallFailed.
        """
        found: list[Json] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(each["status"] == "pending" for each in found) or not set(expected) <= _types(found):
                    found = await self.api.webhook_deliveries(self.endpoint_id, session_id)
                    await asyncio.sleep(_PAUSE_SECONDS)
        return found[::-1]

    def line(self, delivery: Json) -> str:
        """Say what came of a delivery."""
        if delivery["status"] != "succeeded":
            return f"{delivery['type']:<20}  {delivery['status']} {delivery['error'] or ''}".rstrip()
        event = self.verified.get(delivery["event_id"])
        signature = "signature verified" if event else "signature not verified"
        calls = ", ".join(call["name"] for call in event["data"].get("tool_calls") or ()) if event else ""
        line = f"{delivery['type']:<20}  {signature}  {delivery['milliseconds']} ms"
        return f"{line}  tool calls: {calls}" if calls else line


def _types(deliveries: Collection[Json]) -> set[str]:
    return {each["type"] for each in deliveries}


@asynccontextmanager
async def receiving(api: VoiceApi) -> AsyncIterator[Receiver]:
    """Serve a receiver, with an endpoint of its own that is deleted in the end; raises CallFailed."""
    receiver = Receiver(api)
    app = web.Application(client_max_size=_LARGEST_BODY)
    app.router.add_post("/", receiver.receive)
    async with serving(app) as url:
        receiver.url = f"{url}/"
        endpoint = await api.create_webhook_endpoint(
            {"url": receiver.url, "events": WEBHOOK_EVENTS, "include": ["transcript"], "description": "make demo"}
        )
        receiver.endpoint_id, receiver.secret = endpoint["endpoint_id"], endpoint["secret"]
        try:
            yield receiver
        finally:
            with suppress(CallFailed):  # tables in memory are lost anyway
                await api.delete_webhook_endpoint(receiver.endpoint_id)
