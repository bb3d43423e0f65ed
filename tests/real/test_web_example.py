"""`make web-example` beside `make run`, as a newcomer types it: the package is built, and the page gets a session."""

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from local.real import parts
from local.running import LocalApi, running_api
from tests.support.template import environment

pytestmark = pytest.mark.real

SECONDS: Final = 600
CLEAN: Final = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalApi]:
    for name in ("node", "npm"):
        parts.program("Node.js", name)
    with running_api(CLEAN) as running:
        yield running


@contextmanager
def web_example(stack: LocalApi, backend: str) -> Iterator[str]:
    """Run the command, and yield the URL that it prints."""
    with subprocess.Popen(
        ["make", "web-example", f"PORT={urlsplit(stack.base_url).port}", "WEB_PORT=0", f"BACKEND={backend}"],  # noqa: S607
        cwd=parts.ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as made:
        try:
            assert made.stdout
            printed = next((line for line in made.stdout if line.startswith("Talk to the agent: ")), "")
            assert printed, f"make ended with {made.wait(SECONDS)}"
            yield printed.split()[-1]
        finally:
            os.killpg(made.pid, signal.SIGINT)
            made.wait(SECONDS)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=SECONDS) as response:  # noqa: S310 (loopback)
        content: bytes = response.read()
        return content


def post(url: str, origin: str) -> Any:
    return answered(urllib.request.Request(f"{url}/session", method="POST", headers={"Origin": origin}))  # noqa: S310


def slots_of(stack: LocalApi, session: Any) -> Any:
    """Call a tool on the server of the example, as the page does."""
    call = {"call_id": "call-1", "name": "find_slots", "arguments": {"day": "Friday", "guests": 6}}
    route = f"{stack.base_url}/api/v1/voice/sessions/{session['session_id']}/tool-calls"
    headers = {"Authorization": f"Bearer {session['client_token']}", "Content-Type": "application/json"}
    return answered(urllib.request.Request(route, json.dumps(call).encode(), headers))["data"]  # noqa: S310 (loopback)


def answered(request: urllib.request.Request) -> Any:
    with urllib.request.urlopen(request, timeout=SECONDS) as response:  # noqa: S310 (loopback)
        return json.load(response)


@pytest.mark.parametrize("backend", ["python", "node"])
def test_two_commands_serve_a_page_that_gets_a_session(stack: LocalApi, backend: str) -> None:
    with web_example(stack, backend) as url:
        page, package, react = (get(f"{url}/{path}") for path in ("", "@pi-voice/client/index.js", "react.js"))
        session = post(url, url)
        slots = slots_of(stack, session)
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(url, "https://evil.example")
        refused.value.close()  # a backend that ends waits for its open connections
        refused.value.close()

    assert f'data-api-url="{stack.base_url}"'.encode() in page
    assert b"startCall" in package
    assert b'from"/@pi-voice/client/index.js"' in react
    assert session["connection"]["gemini_live"]["url"].startswith("ws://127.0.0.1:")
    assert (slots["status"], "19:30 terrace" in slots["response"]["free"]) == ("succeeded", True)
    assert refused.value.code == 403


def test_the_built_package_loads_its_worklets_from_its_own_folder(stack: LocalApi) -> None:
    with web_example(stack, "python") as url:
        package = get(f"{url}/@pi-voice/client/index.js").decode()
        worklets = set(re.findall(r"[\w.-]+\.worklet\.js", package))

        assert worklets == {"microphone.worklet.js", "playback.worklet.js"}
        assert all(get(f"{url}/@pi-voice/client/{name}") for name in worklets)
