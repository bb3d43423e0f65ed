"""The backends of the example page: who may create a session, and what they serve."""

import asyncio
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import pytest

from demo.example import load
from demo.voice_api import VoiceApi
from demo.web_example import api_of, backend, prepared
from local.errors import CannotStart
from local.run_file import RunningApi, announced, find
from local.running import LocalApi, running_api
from tests.local.processes import children, is_running, until
from tests.support.template import ROOT
from tests.support.webhooks import Printed, ask, printing

CLEAN: Final = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
SECONDS: Final = 300
BACKENDS: Final = {
    "python": (sys.executable, "backend.py"),
    "node": (shutil.which("node"), "backend.mjs"),
}
A_KEY: Final = "pi_live_" + "a" * 43
CLIENT: Final = "export const startCall = null;\n"


@dataclass(frozen=True)
class Reply:
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Site:
    """A running backend."""

    port: int
    log: Path

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, /, **headers: str | None) -> Reply:
        """Send a request as a page of the site does; None leaves a header out."""
        wanted = {"Host": f"127.0.0.1:{self.port}", **({"Origin": self.origin} if method == "POST" else {}), **headers}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in wanted.items():
                if value is not None:
                    connection.putheader(name.replace("_", "-"), value)
            if body is not None and "Transfer_Encoding" not in headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, content)


def found(name: str) -> tuple[str, str]:
    """Return the program and the script of a backend. `make test` needs no Node.js; CI installs it."""
    program, script = BACKENDS[name]
    if program is None:
        pytest.skip("the backend in Node.js needs Node.js, which make test does not require")
    return program, script


@contextmanager
def running_site(project: Path, name: str, **variables: str) -> Iterator[Site]:
    """Run a backend of a project on any port."""
    program, script = found(name)
    log = project / f"{name}.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [program, project / "examples/web" / script],
            env={**CLEAN, "NO_PROXY": "127.0.0.1", "PORT": "0", **variables},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout
            first = process.stdout.readline()
            assert first.startswith("Talk to the agent: "), log.read_text(encoding="utf-8")
            port = urlsplit(first.split()[-1]).port
            assert port
            yield Site(port, log)
        finally:
            process.terminate()
            process.wait(SECONDS)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages with a package that does nothing, because these tests run without a browser and npm."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "examples/web", folder / "examples/web")
    package = folder / "clients/js/packages/client/dist"
    package.mkdir(parents=True)
    for name in ("index.js", "microphone.worklet.js", "playback.worklet.js"):
        (package / name).write_text(CLIENT, encoding="utf-8")
    (package / "index.d.ts").write_text("", encoding="utf-8")
    (folder / ".web-example").mkdir()
    (folder / ".web-example/react.js").write_text(CLIENT, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalApi]:
    with running_api({**CLEAN, "SCHEDULE_SECONDS": "86400"}) as running:
        yield running


def prepared_for(api: RunningApi, agent_id: str | None = None) -> tuple[str, dict[str, Any]]:
    """Prepare the example, and stop its server again."""

    async def prepare() -> tuple[str, dict[str, Any]]:
        async with aiohttp.ClientSession() as client:
            voice_api = VoiceApi(client, api.base, api.api_key)
            async with prepared(voice_api, load(ROOT / "examples/booking.json"), agent_id) as found:
                return found

    return asyncio.run(prepare())


def variables_of(api: RunningApi) -> dict[str, str]:
    agent_id, session = prepared_for(api)
    return {"BASE": api.base, "API_KEY": api.api_key, "AGENT_ID": agent_id, "SESSION": json.dumps(session)}


@pytest.fixture(scope="module", params=BACKENDS)
def site(request: pytest.FixtureRequest, project: Path, stack: LocalApi) -> Iterator[Site]:
    api = RunningApi(stack.base_url, stack.api_key)
    with running_site(project, request.param, **variables_of(api)) as running:
        yield running


