"""The commands of docs/livekit-locally.md: a server that people can join, and whose webhooks reach the API."""

import json
import os
import shlex
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import pytest
import yaml

from local.real import parts
from local.running import LocalApi, running_api
from tests.real.livekit_server import MODULE, PART, free_udp_port, installed
from tests.real.participants import joined, until
from tests.support.command_blocks import BLOCKS
from tests.support.template import ROOT

pytestmark = [pytest.mark.real, pytest.mark.anyio]

GUIDE: Final = [block.commands for block in BLOCKS if block.document.name == "livekit-locally.md"]
CLEAN: Final = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalApi]:
    """`make run` with the guide's variables, beside its server on other ports."""
    [(install, serve), exports] = GUIDE
    assert install == f"go install {MODULE}"
    program, option, file = shlex.split(serve)
    assert (program, option) == ("$(go env GOPATH)/bin/server", "--config")
    settings = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
    assert (settings["port"], settings["webhook"]["urls"]) == (7880, ["http://127.0.0.1:3001"])
    port, api_port = parts.free_port(), parts.free_port(2)
    settings["port"], settings["rtc"]["udp_port"] = port, free_udp_port()
    settings["webhook"]["urls"] = [f"http://127.0.0.1:{api_port + 1}"]
    pairs = [pair.split("=", 1) for line in exports if line.startswith("export ") for pair in shlex.split(line)[1:]]
    variables = {name: value.replace(":7880", f":{port}") for name, value in pairs}
    command: parts.Command = [installed(), "--config-body", json.dumps(settings)]
    with (
        parts.running(f"{PART} of the guide", command, parts.accepts_connections(port)),
        running_api({**CLEAN, **variables}, api_port) as running,
    ):
        yield running


async def test_a_person_joins_a_session_s_room_and_the_webhook_says_so(stack: LocalApi) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {stack.api_key}"}) as client:

        async def call(method: str, path: str, body: Any = None) -> Any:
            async with client.request(method, f"{stack.base_url}/api/v1/voice{path}", json=body) as response:
                answer = await response.json()
                assert response.status < 400, answer
                return answer["data"]

        agent = await call("POST", "/agents", {"name": "Mia", "instructions": "Take the call."})
        order = {"agent_id": agent["agent_id"], "participant": {"identity": "ana"}}
        session = await call("POST", "/sessions", order)

        async def has_joined() -> bool:
            state = await call("GET", f"/sessions/{session['session_id']}")
            return (state["livekit"] or {}).get("first_joined_at") is not None

        async with joined(session["connection"]["livekit"]) as ana:
            assert urlsplit(session["connection"]["livekit"]["url"]).hostname == "127.0.0.1"
            await ana.speak(440)
            await until(has_joined)
