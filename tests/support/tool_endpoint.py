"""The endpoint of server tools on loopback: it verifies each request, and answers with any bytes."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from standardwebhooks import Webhook

Sent = bytes | Callable[[socket.socket], None]
"""What is written after a request: these bytes, or whatever a function does with the connection."""

EMPTY: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


def answer_of(body: bytes | str, status: int = 200, *headers: str) -> bytes:
    """Return a response with this body."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


class ToolEndpoint:
    """Answers the requests in order with `answers`, then each with the last one."""

    def __init__(self) -> None:
        self.secret = ""
        self.answers: list[Sent] = [EMPTY]
        self.bodies: list[dict[str, Any]] = []
        """The verified bodies of the requests."""
        self.ids: list[str] = []
        self.signatures: list[str] = []
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """The URL of the endpoint."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}/tools"

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["ToolEndpoint"]:
        """Run an endpoint on any free port."""
        endpoint = cls()
        accepting = threading.Thread(target=endpoint._accept)
        accepting.start()
        try:
            yield endpoint
        finally:
            endpoint._listening.shutdown(socket.SHUT_RDWR)
            endpoint._listening.close()
            accepting.join()
            for connection in endpoint._open.copy():
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in endpoint._threads:
                thread.join()

    def _accept(self) -> None:
        with suppress(OSError):  # it was shut down
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                self._open.add(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as stream:
            while self._receive(stream):
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if isinstance(answer, bytes):
                    connection.sendall(answer)
                else:
                    answer(connection)
        self._open.discard(connection)

    def _receive(self, stream: Any) -> bool:
        """Verify and record one request; return whether there was one."""
        headers: dict[str, str] = {}
        if not stream.readline():
            return False
        while line := stream.readline().strip().decode():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        body = stream.read(int(headers["content-length"]))
        self.bodies.append(Webhook(self.secret).verify(body, headers))
        self.ids.append(headers["webhook-id"])
        self.signatures.append(headers["webhook-signature"])
        return True


def json_answer(document: object, status: int = 200) -> bytes:
    """Return a response with a JSON document."""
    return answer_of(json.dumps(document), status)
