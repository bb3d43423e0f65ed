"""The two reference clients with other constants: the Python one as a module, the JavaScript one on a web page."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import pytest

from tests.support.template import ROOT

Json = Any

CLIENTS: Final = ROOT / "docs" / "clients"
CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_SECONDS: Final = 300
"""Longer than any step takes, including the start of a browser on a busy machine."""

UNHURRIED: Final = {"PROMPT_SECONDS": PATIENCE_SECONDS, "CLOSING_SECONDS": 60}
"""Constants for a machine that stands still for some seconds."""

GOODBYE: Final = "Goodbye."
"""What the agent says when the client should hang up."""

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

_QUIET: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_PAGE: Final = """\
<!doctype html>
<script type="module">
const given = await (await fetch("/given")).json();
const ended = await (async () => { SCRIPT })().catch((error) => ({ error: String(error) }));
await fetch("/ended", { method: "POST", body: JSON.stringify(ended) });
</script>
"""
HOLD_CALL: Final = """
const { holdCall } = await import("/client.js");
const words = given.says.values();
let sound = 0;
const reply = (turns) => {
  if (turns.at(-1).text === given.goodbye) return null;
  const { done, value } = words.next();
  if (value === "CLOSE") setTimeout(() => (location.href = "about:blank"));
  return done ? null : typeof value === "string" ? { text: value } : value;
};
const play = (audio) => { sound += audio ? atob(audio).length : 0; };
return { ...(await holdCall(given.session, given.base, reply, play)), sound };
"""


def python_client(**constants: object) -> Any:
    """Return a private copy of the Python client, with short pauses and other constants."""
    spec = importlib.util.spec_from_file_location("client", CLIENTS / "client.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PAUSES = tuple(pause / 50 for pause in module.PAUSES)
    for name, value in {**UNHURRIED, **constants}.items():
        assert hasattr(module, name)
        setattr(module, name, value)
    return module


def _browser_client(constants: Mapping[str, object]) -> str:
    script = (CLIENTS / "client.js").read_text(encoding="utf-8")
    for name, value in {**UNHURRIED, **constants}.items():
        script, count = re.subn(rf"(?m)^const {name} = .*?;", f"const {name} = {json.dumps(value)};", script)
        assert count == 1
    return script


class Site:
    """The web site of an API user, on another origin than the API."""

    def __init__(self) -> None:
        self.served: dict[str, tuple[str, str]] = {}
        self.ended = ended = SimpleQueue[Json]()
        served = self.served

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(*served.get(self.path, ("text/plain", "")))

            def do_POST(self) -> None:
                ended.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer("text/plain", "")

            def _answer(self, kind: str, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def visited(
        self, tmp_path: Path, given: Json, script: str = HOLD_CALL, constants: Mapping[str, object] | None = None
    ) -> Iterator[None]:
        """Serve a page with a script, by default one that holds a call, and open it in Chromium."""
        self.served.update(
            {
                "/": ("text/html", _PAGE.replace("SCRIPT", script)),
                "/client.js": ("text/javascript", _browser_client(constants or {})),
                "/transcript.js": ("text/javascript", (CLIENTS / "transcript.js").read_text(encoding="utf-8")),
                "/given": ("application/json", json.dumps({"goodbye": GOODBYE, **given})),
            }
        )
        with subprocess.Popen(
            [str(CHROMIUM), *_QUIET, f"--user-data-dir={tmp_path}", "--remote-debugging-port=0", self.origin],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as browser:
            try:
                yield
            finally:
                browser.terminate()

    def result(self, tmp_path: Path, given: Json, script: str = HOLD_CALL, **constants: object) -> Json:
        """Open a page, and return what its script returns."""
        with self.visited(tmp_path, given, script, constants):
            return self.ended.get(timeout=PATIENCE_SECONDS)
