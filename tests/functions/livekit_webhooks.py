"""LiveKit's webhooks, signed, and their sender."""

import base64
import hashlib
import json
import time
from typing import Any

import jwt

from tests.functions.api import WEBHOOK_KEY, WEBHOOK_SECRET, Answer, Functions, http_event


def signed(body: str, *, key: str = WEBHOOK_KEY, secret: str = WEBHOOK_SECRET, **claims: object) -> str:
    """Sign a body as LiveKit does."""
    now = int(time.time())
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    return jwt.encode({"iss": key, "nbf": now, "exp": now + 300, "sha256": digest, **claims}, secret, "HS256")


def event(kind: str, session: dict[str, Any], *, sid: str | None = None, at: int = 0, **room: str) -> str:
    """Write an event as LiveKit does: camelCase, int64 as strings, zero values absent."""
    return json.dumps(
        {
            "event": kind,
            "id": f"EV_{kind}",
            "createdAt": str(at or int(time.time())),
            "room": {
                "sid": sid or session["sid"],
                "name": session["session_id"],
                "emptyTimeout": 600,
                "turnPassword": "a-turn-password-that-is-not-stored",
                **room,
            },
        }
    )


class Webhook:
    def __init__(self, functions: Functions) -> None:
        self._functions = functions

    def send(self, body: str, token: str | None = None, *, path: str = "/", binary: bool = True) -> Answer:
        headers = {"content-type": "application/webhook+json"}
        if token != "":
            headers["authorization"] = token or signed(body)
        request = http_event("POST", path, headers, body, binary=binary)
        answer = self._functions.invoke("receive_livekit_webhook", request)
        return Answer(answer["statusCode"], answer["headers"], answer["body"])
