"""The two reference clients hold whole calls with the stand-in: the Python one here, the browser's in Chromium."""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import pytest
from aiohttp import web

from local.http_server import serving
from local.running import running_api

ROOT: Final = Path(__file__).parents[2]
CLIENTS: Final = ROOT / "docs" / "clients"
CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
AGENT: Final[dict[str, Any]] = json.loads((ROOT / "examples" / "booking.json").read_text())
SAYS: Final[list[str]] = json.loads((ROOT / "examples" / "booking.caller.json").read_text())["says"]
PAGE: Final = """\
<!doctype html>
<script type="module">
import { holdCall } from "/client.js";
const { session, says } = await (await fetch("/call")).json();
const words = says.values();
let sound = 0;
const reply = () => { const next = words.next(); return next.done ? null : { text: next.value }; };
const told = await holdCall(session, reply, (audio) => { sound += audio ? atob(audio).length : 0; })
  .catch((error) => ({ error: String(error) }));
await fetch("/told", { method: "POST", body: JSON.stringify({ ...told, sound }) });
</script>
"""


@dataclass(frozen=True)
class Api:
    url: str
    key: str

    def post(self, path: str, document: object) -> Any:
        request = urllib.request.Request(  # noqa: S310 (loopback)
            f"{self.url}/api/v1/voice{path}",
            data=json.dumps(document).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 (loopback)
            return json.load(answer)

    def session(self, **terms: object) -> Any:
        agent = self.post("/agents", AGENT)["data"]["agent_id"]
        order = {"agent_id": agent, "participant": {"identity": "guest"}, "ttl_seconds": 900, **terms}
        return self.post("/sessions", order)["data"]


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with running_api({**os.environ, "GEMINI_STAND_IN_PACE": "20"}) as running:
        yield Api(running.base_url, running.api_key)


def python_client() -> Any:
    spec = importlib.util.spec_from_file_location("client", CLIENTS / "client.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_the_whole_call(turns: list[dict[str, str]]) -> bool:
    spoken = [turn["text"] for turn in turns if turn["role"] == "agent"]
    asked = all(any(question in text for text in spoken) for question in AGENT["questions"])
    answered = [turn["text"] for turn in turns if turn["role"] == "user"] == SAYS
    closed = AGENT["behaviors"]["closing_message"] in spoken[-1]
    return asked and answered and closed


def test_the_python_client_holds_a_whole_call_whose_transcript_gives_the_results(api: Api) -> None:
    session, words = api.session(), iter(SAYS)

    turns, end_reason = asyncio.run(
        python_client().hold_call(session, lambda _: {"text": word} if (word := next(words, None)) else None)
    )

    assert is_the_whole_call(turns), turns
    state = api.post(f"/sessions/{session['session_id']}/complete", {"transcript": turns, "end_reason": end_reason})
    assert (state["end_reason"], state["extraction"]["status"]) == ("completed", "succeeded")
    assert state["results"]["guest_name"] == "Ana Torres"


def test_the_python_client_says_why_gemini_hung_up(api: Api) -> None:
    session = api.session()
    session["connection"]["gemini_live"]["token"] = "auth_tokens/forged"

    with pytest.raises(ConnectionError, match="close code 10"):
        asyncio.run(python_client().hold_call(session, lambda _: None))


def test_the_python_client_keeps_what_was_said_when_the_token_runs_out_and_does_not_knock_again() -> None:
    calls: list[int] = []
    said: list[dict[str, Any]] = [
        {"setupComplete": {}},
        {"sessionResumptionUpdate": {"newHandle": "h1", "resumable": True}},
        {"serverContent": {"outputTranscription": {"text": "Hello."}}},
    ]

    async def answer(request: web.Request) -> web.WebSocketResponse:
        calls.append(1)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        for message in said:
            await socket.send_bytes(json.dumps(message).encode())
        await socket.close(code=1011, message=b"auth token has expired")
        return socket

    async def call() -> Any:
        app = web.Application()
        app.router.add_get("/live", answer)
        async with serving(app) as url:
            live = {"url": f"{url}/live", "token": "t", "setup": {"setup": {"model": "models/m"}}}
            session = {"connection": {"gemini_live": live}, "max_duration_seconds": 30}
            return await python_client().hold_call(session, lambda _: None)

    assert asyncio.run(call()) == ([{"role": "agent", "text": "Hello."}], "disconnected")
    assert calls == [1]


def test_the_python_client_ends_the_call_at_its_cap(api: Api) -> None:
    session = {**api.session(), "max_duration_seconds": 0.2}

    turns, end_reason = asyncio.run(python_client().hold_call(session, lambda _: {"text": "And another thing."}))

    assert end_reason == "client_timer"
    assert isinstance(turns, list)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_browser_s_client_holds_a_whole_call_and_gets_its_sound(api: Api, tmp_path: Path) -> None:
    session, told = api.session(), SimpleQueue[dict[str, Any]]()
    served = {
        "/": ("text/html", PAGE),
        "/client.js": ("text/javascript", (CLIENTS / "client.js").read_text()),
        "/call": ("application/json", json.dumps({"session": session, "says": SAYS})),
    }

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, text = served.get(self.path, ("text/plain", ""))
            self._answer(kind, text)

        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer("text/plain", "")

        def _answer(self, kind: str, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.serve_forever).start()
        page = f"http://127.0.0.1:{site.server_port}/"
        with subprocess.Popen(
            [str(CHROMIUM), *QUIET, f"--user-data-dir={tmp_path}", "--remote-debugging-port=0", page],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as browser:
            try:
                call = told.get(timeout=90)
            finally:
                browser.terminate()
                site.shutdown()

    assert call.get("endReason") == "completed", call
    assert is_the_whole_call(call["turns"]), call
    assert call["sound"] > 24_000 * 2  # more than a second of 16-bit sound at 24 kHz
