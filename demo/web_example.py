"""The command `python -m demo.web_example`: serve the pages of examples/web for an API that runs already.

It creates the agent of an example in that API, unless AGENT_ID names one, and runs the backend, and the server of the
agent's tools.
"""

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Never

import aiohttp

from demo.errors import CallFailed
from demo.example import Example, load
from demo.receivers import running
from demo.tool_server import tool_server
from demo.voice_api import VoiceApi
from local.command import end_at_ctrl_c, port_named
from local.errors import CannotStart
from local.loopback import is_loopback
from local.run_file import RunningApi, find

_ROOT: Final = Path(__file__).parents[1]
_EXAMPLE: Final = _ROOT / "examples/booking.json"
_BACKENDS: Final = {"python": "backend.py", "node": "backend.mjs"}
_INHERITED: Final = ("PATH", "HOME", "LANG", "LIVEKIT_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise CannotStart(f"{message[0].upper()}{message[1:]}.")


def main() -> None:
    """Serve the pages until Ctrl-C or SIGTERM; exit with 1 and one sentence if that fails."""
    try:
        options = _read(sys.argv[1:])
        api = api_of(os.environ, options.port)
        command = backend(options.backend)
        asyncio.run(_check(api) if options.check else _serve(api, command, options.web_port))
    except (CannotStart, CallFailed) as reason:
        sys.exit(str(reason))
    except asyncio.CancelledError:
        pass


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


async def _check(api: RunningApi) -> None:
    async with aiohttp.ClientSession() as http:
        await VoiceApi(http, api.base, api.api_key).newest_agents()


async def _serve(api: RunningApi, command: Sequence[str], port: int) -> None:
    """Run the backend, beside the server of the example's tools; raises CannotStart and CallFailed."""
    end_at_ctrl_c()
    variables = {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1,localhost,::1"))),
        "BASE": api.base,
        "API_KEY": api.api_key,
        "PORT": str(port),
    }
    async with aiohttp.ClientSession() as http:
        voice_api = VoiceApi(http, api.base, api.api_key)
        async with prepared(voice_api, load(_EXAMPLE), os.environ.get("AGENT_ID")) as (agent_id, session):
            variables |= {"AGENT_ID": agent_id, "SESSION": json.dumps(session)}
            async with running(command, variables) as process:
                if status := await process.wait():  # 0 after Ctrl-C; a backend that cannot start says why
                    sys.exit(status)


@asynccontextmanager
async def prepared(
    voice_api: VoiceApi, example: Example, agent_id: str | None
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield the agent's id, and what `POST /sessions` should get besides; raises CannotStart and CallFailed.

    Without an id, it is the example's agent, which is created if the API does not have it. Its tools on a server are
    served for the time of the context, unless the API cannot reach this machine: then it has none.
    """
    mark = {"web_example": hashlib.sha256(json.dumps(example.agent, sort_keys=True).encode()).hexdigest()[:16]}
    known = [agent["agent_id"] for agent in await voice_api.newest_agents() if agent.get("metadata", {}) == mark]
    if agent_id:
        yield agent_id, {}
        return
    async with AsyncExitStack() as serving:
        if example.server and is_loopback(voice_api.base_url):
            server = await serving.enter_async_context(tool_server(voice_api, example.server, "make web-example"))
            example = example.with_endpoint(server.endpoint_id)
        elif example.server:
            names = ", ".join(example.server_tools)
            print(f"The API does not reach this machine, so the agent has no tools on a server: {names}.", flush=True)
            example = example.without_server_tools()
        if known:
            await voice_api.update_agent(known[0], {"tools": example.agent.get("tools")})
        else:
            known = [(await voice_api.create_agent({**example.agent, "metadata": mark}))["agent_id"]]
        caller = example.caller
        yield (
            str(known[0]),
            {
                "participant": caller.participant.model_dump(),
                "ttl_seconds": caller.ttl_seconds,
                "variables": caller.variables,
            },
        )


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
