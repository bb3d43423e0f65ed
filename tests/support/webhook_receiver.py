"""A receiver of webhooks on loopback."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook


@dataclass
class Receiver:
    """Verifies each request with the library of Standard Webhooks, and responds with the statuses in order."""

    url: str
    secret: str = ""
    statuses: list[int] = field(default_factory=lambda: [204])
    bodies: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def receive(self, body: bytes, headers: dict[str, str]) -> int:
        """Verify and record one request, and return the status of the response."""
        self.bodies.append(Webhook(self.secret).verify(body, headers))
        self.ids.append(headers["webhook-id"])
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["Receiver"]:
        """Run a receiver on any free port."""
        receiver: Receiver

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    status = receiver.receive(body, {name.lower(): value for name, value in self.headers.items()})
                except Exception as error:  # noqa: BLE001 (the test sees it as the response)
                    status, answer = 500, repr(error).encode()
                else:
                    answer = f"answer {len(receiver.bodies)}".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(0 if status == 204 else len(answer)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        receiver = cls(f"http://127.0.0.1:{server.server_port}/hook")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield receiver
        server.shutdown()
        server.server_close()
        thread.join()
