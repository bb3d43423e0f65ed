"""A receiver of webhooks: it verifies each request, skips repeated events, and prints a line for each event."""

import os
import re
from collections import deque
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

PORT = int(os.environ.get("PORT", "9000"))
webhook = Webhook(os.environ["WEBHOOK_SECRET"])
seen: deque[str] = deque(maxlen=10_000)  # in your app: a table, written in the transaction that handles the event


def receive(headers: Message, body: bytes) -> int:
    """Handle a request, and return the status of the response."""
    try:
        event = webhook.verify(body, dict(headers))  # the body as it was received, not parsed and written again
    except (WebhookVerificationError, ValueError):  # ValueError: a malformed signature
        print("refused: the signature does not match", flush=True)
        return 401
    if headers["webhook-id"] not in seen:
        data = event["data"]
        print(event["type"], data.get("session_id") or data["endpoint_id"], data.get("status", ""), flush=True)
        seen.append(headers["webhook-id"])
    return 204


class Handler(BaseHTTPRequestHandler):
    """Passes POST requests to `receive`."""

    timeout = 10  # seconds in which a request has to arrive

    def do_POST(self) -> None:
        """Read a body of up to 10 MB, and answer."""
        length = self.headers.get("Content-Length", "")
        body = self.rfile.read(int(length)) if re.fullmatch("[0-9]{1,7}", length) else b""
        self.send_response(receive(self.headers, body))
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Print no access log."""


with HTTPServer(("127.0.0.1", PORT), Handler) as server, suppress(KeyboardInterrupt):
    print(f"Listening on http://127.0.0.1:{PORT}/", flush=True)
    server.serve_forever()