@pytest.fixture(scope="module", params=BACKENDS)
def lonely(request: pytest.FixtureRequest, project: Path) -> Iterator[Site]:
    """A backend whose API does not answer."""
    with running_site(project, request.param, BASE="http://127.0.0.1:9", API_KEY=A_KEY, AGENT_ID="a") as running:
        yield running


def sessions(stack: LocalApi) -> Any:
    connection = http.client.HTTPConnection(urlsplit(stack.base_url).netloc, timeout=SECONDS)
    try:
        headers = {"Authorization": f"Bearer {stack.api_key}"}
        connection.request("GET", "/api/v1/voice/sessions?limit=100", headers=headers)
        return json.load(connection.getresponse())["data"]
    finally:
        connection.close()


# ---- Sessions ----


def test_a_page_of_the_site_gets_a_session_of_the_example_with_its_caller(site: Site, stack: LocalApi) -> None:
    reply = site.ask("POST", "/session")

    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json.keys() > {"session_id", "client_token", "connection"}
    assert reply.json["participant"] == {"identity": "guest-17", "name": "Ana Torres"}
    assert reply.json["session_id"] in [session["session_id"] for session in sessions(stack)]


def test_the_api_key_stays_in_the_backend(site: Site, stack: LocalApi) -> None:
    replies = [site.ask("POST", "/session"), *(site.ask("GET", path) for path in ("/", "/page.js", "/view.js"))]

    assert stack.api_key.encode() not in b"".join(reply.body for reply in replies)
    assert stack.api_key not in str([reply.headers for reply in replies])
    assert stack.api_key not in site.log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://127.0.0.1:1", "http://localhost", "null", "", None],
)
def test_another_page_cannot_create_a_session(site: Site, stack: LocalApi, origin: str | None) -> None:
    before = len(sessions(stack))
    reply = site.ask("POST", "/session", Origin=origin)

    assert (reply.status, reply.json["error"]["code"]) == (403, "forbidden_origin")
    assert len(sessions(stack)) == before


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", None])
def test_a_request_to_another_host_name_is_refused(site: Site, method: str, host: str | None) -> None:
    origin = {"Origin": f"http://{host}"} if method == "POST" else {}

    assert site.ask(method, "/session" if method == "POST" else "/", Host=host, **origin).status in (400, 403)


def test_the_site_can_be_opened_as_localhost(site: Site) -> None:
    host = f"localhost:{site.port}"

    assert site.ask("GET", "/", Host=host).status == 200
    assert site.ask("POST", "/session", Host=host, Origin=f"http://{host}").status == 200
    assert site.ask("POST", "/session", Host=host).status == 403


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"a" * 1_025, {}),
        (b"0\r\n\r\n", {"Transfer_Encoding": "chunked"}),
    ],
)
def test_a_large_body_is_refused(site: Site, body: bytes, headers: dict[str, str]) -> None:
    reply = site.ask("POST", "/session", body, **headers)

    assert (reply.status, reply.json["error"]["code"]) == (413, "request_too_large")


def test_a_small_body_is_ignored(site: Site) -> None:
    assert site.ask("POST", "/session", b'{"agent_id": "another"}').status == 200


@pytest.mark.parametrize("name", BACKENDS)
def test_a_refusal_of_pi_voice_is_named_without_the_key(project: Path, stack: LocalApi, name: str) -> None:
    with running_site(project, name, BASE=stack.base_url, API_KEY=A_KEY, AGENT_ID="a") as site:
        reply = site.ask("POST", "/session")

    assert (reply.status, reply.json["error"]["code"]) == (502, "session_refused")
    assert "invalid_api_key" in reply.json["error"]["message"]
    assert "invalid_api_key" in site.log.read_text(encoding="utf-8")
    assert A_KEY not in reply.body.decode() + site.log.read_text(encoding="utf-8")


def test_an_api_that_does_not_answer_is_named(lonely: Site) -> None:
    reply = lonely.ask("POST", "/session")

    assert (reply.status, reply.json["error"]["code"]) == (503, "api_unavailable")
    assert "http://127.0.0.1:9 does not answer" in reply.json["error"]["message"]


