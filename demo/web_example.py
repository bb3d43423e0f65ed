"""The command `python -m demo.web_example`: serve the pages of examples/web for an API that runs already.

It creates the agent of an example in that API, unless AGENT_ID names one, and becomes the backend.
"""

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Never

import aiohttp

from demo.errors import CallFailed
from demo.example import Example, load
from demo.voice_api import VoiceApi
from local.command import port_named
from local.errors import CannotStart
from local.run_file import RunningApi, find

_ROOT: Final = Path(__file__).parents[1]
_EXAMPLE: Final = _ROOT / "examples/booking.json"
_BACKENDS: Final = {"python": "backend.py", "node": "backend.mjs"}
_INHERITED: Final = ("PATH", "HOME", "LANG", "LIVEKIT_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise CannotStart(f"{message[0].upper()}{message[1:]}.")


def main() -> None:
    """Become the backend; exit with 1 and one sentence if it cannot start."""
    try:
        options = _read(sys.argv[1:])
        api = api_of(os.environ, options.port)
        agent_id, session = asyncio.run(prepared(api, load(_EXAMPLE), os.environ.get("AGENT_ID")))
        if options.check:
            return
        command = backend(options.backend)
    except (CannotStart, CallFailed) as reason:
        sys.exit(str(reason))
    variables = {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1,localhost,::1"))),
        "BASE": api.base,
        "API_KEY": api.api_key,
        "AGENT_ID": agent_id,
        "SESSION": json.dumps(session),
        "PORT": str(options.web_port),
    }
    os.execve(command[0], command, variables)  # noqa: S606 (a program of this project)


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="python -m demo.web_example", description="Serve a web page that talks to an agent.")
    parser.add_argument("--port", default="3000", help="port of the API that `make run` serves")
    parser.add_argument("--web-port", default="8080", help="port of the page")
    parser.add_argument("--backend", default="python", help="the backend: python or node")
    parser.add_argument("--check", action="store_true", help="check that the API answers, and end")
    options = parser.parse_args(arguments)
    options.port, options.web_port = port_named(options.port), port_named(options.web_port)
    return options


def api_of(environment: Mapping[str, str], port: int) -> RunningApi:
    """Return the API that BASE and API_KEY name, or the one that `make run` serves on a port; raises CannotStart."""
    if base := environment.get("BASE"):
        if not (api_key := environment.get("API_KEY")):
            raise CannotStart("API_KEY is not set: the API that BASE names needs a key.")
        return RunningApi(base.rstrip("/"), api_key)
    if api := find(port):
        return api
    raise CannotStart(
        f"There is no API on port {port}: start `make run` in another terminal, and wait until it is ready."
    )


async def prepared(api: RunningApi, example: Example, agent_id: str | None) -> tuple[str, dict[str, Any]]:
    """Return the agent's id, and what `POST /sessions` should get besides; raises CallFailed.

    Without an id, it is the example's agent, which is created if the API does not have it.
    """
    async with aiohttp.ClientSession() as client:
        voice_api = VoiceApi(client, api.base, api.api_key)
        text = json.dumps(example.agent, sort_keys=True)
        mark = {"web_example": hashlib.sha256(text.encode()).hexdigest()[:16]}
        known = [agent for agent in await voice_api.newest_agents() if agent.get("metadata", {}) == mark]
        if agent_id:
            return agent_id, {}
        agent = known[0] if known else await voice_api.create_agent({**example.agent, "metadata": mark})
    caller = example.caller
    session = {
        "participant": caller.participant.model_dump(),
        "ttl_seconds": caller.ttl_seconds,
        "variables": caller.variables,
    }
    return str(agent["agent_id"]), session


def backend(name: str) -> list[str]:
    """Return the command of a backend; raises CannotStart."""
    if name not in _BACKENDS:
        raise CannotStart(f"There is no backend {name!r}: give {' or '.join(_BACKENDS)}, as in BACKEND=node.")
    program = sys.executable if name == "python" else shutil.which("node")
    if program is None:
        raise CannotStart("There is no node on PATH: install Node.js 20 or later, or use the backend in Python.")
    return [program, str(_ROOT / "examples/web" / _BACKENDS[name])]


if __name__ == "__main__":
    main()
