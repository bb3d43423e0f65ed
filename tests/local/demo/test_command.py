"""`make demo` in a terminal: its output, its exit status, and the reasons not to start."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

from demo.command import run
from demo.errors import CallFailed
from local.errors import CannotStart
from local.http_server import serving
from local.running import LocalApi, running_api
from local.stand_ins.gemini_live import PACE, LiveTimes
from tests.local.live.conftest import SERVICE, SETUP, Gemini, running_gemini
from tests.local.processes import children, is_running, until
from tests.support.template import ROOT
from tests.support.tls import loopback_tls

CLEAN: Final = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
FAST: Final = "20"
UNHURRIED: Final = "4"
"""A pace at which a call is long enough for the events of a test, even on a busy machine."""

SECONDS: Final = 600

Ended = subprocess.CompletedProcess[str]


def demo(*arguments: str, **environment: str) -> Ended:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT,
        env={**CLEAN, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


# ---- The examples ----


SHOWN: Final = {
    "intake": (
        "Nora of Fjord Dental  Fjord Dental, this is Nora. May I have your full name?",
        "Erik Dahl             A piece of my tooth has broken off.",
        "appointment.time │ time                                               │ 09:30:00Z",
    ),
    "booking": (
        "restaurant: Linden by the lake",
        "Mia         Linden by the lake, this is Mia, how nice that you call! What is your name?",
        "Ana Torres  Five. No, wait, six of us.",
        'Mia         show_table {"area": "terrace", "guests": 6} → {"table": "T12", "seats": 6, "view": "the lake"}',
        'Mia         hang_up {"reason": ',
        "the agent has said goodbye and hung up",
        "party_size │ integer                                              │ 6",
    ),
    "survey": (
        "Jonas von Nordlicht Energie  Guten Tag, hier ist Jonas von Nordlicht Energie.",
        "Lena Vogt                    Der Techniker war pünktlich und freundlich.",
        "zufriedenheit.weiterempfehlen │ boolean                               │ true",
    ),
    "support": (
        "Rob Finch            Yes, hello, it is 40718.",
        "max_duration_seconds has passed, so we hung up",
        "│ 40718 ",
    ),
}


@pytest.fixture(scope="module")
def api() -> Iterator[LocalApi]:
    with running_api({**CLEAN, PACE: FAST}) as running:
        yield running


@pytest.mark.parametrize("name", ["booking", "survey"])
def test_a_whole_call_is_shown_with_its_results(api: LocalApi, name: str, tmp_path: Path) -> None:
    uncapped = without_a_cap(name, tmp_path)

    ended = demo(uncapped, "--base", api.base_url, "--pace", FAST, API_KEY=api.api_key)

    assert_a_whole_call(name, ended)
    assert "Webhooks" not in ended.stdout  # an API elsewhere cannot reach this machine
    note = "The API does not reach this machine, so the agent has no tools on a server: find_slots, book_table."
    assert (note in ended.stdout) == (name == "booking")


def test_a_call_that_ends_at_its_cap_is_shown_with_its_results(api: LocalApi) -> None:
    ended = demo("examples/support.json", "--base", api.base_url, "--pace", "3", API_KEY=api.api_key)

    assert_a_whole_call("support", ended)


def without_a_cap(name: str, folder: Path) -> str:
    """Copy an example without its cap, which a fast call on a busy machine would reach."""
    agent = json.loads((ROOT / f"examples/{name}.json").read_text(encoding="utf-8"))
    agent["behaviors"]["max_duration_seconds"] = None
    (folder / f"{name}.json").write_text(json.dumps(agent), encoding="utf-8")
    for file in (ROOT / "examples").glob(f"{name}[._]*"):
        if not (folder / file.name).exists():
            shutil.copy(file, folder)
    return str(folder / f"{name}.json")


def assert_a_whole_call(name: str, ended: Ended) -> None:
    text = ended.stdout
    assert (ended.returncode, ended.stderr) == (0, ""), text
    assert [part for part in SHOWN[name] if part not in text] == []
    assert "extraction succeeded by stand-in" in text
    assert not set("\x1b\r") & set(text)  # files get plain lines
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert [len(token) for token in re.findall(r"token (\S+)", text)] == [19, 19]  # no token is shown in full


def test_the_turns_of_a_call_are_saved_during_the_call(api: LocalApi) -> None:
    demo("examples/booking.json", "--base", api.base_url, "--pace", UNHURRIED, API_KEY=api.api_key)

    request = urllib.request.Request(f"{api.base_url}/api/v1/voice/sessions")  # noqa: S310 (loopback)
    request.add_header("Authorization", f"Bearer {api.api_key}")
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 (loopback)
        newest = json.load(answer)["data"][0]
    assert (newest["status"], newest["completed_by"]) == ("completed", "client")
    assert newest["checkpoint_turns"] > 0


def test_ctrl_c_ends_a_call_with_a_message(api: LocalApi) -> None:
    with started("--base", api.base_url, API_KEY=api.api_key) as process:
        assert process.stdout
        for line in process.stdout:
            if re.match(r"\d\d:\d\d  ", line):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)

    assert (process.returncode, errors) == (130, "\nStopped.\n")


# ---- With its own API ----


def test_make_demo_uses_variables_a_server_tool_a_client_tool_and_hang_up_and_shows_all_of_them(tmp_path: Path) -> None:
    ended = demo("--pace", UNHURRIED, "--record", str(tmp_path / "call.wav"))

    assert_a_whole_call("booking", ended)
    assert ended.stdout.startswith("A whole call: examples/booking.json")
    assert "Stand-ins on this machine: LiveKit, Gemini, DynamoDB." in ended.stdout
    assert "The call runs at 4 times natural speed" in ended.stdout
    assert (tmp_path / "call.wav").stat().st_size > 1_000_000
    plain = re.sub(r"\d+ ms", "N ms", re.sub(r"^\d\d:\d\d ", "", ended.stdout, flags=re.MULTILINE))
    lines = {" ".join(line.split()) for line in plain.splitlines()}
    slots = '["18:00 inside", "18:00 terrace", "19:30 inside", "19:30 terrace", "21:00 inside", "21:00 terrace"]'
    table = '{"day": "Friday", "time": "19:30", "area": "terrace", "guests": 6}'
    calls = "find_slots, show_table, book_table, hang_up"
    shown = {
        "restaurant: Linden by the lake",
        "✓ Tools on a server: find_slots, book_table",
        f'Mia find_slots {{"day": "Friday", "guests": 6}} → {{"free": {slots}}} from the server in N ms',
        'Mia show_table {"area": "terrace", "guests": 6} → {"table": "T12", "seats": 6, "view": "the lake"}',
        f'Mia book_table {table} → {{"table": "T12"}} from the server in N ms',
        "Mia Done: T12. Thank you, see you soon!",
        f"Tool calls on record: {calls}",
        "│ table │ Name of the booked table │ T12 │",
        f"session.completed signature verified N ms tool calls: {calls}",
        f"extraction.succeeded signature verified N ms tool calls: {calls}",
    }
    assert shown - lines == set(), ended.stdout


def test_make_demo_shows_another_example(tmp_path: Path) -> None:
    ended = demo(without_a_cap("intake", tmp_path), "--pace", UNHURRIED)

    assert_a_whole_call("intake", ended)
    shown = re.findall(r"^    (\S+) +signature verified  \d+ ms$", ended.stdout, re.MULTILINE)
    assert shown == ["session.started", "session.completed", "extraction.succeeded"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_leaves_no_process_behind(number: signal.Signals) -> None:
    with started() as process:
        until(lambda: any(map(children, children(process.pid))))  # the stack has started its own children
        [stack] = children(process.pid)
        process.send_signal(number)
        process.communicate(timeout=SECONDS)

    assert process.returncode == 130
    until(lambda: not is_running(stack))


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "demo", *arguments],
        cwd=ROOT,
        env={**CLEAN, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# ---- With a Gemini that looks real to the demo ----


@pytest.fixture
def remote_api(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve an API whose sessions use a Gemini over TLS; yield its URL and the CA's file."""
    tls, ready, over = loopback_tls(tmp_path), threading.Event(), asyncio.Event()
    served: list[str] = []

    async def serve() -> None:
        async with running_gemini(LiveTimes(pace=20), tls) as gemini, serving(voice_api(gemini)) as url:
            served.append(url)
            ready.set()
            await over.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert ready.wait(SECONDS)
    yield served[0], tls.ca_file
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


