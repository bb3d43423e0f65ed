"""Sign the sample webhook as LiveKit does, with a signature that is valid for five minutes.

    .venv/bin/python events/sign_webhook.py > signed.json

It uses the functions' key: LIVEKIT_WEBHOOK_API_KEY and LIVEKIT_WEBHOOK_API_SECRET, or without these LIVEKIT_API_KEY
and LIVEKIT_API_SECRET. `make sam-invoke FUNCTION=ReceiveLivekitWebhook` signs the sample itself.
"""

import base64
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jwt

SAMPLE = Path(__file__).with_name("receive_livekit_webhook.json")
VALID_SECONDS = 300


def signed(event: dict[str, Any], api_key: str, api_secret: str) -> dict[str, Any]:
    """Return a webhook's event with a new signature over the raw bytes of its body."""
    raw = event["body"].encode()
    body = base64.b64decode(raw) if event["isBase64Encoded"] else raw
    now = int(time.time())
    claims = {
        "iss": api_key,
        "nbf": now,
        "exp": now + VALID_SECONDS,
        "sha256": base64.b64encode(hashlib.sha256(body).digest()).decode(),
    }
    token = jwt.encode(claims, api_secret, algorithm="HS256")
    return {**event, "headers": {**event["headers"], "authorization": token}}


def main() -> str | None:
    """Print the signed sample; return an error message if the key is missing."""
    for prefix in ("LIVEKIT_WEBHOOK_", "LIVEKIT_"):
        api_key, api_secret = os.environ.get(f"{prefix}API_KEY"), os.environ.get(f"{prefix}API_SECRET")
        if api_key and api_secret:
            event = json.loads(SAMPLE.read_text(encoding="utf-8"))
            json.dump(signed(event, api_key, api_secret), sys.stdout, indent=2)
            return None
    return "Set LIVEKIT_API_KEY and LIVEKIT_API_SECRET: a webhook is signed with them."


if __name__ == "__main__":
    sys.exit(main())