@pytest.mark.parametrize("name", BACKENDS)
def test_an_address_that_is_not_pi_voice_is_named(project: Path, lonely: Site, name: str) -> None:
    with running_site(project, name, BASE=lonely.origin, API_KEY=A_KEY, AGENT_ID="a") as site:
        assert site.ask("POST", "/session").status in (502, 503)


# ---- Pages ----


class Page(HTMLParser):
    """What a page loads, and what a strict policy would block."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.blocked: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [value for name in ("src", "href") if (value := given.get(name))]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.blocked.append(tag)
        self.blocked += [name for name in given if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("path", ["/", "/react"])
def test_a_page_has_no_inline_script_or_style_and_all_that_it_loads_is_served(lonely: Site, path: str) -> None:
    reply = lonely.ask("GET", path)
    page = Page(reply.body.decode())

    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert page.blocked == []
    assert page.loads
    assert {each: lonely.ask("GET", each).status for each in page.loads} == dict.fromkeys(page.loads, 200)


def test_all_that_the_script_imports_is_served_as_javascript(lonely: Site) -> None:
    imported = re.findall(r'from "(/[^"]+)"', lonely.ask("GET", "/page.js").body.decode())
    paths = [*imported, "/@pi-voice/client/microphone.worklet.js", "/@pi-voice/client/playback.worklet.js"]

    assert "/@pi-voice/client/index.js" in imported
    assert {path: lonely.ask("GET", path).headers["content-type"] for path in paths} == dict.fromkeys(
        paths, "text/javascript; charset=utf-8"
    )


def test_a_page_names_the_api(lonely: Site) -> None:
    assert b'data-api-url="http://127.0.0.1:9"' in lonely.ask("GET", "/").body


@pytest.mark.parametrize("name", BACKENDS)
def test_the_address_of_the_api_cannot_break_out_of_the_page(project: Path, name: str) -> None:
    with running_site(project, name, BASE='http://a"><script>', API_KEY=A_KEY, AGENT_ID="a") as site:
        assert b"<script>" not in site.ask("GET", "/").body


@pytest.mark.parametrize("path", ["/", "/page.js", "/nothing"])
def test_each_response_has_a_strict_content_security_policy(lonely: Site, path: str) -> None:
    headers = lonely.ask("GET", path).headers
    policy = dict(rule.strip().partition(" ")[::2] for rule in headers["content-security-policy"].split(";"))

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["connect-src"].split() == [
        "'self'",
        "http://127.0.0.1:9",
        "wss://generativelanguage.googleapis.com",
        "ws://127.0.0.1:*",
        "ws://localhost:*",
    ]
    assert headers["x-content-type-options"] == "nosniff"
    assert "microphone=(self)" in headers["permissions-policy"]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_deployed_api_and_livekit_may_be_connected_to(project: Path, name: str) -> None:
    there = {"BASE": "https://api.example", "LIVEKIT_URL": "wss://room.example", "API_KEY": A_KEY, "AGENT_ID": "a"}
    with running_site(project, name, **there) as site:
        policy = site.ask("GET", "/").headers["content-security-policy"]

    assert (
        "connect-src 'self' https://api.example wss://generativelanguage.googleapis.com wss://room.example "
        "https://room.example;"
    ) in policy


@pytest.mark.parametrize(
    "path",
    [
        "/backend.py",
        "/server.mjs",
        "/../backend.py",
        "/%2e%2e/%2e%2e/README.md",
        "/..%2f..%2fREADME.md",
        "/@pi-voice/client/../../../package.json",
        "/@pi-voice/client/index.d.ts",
        "//etc/passwd",
        "/page.js/",
        "/constructor",
        "/__proto__",
        "/session",
    ],
)
def test_nothing_else_is_served(lonely: Site, path: str) -> None:
    assert lonely.ask("GET", path).status == 404


@pytest.mark.parametrize(("method", "path"), [("PUT", "/session"), ("DELETE", "/"), ("OPTIONS", "/session")])
def test_other_methods_are_refused(lonely: Site, method: str, path: str) -> None:
    assert lonely.ask(method, path).status == 501


def test_a_head_request_gets_the_headers_alone(lonely: Site) -> None:
    head, page = lonely.ask("HEAD", "/"), lonely.ask("GET", "/")

    assert head.body == b""
    assert head.headers["content-length"] == str(len(page.body))


def test_both_backends_serve_the_same(project: Path) -> None:
    seen = []
    for name in BACKENDS:
        with running_site(project, name, BASE="http://127.0.0.1:9", API_KEY=A_KEY, AGENT_ID="a") as site:
            replies = [site.ask("GET", path) for path in ("/", "/react", "/page.js", "/style.css", "/icon.svg")]
        ignored = {"date", "server", "connection"}
        seen.append(
            [
                (reply.status, reply.body, {k: v for k, v in reply.headers.items() if k not in ignored})
                for reply in replies
            ]
        )

    assert seen[0] == seen[1]


# ---- Reasons not to start ----


@pytest.mark.parametrize("name", BACKENDS)
def test_a_port_in_use_is_reported_in_one_sentence(project: Path, lonely: Site, name: str) -> None:
    ended = start(project, name, PORT=str(lonely.port))

    assert ended.returncode == 1
    assert re.fullmatch(rf"Port {lonely.port} cannot be used \([^\n]+\): choose another, [^\n]+\.\n", ended.stderr)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_package_that_is_not_built_is_reported_in_one_sentence(tmp_path: Path, name: str) -> None:
    shutil.copytree(ROOT / "examples/web", tmp_path / "examples/web")
    ended = start(tmp_path, name)

    assert ended.returncode == 1
    assert re.fullmatch(r"The browser client is not built, [^\n]+: run `make web-example`\.\n", ended.stderr)


def start(project: Path, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
    program, script = found(name)
    return subprocess.run(
        [program, project / "examples/web" / script],
        env={**CLEAN, "PORT": "0", "BASE": "http://127.0.0.1:9", "API_KEY": A_KEY, "AGENT_ID": "a", **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


# ---- The command ----


def run_command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo.web_example", *arguments],
        cwd=ROOT,
        env={**CLEAN, **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_the_command_finds_the_running_api_by_its_port(stack: LocalApi) -> None:
    ended = run_command("--check", "--port", str(urlsplit(stack.base_url).port))

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_without_a_running_api_the_command_says_how_to_start_it() -> None:
    ended = run_command("--check", "--port", "1")

    assert ended.returncode == 1
    assert ended.stderr.startswith("There is no API on port 1: start `make run` in another terminal")


def test_an_api_that_has_crashed_is_reported_in_one_sentence() -> None:
    ended = run_command("--check", BASE="http://127.0.0.1:9", API_KEY=A_KEY)

    assert ended.returncode == 1
    assert re.fullmatch(r"GET /agents was not answered: [^\n]+\n", ended.stderr)


def test_the_agent_of_the_example_is_created_once_and_gets_the_endpoint_of_each_start(stack: LocalApi) -> None:
    api, endpoints = RunningApi(stack.base_url, stack.api_key), []
    starts = []
    for _ in range(2):
        starts.append(prepared_for(api))
        tools = ask(stack, "GET", f"/agents/{starts[-1][0]}")["data"]["tools"]
        endpoints.append({tool["run"]["endpoint_id"] for tool in tools if tool["run"]["where"] == "server"})

    assert starts[0] == starts[1]
    assert [len(each) for each in endpoints] == [1, 1]
    assert endpoints[0] != endpoints[1]
    assert prepared_for(api, "mine") == ("mine", {})
    assert ask(stack, "GET", "/webhook-endpoints")["data"] == []


def test_an_agent_of_an_api_elsewhere_has_no_tools_on_a_server(
    stack: LocalApi, capsys: pytest.CaptureFixture[str]
) -> None:
    async def prepare() -> str:
        async with aiohttp.ClientSession() as client:
            voice_api = VoiceApi(client, stack.base_url, stack.api_key)
            voice_api.base_url = "https://api.example"
            async with prepared(voice_api, load(ROOT / "examples/booking.json"), None) as (agent_id, _):
                return agent_id

    agent = ask(stack, "GET", f"/agents/{asyncio.run(prepare())}")["data"]

    assert [tool["name"] for tool in agent["tools"]] == ["show_table"]
    assert capsys.readouterr().out == (
        "The API does not reach this machine, so the agent has no tools on a server: find_slots, book_table.\n"
    )


@contextmanager
def web_example(stack: LocalApi) -> Iterator[tuple[Printed, str]]:
    """Run the command; yield what it prints, and the URL of its pages."""
    port = str(urlsplit(stack.base_url).port)
    with printing(
        [sys.executable, "-m", "demo.web_example", "--port", port, "--web-port", "0"], cwd=ROOT, env=CLEAN
    ) as printed:
        lines = printed.until(lambda lines: any(line.startswith("Talk to the agent: ") for line in lines))
        yield printed, lines[-1].split()[-1]


@pytest.fixture
def built() -> None:
    """`make test` needs no Node.js, so the package may not be built; CI builds it."""
    if not (ROOT / "clients/js/packages/client/dist/index.js").exists():
        pytest.skip("the page needs the browser client, which `make js-client` builds")


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_the_page_books_through_the_server_beside_it_and_nothing_is_left(
    stack: LocalApi, number: signal.Signals
) -> None:
    with web_example(stack) as (printed, url):
        programs = children(printed.process.pid)
        session = Site(urlsplit(url).port or 0, Path()).ask("POST", "/session").json
        arguments = {"day": "Friday", "time": "19:30", "area": "terrace", "guests": 6}
        call = {"call_id": "call-1", "name": "book_table", "arguments": arguments}
        record = ask(stack, "POST", f"/sessions/{session['session_id']}/tool-calls", call)["data"]
        printed.process.send_signal(number)
        lines = printed.rest()

    assert (record["status"], record["response"]) == ("succeeded", {"table": "T12"})
    assert f'book_table {json.dumps(arguments)} 200 {{"table": "T12"}}' in lines
    assert printed.process.returncode == 0
    assert len(programs) == 2
    until(lambda: not any(map(is_running, programs)))
    assert ask(stack, "GET", "/webhook-endpoints")["data"] == []


def test_base_needs_a_key() -> None:
    assert api_of({"BASE": "https://a.example/", "API_KEY": "k"}, 3000) == RunningApi("https://a.example", "k")
    with pytest.raises(CannotStart, match=r"^API_KEY is not set: "):
        api_of({"BASE": "https://a.example"}, 3000)


def test_there_are_two_backends() -> None:
    assert backend("python")[1].endswith("examples/web/backend.py")
    with pytest.raises(CannotStart, match=r"^There is no backend 'ruby': give python or node"):
        backend("ruby")


# ---- The file of a running API ----


def test_the_file_of_a_running_api_is_for_its_user_alone_and_goes_with_it(tmp_path: Path) -> None:
    api = RunningApi("http://127.0.0.1:3000", A_KEY)
    with announced(api, tmp_path / "run"):
        [file] = (tmp_path / "run").iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        assert find(3000, tmp_path / "run") == api
        assert find(3001, tmp_path / "run") is None

    assert list((tmp_path / "run").iterdir()) == []


def test_a_later_api_on_the_same_port_keeps_its_file(tmp_path: Path) -> None:
    first, second = (RunningApi("http://127.0.0.1:3000", f"{A_KEY}{number}") for number in range(2))
    with announced(first, tmp_path):
        stays = announced(second, tmp_path)
        stays.__enter__()

    assert find(3000, tmp_path) == second


@pytest.mark.parametrize("text", ["", "{", "[]", '{"base": 1, "api_key": 2}', "\xff"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "3000.json").write_text(text, encoding="latin-1")

    assert find(3000, tmp_path) is None