def voice_api(gemini: Gemini) -> web.Application:
    """Build the part of Pi Voice's API that the demo uses."""

    async def create_agent(request: web.Request) -> web.Response:
        return web.json_response({"data": {"agent_id": "a", "version": 1, **await request.json()}}, status=201)

    async def create_session(_: web.Request) -> web.Response:
        url = f"{gemini.url.replace('https', 'wss')}/ws/{SERVICE.format('v1alpha')}"
        live = {"url": url, "token": await gemini.token(), "model": "gemini-live", "setup": {"setup": SETUP}}
        livekit = {"url": "wss://livekit.test", "token": "a-token", "room": "s"}
        session = {"session_id": "s", "client_token": "t", "max_duration_seconds": None, "ttl_seconds": 600}
        connection = {"livekit": livekit, "gemini_live": live}
        return web.json_response({"data": {**session, "connection": connection}}, status=201)

    async def save_transcript(request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response({"data": {"session_id": "s", "next": body["from"] + len(body["turns"])}})

    async def complete_session(request: web.Request) -> web.Response:
        said = [turn["text"] for turn in (await request.json())["transcript"] if turn["role"] == "user"]
        extraction = {"status": "succeeded", "model": "tests"}
        return web.json_response({"status": "completed", "results": {"said": said}, "extraction": extraction})

    app = web.Application()
    app.router.add_post("/api/v1/voice/agents", create_agent)
    app.router.add_post("/api/v1/voice/sessions", create_session)
    app.router.add_post("/api/v1/voice/sessions/s/transcript", save_transcript)
    app.router.add_post("/api/v1/voice/sessions/s/complete", complete_session)
    return app


@pytest.fixture
def example(tmp_path: Path) -> Path:
    agent = {"name": "Nora", "instructions": "Be kind.", "output_schema": {"said": ["What the caller said"]}}
    caller = {"participant": {"identity": "a", "name": "Erik"}, "ttl_seconds": 60, "says": ["Erik Dahl.", "No pain."]}
    (tmp_path / "nora.json").write_text(json.dumps(agent), encoding="utf-8")
    (tmp_path / "nora.caller.json").write_text(json.dumps(caller), encoding="utf-8")
    return tmp_path / "nora.json"


def test_without_espeak_the_caller_types_to_a_real_gemini_with_a_note(
    remote_api: tuple[str, Path], example: Path
) -> None:
    base, ca_file = remote_api
    ended = demo(str(example), "--base", base, "--pace", FAST, API_KEY="any", SSL_CERT_FILE=str(ca_file), PATH="")

    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert "espeak-ng is not installed, or does not speak en-US: the caller has no voice, and types." in ended.stdout
    assert "Erik  No pain." in ended.stdout
    assert "│ Erik Dahl., No pain. │" in ended.stdout


# ---- Reasons not to start ----


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["none.json"], {}, "There is no none.json: an example is an agent, and a caller in a .caller.json beside it."),
        (["--pace", "quick"], {}, "GEMINI_STAND_IN_PACE is 'quick': give a number above 0 and up to 1000."),
        (["--color"], {}, "Unrecognized arguments: --color."),
        (["--base", "http://127.0.0.1:9"], {}, "API_KEY is not set: the API named with --base needs a key."),
        ([], {"LIVEKIT_URL": "wss://x"}, "The configuration of LiveKit is incomplete: with LIVEKIT_URL set, "),
    ],
    ids=["missing example", "invalid pace", "unknown argument", "missing key", "incomplete configuration"],
)
def test_an_error_at_start_is_reported(arguments: list[str], environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(CannotStart, match=f"^{re.escape(sentence)}"):
        run(arguments, environment)


def test_an_error_at_start_is_one_sentence_and_status_1() -> None:
    ended = demo("none.json")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(r"There is no none\.json: [^\n]+\.\n", ended.stderr)


def test_an_unreachable_api_is_reported() -> None:
    with pytest.raises(CallFailed, match=r"^POST /agents was not answered: .*\.$"):
        run(["--base", "http://127.0.0.1:9"], {"API_KEY": "any"})


def test_a_refusal_of_the_api_is_reported(api: LocalApi, example: Path) -> None:
    agent = json.loads(example.read_text(encoding="utf-8"))
    example.write_text(json.dumps({**agent, "language": "Klingon!"}), encoding="utf-8")

    with pytest.raises(CallFailed, match=r"^POST /agents was refused, invalid_request: .* language: "):
        run([str(example), "--base", api.base_url], {"API_KEY": api.api_key})
