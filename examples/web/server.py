"""What your web framework does in your app: serve the pages, and let only them create sessions.

The server listens on loopback only. It knows each file that it serves, so no path leads to another one.
"""

import html
import http
import http.client
import json
import os
import sys
import threading
import urllib.error
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
PACKAGE: Final = ROOT / "clients/js/packages/client/dist"
FILES: Final = {
    "/": HERE / "index.html",
    "/react": HERE / "react.html",
    "/page.js": HERE / "page.js",
    "/react.js": ROOT / ".web-example/react.js",
    "/view.js": HERE / "view.js",
    "/style.css": HERE / "style.css",
    "/icon.svg": HERE / "icon.svg",
    **{f"/@pi-voice/client/{file.name}": file for file in sorted(PACKAGE.glob("*.js"))},
}
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_LARGEST_BODY: Final = 1_024
_LARGEST_REFUSAL: Final = 65_536
_MOST_REQUESTS: Final = 32

Create = Callable[[], Any]
"""Creates a session, and returns `data` of the response."""


class Refused(Exception):
    """A request that gets an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message}}


def serve(create_session: Create, api_url: str) -> None:
    """Serve until Ctrl-C; exit with one sentence if it cannot start."""
    port = int(os.environ.get("PORT", "8080"))
    if "/@pi-voice/client/index.js" not in FILES:
        sys.exit(f"The browser client is not built, there is no {PACKAGE}/index.js: run `make web-example`.")
    try:
        server = Server(create_session, api_url, port)
    except OSError as error:
        sys.exit(
            f"Port {port} cannot be used ({error.strerror}): choose another, as in `make web-example WEB_PORT=8090`."
        )
    with server:
        url = f"http://127.0.0.1:{server.server_port}"
        print(f"Talk to the agent: {url}\nThe same with React: {url}/react\nPress Ctrl-C to stop.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nStopped.")


class Server(ThreadingHTTPServer):
    """Serves the files and `POST /session`, with a bounded number of requests at a time."""

    def __init__(self, create_session: Create, api_url: str, port: int) -> None:
        self.create_session = create_session
        self.api_url = api_url
        self._slots = threading.BoundedSemaphore(_MOST_REQUESTS)
        super().__init__(("127.0.0.1", port), Handler)
        self.hosts = {f"127.0.0.1:{self.server_port}", f"localhost:{self.server_port}"}

    @property
    def headers(self) -> dict[str, str]:
        """The headers of each response."""
        livekit = os.environ.get("LIVEKIT_URL", "")
        gemini = "wss://generativelanguage.googleapis.com"
        stand_ins = "ws://127.0.0.1:* ws://localhost:*" if urlsplit(self.api_url).scheme == "http" else ""
        sources = " ".join(filter(None, (self.api_url, gemini, stand_ins, livekit, livekit.replace("ws", "http", 1))))
        return {
            "Content-Security-Policy": "; ".join(
                (
                    "default-src 'none'",
                    "script-src 'self'",
                    "style-src 'self'",
                    "img-src 'self'",
                    f"connect-src 'self' {sources}",
                    "base-uri 'none'",
                    "form-action 'none'",
                    "frame-ancestors 'none'",
                )
            ),
            "Permissions-Policy": "microphone=(self), speaker-selection=(self), camera=(), geolocation=()",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a request in a thread of its own, once a slot is free."""
        self._slots.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle a request, and free its slot."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    server_version = "pi-voice-example"
    sys_version = ""
    timeout = 10  # seconds in which a request has to arrive

    def do_GET(self) -> None:
        """Serve a file."""
        self._respond(self._file)

    def do_HEAD(self) -> None:
        """Serve the headers of a file."""
        self._respond(self._file)

    def do_POST(self) -> None:
        """Create a session for a page of this server."""
        self._respond(self._session)

    def _file(self) -> tuple[str, bytes]:
        file = FILES.get(self.path.partition("?")[0])
        if file is None:
            raise Refused(404, "not_found", "There is no such page.")
        try:
            content = file.read_bytes()
        except OSError:
            raise Refused(404, "not_found", "This file is not built: run `make web-example`.") from None
        if file.suffix == ".html":
            content = content.replace(b"{{api_url}}", html.escape(self.server.api_url).encode())
        return TYPES[file.suffix], content

    def _session(self) -> tuple[str, bytes]:
        self._read_body()
        if self.path != "/session":
            raise Refused(404, "not_found", "There is only POST /session.")
        # A page of another site could spend the key: browsers say which page a POST comes from.
        if self.headers.get_all("Origin") != [f"http://{self.headers['Host']}"]:
            raise Refused(403, "forbidden_origin", "Only the pages of this server may create sessions.")
        try:
            session = self.server.create_session()
        except urllib.error.HTTPError as refusal:
            raise _refused(refusal) from None
        except (OSError, http.client.HTTPException):
            raise _unavailable(f"Pi Voice at {self.server.api_url} does not answer: is `make run` running?") from None
        except (ValueError, KeyError, TypeError):
            raise _unavailable(f"The answer of {self.server.api_url} is not one of Pi Voice: check BASE.") from None
        return "application/json", json.dumps(session).encode()

    def _read_body(self) -> None:
        """Read the body, which may be empty, so that the client gets the response."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal() or int(length) > _LARGEST_BODY:
            raise Refused(413, "request_too_large", "POST /session takes no body.")
        self.rfile.read(int(length))

    def _respond(self, answer: Callable[[], tuple[str, bytes]]) -> None:
        status = 200
        try:
            self._check_host()
            kind, content = answer()
        except Refused as refused:
            status, kind, content = refused.status, "application/json", json.dumps(refused.body).encode()
            if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
                print(refused, file=sys.stderr, flush=True)
        self.send_response(status)
        for name, value in {**self.server.headers, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _check_host(self) -> None:
        """Refuse another host name: by DNS rebinding, another site could have one for this server."""
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            raise Refused(403, "forbidden_host", "Open this page at 127.0.0.1 or localhost.")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing of a request that was answered."""


def _refused(refusal: urllib.error.HTTPError) -> Refused:
    """Say which error Pi Voice gave: it is the operator who can remove it, not the visitor."""
    with refusal:
        try:
            error = json.loads(refusal.read(_LARGEST_REFUSAL))["error"]
            said = f"{error['code']}: {error['message']}"
        except (OSError, ValueError, KeyError, TypeError):
            said = f"status {refusal.code}"
    return Refused(502, "session_refused", f"Pi Voice refused to create a session, {said}")


def _unavailable(message: str) -> Refused:
    return Refused(503, "api_unavailable", message)
