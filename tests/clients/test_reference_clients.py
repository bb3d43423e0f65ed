"""The two reference clients hold whole calls with the stand-in: the Python one here, the browser's in Chromium."""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import pytest

from local.running import running_api
from tests.clients.relay import held_back
from tests.clients.troubles import GOODBYE, Troubles

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
const { session, base, says } = await (await fetch("/call")).json();
const words = says.values();
let sound = 0;
const reply = (turns) => {
  if (turns.at(-1).text === "GOODBYE") return null;
  const { done, value } = words.next();
  if (value === "CLOSE") setTimeout(() => (location.href = "about:blank"));
  return done ? null : { text: value };
};
const told = await holdCall(session, base, reply, (audio) => { sound += audio ? atob(audio).length : 0; })
  .catch((error) => ({ error: String(error) }));
await fetch("/told", { method: "POST", body: JSON.stringify({ ...told, sound }) });
</script>
""".replace("GOODBYE", GOODBYE)
PATIENCE_SECONDS: Final = 300
"""More than anything takes here, the start of a browser on a busy machine included."""

MANY: Final = [f"Line {number}." for number in range(1_000)]
"""What somebody says who goes on until the other side says goodbye."""


@dataclass(frozen=True)
class Api:
    url: str
    key: str

    def ask(self, path: str, document: object = None, key: str | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 (loopback)
            f"{self.url}/api/v1/voice{path}",
            data=None if document is None else json.dumps(document).encode(),
            headers={"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 (loopback)
            return json.load(answer)

    def session(self, **terms: object) -> Any:
        agent = self.ask("/agents", AGENT)["data"]["agent_id"]
        order = {"agent_id": agent, "participant": {"identity": "guest"}, "ttl_seconds": 900, **terms}
        return self.ask("/sessions", order)["data"]

    def state(self, session: Any) -> Any:
        return self.ask(f"/sessions/{session['session_id']}", key=session["client_token"])["data"]


class Site:
    """The web site of whoever uses the API: another origin than the API's."""

    def __init__(self) -> None:
        self.served: dict[str, tuple[str, str]] = {}
        self.told = told = SimpleQueue[dict[str, Any]]()
        served = self.served

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(*served.get(self.path, ("text/plain", "")))

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

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def visited(self, tmp_path: Path, base: str, session: Any, says: list[str]) -> Iterator[None]:
        """Serve a page that holds a call, and have Chromium look at it."""
        self.served.update(
            {
                "/": ("text/html", PAGE),
                "/client.js": ("text/javascript", (CLIENTS / "client.js").read_text()),
                "/call": ("application/json", json.dumps({"session": session, "base": base, "says": says})),
            }
        )
        with subprocess.Popen(
            [str(CHROMIUM), *QUIET, f"--user-data-dir={tmp_path}", "--remote-debugging-port=0", self.origin],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as browser:
            try:
                yield
            finally:
                browser.terminate()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    with site.server:
        threading.Thread(target=site.server.serve_forever).start()
        yield site
        site.server.shutdown()


@pytest.fixture(scope="module")
def api(site: Site) -> Iterator[Api]:
    with running_api({**os.environ, "GEMINI_STAND_IN_PACE": "20", "CORS_ALLOW_ORIGINS": site.origin}) as running:
        yield Api(running.base_url, running.api_key)


def python_client() -> Any:
    spec = importlib.util.spec_from_file_location("client", CLIENTS / "client.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PAUSES = tuple(pause / 50 for pause in module.PAUSES)  # the copy is ours, and nobody has to wait
    return module


def typing(says: list[str]) -> Callable[[Any], dict[str, str] | None]:
    words = iter(says)
    return lambda turns: {"text": word} if turns[-1]["text"] != GOODBYE and (word := next(words, None)) else None


def is_the_whole_call(turns: list[dict[str, str]]) -> bool:
    spoken = [turn["text"] for turn in turns if turn["role"] == "agent"]
    asked = all(any(question in text for text in spoken) for question in AGENT["questions"])
    answered = [turn["text"] for turn in turns if turn["role"] == "user"] == SAYS
    closed = AGENT["behaviors"]["closing_message"] in spoken[-1]
    return asked and answered and closed


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.2)


# ---- Python ----


def test_the_python_client_holds_a_whole_call_keeps_it_on_the_way_and_gets_its_results(api: Api) -> None:
    session = api.session()

    async def call() -> Any:
        async with held_back(session, lambda: bool(api.state(session)["checkpoint_turns"])) as held:
            return await python_client().hold_call(held, api.url, typing(SAYS))

    state = asyncio.run(call())

    assert is_the_whole_call(state["transcript"]), state
    assert (state["status"], state["completed_by"], state["end_reason"]) == ("completed", "client", "completed")
    assert (state["extraction"]["status"], state["results"]["guest_name"]) == ("succeeded", "Ana Torres")
    assert 0 < state["checkpoint_turns"] < len(state["transcript"])


def test_the_python_client_goes_on_with_other_tokens_where_its_own_is_refused(api: Api) -> None:
    session = api.session()
    session["connection"]["gemini_live"]["token"] = "auth_tokens/forged"

    state = asyncio.run(python_client().hold_call(session, api.url, typing(SAYS)))

    assert is_the_whole_call(state["transcript"]), state


def test_the_python_client_ends_the_call_at_its_cap(api: Api) -> None:
    session = {**api.session(), "max_duration_seconds": 0.2}

    state = asyncio.run(python_client().hold_call(session, api.url, lambda _: {"text": "And another thing."}))

    assert (state["status"], state["end_reason"]) == ("completed", "client_timer")


def test_the_python_client_hangs_up_when_the_session_was_stopped(api: Api) -> None:
    session = api.session()
    session["connection"]["gemini_live"]["token"] = "auth_tokens/forged"
    api.ask(f"/sessions/{session['session_id']}/stop", {}, session["client_token"])

    with pytest.raises(ConnectionError, match="close code 1007"):
        asyncio.run(python_client().hold_call(session, api.url, typing(SAYS)))


# ---- Python, with an API and a Gemini that have their troubles ----


def call_with(troubles: Troubles, says: list[str]) -> Any:
    async def call() -> Any:
        async with troubles.served() as (session, base):
            return await python_client().hold_call(session, base, typing(says))

    return asyncio.run(call())


def test_turns_that_could_not_be_sent_are_sent_with_the_next() -> None:
    troubles = Troubles(transcript=[503, None, 500])
    troubles.has_shown = lambda: len(troubles.kept) > 2

    state = call_with(troubles, MANY)

    said = [turn["text"] for turn in state["transcript"]][1::2]
    assert said == MANY[: len(said)]
    assert troubles.kept == state["transcript"][: len(troubles.kept)]
    assert len(troubles.kept) > 2


def test_a_gap_says_from_where_to_send() -> None:
    troubles = Troubles(forgets_after=2)
    troubles.has_shown = lambda: troubles.gaps > 0 and len(troubles.kept) > 2

    state = call_with(troubles, MANY)

    assert troubles.gaps > 0
    assert troubles.kept == state["transcript"][: len(troubles.kept)]
    assert len(troubles.kept) > 2


def test_a_completion_whose_answer_got_lost_is_asked_for_again_under_the_same_key() -> None:
    troubles = Troubles(complete=[None, 503])

    state = call_with(troubles, ["One."])

    assert state["status"] == "completed"
    assert len(troubles.keys) == 3
    assert len(set(troubles.keys)) == 1
    assert len(set(troubles.endings)) == 1


def test_a_completion_that_is_refused_for_good_is_not_repeated() -> None:
    troubles = Troubles(complete=[413])

    with pytest.raises(ConnectionError, match="could not be completed: voice_transcript_too_large"):
        call_with(troubles, ["One."])
    assert len(troubles.keys) == 1


def test_a_session_that_somebody_else_has_completed_is_looked_up() -> None:
    assert call_with(Troubles(complete=[409]), ["One."])["completed_by"] == "somebody else"


def test_a_token_that_runs_out_is_renewed_and_the_conversation_resumed() -> None:
    troubles = Troubles(token_turns=2)

    state = call_with(troubles, ["One.", "Two.", "Three.", "Four.", "Five."])

    assert [turn["text"] for turn in state["transcript"]][1::2] == ["One.", "Two.", "Three.", "Four.", "Five."]
    assert troubles.renewals == [True, True]


def test_a_conversation_that_cannot_be_resumed_is_taken_up_again() -> None:
    troubles = Troubles(token_turns=2, knows_handles=False)

    state = call_with(troubles, ["One.", "Two.", "Three."])

    assert state["status"] == "completed"
    assert troubles.renewals == [True, False]


def test_a_gemini_that_lets_nobody_in_is_given_up() -> None:
    troubles = Troubles(token_turns=0)

    with pytest.raises(ConnectionError, match="close code 1011"):
        call_with(troubles, ["One."])
    assert 1 < len(troubles.renewals) < 10


# ---- The browser ----


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_browser_s_client_gets_over_the_same_troubles(site: Site, tmp_path: Path) -> None:
    troubles = Troubles(transcript=[503, None], forgets_after=2, complete=[None, 503], token_turns=2)
    troubles.has_shown = lambda: troubles.gaps > 0 and len(troubles.renewals) > 2

    async def call() -> Any:
        async with troubles.served() as (session, base):
            with site.visited(tmp_path, base, session, MANY):
                return await asyncio.to_thread(site.told.get, timeout=PATIENCE_SECONDS)

    state = asyncio.run(call())

    said = [turn["text"] for turn in state["transcript"]][1::2]
    assert said == MANY[: len(said)]
    assert troubles.kept == state["transcript"][: len(troubles.kept)]
    assert (troubles.gaps, troubles.renewals) == (1, [True] * (len(said) // 2))
    assert (len(troubles.keys), len(set(troubles.keys)), len(set(troubles.endings))) == (3, 1, 1)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_browser_s_client_holds_a_whole_call_from_another_origin_and_completes_it(
    api: Api, site: Site, tmp_path: Path
) -> None:
    session = api.session()

    async def call() -> Any:
        async with held_back(session, lambda: bool(api.state(session)["checkpoint_turns"])) as held:
            with site.visited(tmp_path, api.url, held, SAYS):
                return await asyncio.to_thread(site.told.get, timeout=PATIENCE_SECONDS)

    state = asyncio.run(call())

    assert state.get("status") == "completed", state
    assert is_the_whole_call(state["transcript"]), state
    assert (state["completed_by"], state["results"]["guest_name"]) == ("client", "Ana Torres")
    assert 0 < state["checkpoint_turns"] < len(state["transcript"])
    assert state["sound"] > 24_000 * 2  # more than a second of 16-bit sound at 24 kHz


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_what_was_said_before_the_tab_was_closed_is_kept_to_the_last_word(api: Api, site: Site, tmp_path: Path) -> None:
    session = api.session()

    with site.visited(tmp_path, api.url, session, [SAYS[0], "CLOSE"]):
        until(lambda: bool(api.state(session)["checkpoint_turns"] >= 4))

    state = api.ask(f"/sessions/{session['session_id']}/complete", {}, session["client_token"])
    said = [turn["text"] for turn in state["transcript"] if turn["role"] == "user"]
    assert said == [SAYS[0], "CLOSE"]
