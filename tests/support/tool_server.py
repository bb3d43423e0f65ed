"""A server on loopback that books tables for an agent: each call once, by its `webhook-id`."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook


@dataclass
class ToolServer:
    """Verifies each call with the library of Standard Webhooks, and books a table for it."""

    url: str
    secret: str = ""
    asked: list[str] = field(default_factory=list)
    """The `webhook-id` of each request."""
    bookings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The answers by `webhook-id`."""
    before: Callable[[], object] = lambda: None
    """Runs when a call has arrived, before it is booked."""
    after: Callable[[], object] = lambda: None
    """Runs when a call was booked, before it is answered."""

    def book(self, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        """Verify and book one call."""
        call = Webhook(self.secret).verify(body, headers)
        self.asked.append(headers["webhook-id"])
        self.before()
        answer = self.bookings.setdefault(headers["webhook-id"], {"table": len(self.bookings), "of": call["data"]})
        self.after()
        return answer

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["ToolServer"]:
        """Run a server on any free port."""
        server: ToolServer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    answer = server.book(body, {name.lower(): value for name, value in self.headers.items()})
                    status = 200
                except Exception as error:  # noqa: BLE001 (the test sees it as the response)
                    status, answer = 500, {"error": repr(error)}
                content = json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:  # the function died meanwhile
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        listening.daemon_threads = True
        server = cls(f"http://127.0.0.1:{listening.server_port}/tools")
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            listening.server_close()
            thread.join()
