"""A web page in Chromium that holds a call with the JavaScript client and LiveKit's, and reports its states."""

import json
import math
import shutil
import struct
import subprocess
import threading
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from local.real import parts

WORKSPACE: Final = parts.ROOT / "clients" / "js"
PART: Final = "JavaScript client"
PATIENCE_SECONDS: Final = 300

_END_SECONDS: Final = 10
_MODULES: Final = {
    "/client/": WORKSPACE / "packages" / "client" / "dist",
    "/livekit-client/": WORKSPACE / "node_modules" / "livekit-client" / "dist",
}
_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
    *("--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0"),
    "--disable-features=WebRtcHideLocalIpsWithMdns",  # the server knows loopback only, and no names
)
_PAGE: Final = """\
<!doctype html>
<script type="importmap">{"imports": {"livekit-client": "/livekit-client/livekit-client.esm.mjs"}}</script>
<script type="module">
import { startCall } from "/client/index.js";
const tell = (what) => fetch("/told", { method: "POST", body: JSON.stringify(what) });
try {
  const call = await startCall(await (await fetch("/options")).json());
  await tell({ state: call.state });
  call.on("state", ({ state, reason }) => tell({ state, reason }));
  call.on("error", ({ code, message }) => tell({ error: code, message }));
} catch ({ code, message }) {
  await tell({ failure: code, message });
}
</script>
"""


def built() -> None:
    """Install and build the client; raises Missing."""
    parts.program(PART, "npm")
    parts.install(PART, ["make", "js-client"])


class CallPage:
    """The page's site, and what the page has told."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.told: list[Any] = []
        self._new = new = SimpleQueue[Any]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                folder = next((folder for folder in _MODULES if self.path.startswith(folder)), None)
                if folder:
                    self._answer("text/javascript", (_MODULES[folder] / Path(self.path).name).read_bytes())
                elif self.path == "/options":
                    self._answer("application/json", json.dumps(options).encode())
                else:
                    self._answer("text/html", _PAGE.encode())

            def do_POST(self) -> None:
                new.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer("text/plain", b"")

            def _answer(self, kind: str, content: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def until(self, state: str) -> Any:
        """Wait until the call is in a state, and return what the page told of it; blocks."""
        while True:
            told = self._new.get(timeout=PATIENCE_SECONDS)
            self.told.append(told)
            assert "failure" not in told, told
            if told.get("state") == state:
                return told


@contextmanager
def opened(folder: Path, options: dict[str, Any]) -> Iterator[CallPage]:
    """Serve the page and open it in Chromium, with a microphone that hums for a second in each seven."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or parts.program(PART, "google-chrome")
    page, microphone = CallPage(options), folder / "microphone.wav"
    _write_hum(microphone)
    flags = (*_FLAGS, f"--use-file-for-fake-audio-capture={microphone}", f"--user-data-dir={folder / 'profile'}")
    with page.server:
        threading.Thread(target=page.server.serve_forever).start()
        with subprocess.Popen(
            [chromium, *flags, page.url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as browser:
            try:
                yield page
            finally:
                browser.terminate()
                try:
                    browser.wait(_END_SECONDS)
                except subprocess.TimeoutExpired:
                    browser.kill()
        page.server.shutdown()


def _write_hum(path: Path, rate: int = 48_000) -> None:
    hum = [round(8_000 * math.sin(2 * math.pi * 440 * number / rate)) for number in range(rate)]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(struct.pack(f"<{rate * 7}h", *hum, *[0] * (rate * 6)))
