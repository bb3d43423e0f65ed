"""The command `python -m demo.webhook_example`: receive the webhooks of an API that runs already.

It creates a webhook endpoint for a receiver of examples/webhooks, which it starts with the endpoint's secret, and asks
for a test event. It deletes the endpoint when it ends.
"""

import argparse
import asyncio
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from demo.errors import CallFailed
from demo.voice_api import WEBHOOK_EVENTS, VoiceApi
from demo.web_example import api_of
from local.command import Arguments, end_at_ctrl_c, port_named
from local.errors import CannotStart
from local.run_file import RunningApi

DESCRIPTION: Final = "make webhook-example"
"""Marks the endpoints of this command. One is left if the command was killed; the next start deletes it."""

_FOLDER: Final = Path(__file__).parents[1] / "examples/webhooks"
_RECEIVERS: Final = {"python": "receiver.py", "node": "receiver.mjs"}
_INHERITED: Final = ("PATH", "HOME", "LANG")
_START_SECONDS: Final = 30.0
_END_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.05


def main() -> None:
    """Receive webhooks until Ctrl-C or SIGTERM; exit with 1 and one sentence if that fails."""
    try:
        options = _read(sys.argv[1:])
        api = api_of(os.environ, options.port)
        command = receiver(options.backend)
        asyncio.run(_check(api) if options.check else _receive(api, command, options.receiver_port))
    except (CannotStart, CallFailed) as reason:
        sys.exit(str(reason))
    except asyncio.CancelledError:
        pass


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Arguments(prog="python -m demo.webhook_example", description="Receive the webhooks of a running API.")
    parser.add_argument("--port", default="3000", help="port of the API that `make run` serves")
    parser.add_argument("--receiver-port", default="9000", help="port of the receiver")
    parser.add_argument("--backend", default="python", help="the receiver: python or node")
    parser.add_argument("--check", action="store_true", help="check that the API answers, and end")
    options = parser.parse_args(arguments)
    options.port, options.receiver_port = port_named(options.port), port_named(options.receiver_port)
    return options


def receiver(name: str) -> list[str]:
    """Return the command of a receiver; raises CannotStart."""
    if name not in _RECEIVERS:
        raise CannotStart(f"There is no backend {name!r}: give {' or '.join(_RECEIVERS)}, as in BACKEND=node.")
    program = sys.executable if name == "python" else shutil.which("node")
    if program is None:
        raise CannotStart("There is no node on PATH: install Node.js 20 or later, or use the receiver in Python.")
    return [program, str(_FOLDER / _RECEIVERS[name])]


async def _check(api: RunningApi) -> None:
    async with aiohttp.ClientSession() as http:
        await VoiceApi(http, api.base, api.api_key).webhook_endpoints()


async def _receive(api: RunningApi, command: Sequence[str], port: int) -> None:
    """Run the receiver with an endpoint of its own; raises CannotStart and CallFailed, also if the receiver ends."""
    end_at_ctrl_c()
    port = _free(port)
    async with aiohttp.ClientSession() as http:
        voice_api = VoiceApi(http, api.base, api.api_key)
        async with _endpoint(voice_api, f"http://127.0.0.1:{port}/") as endpoint:
            variables = {name: os.environ[name] for name in _INHERITED if name in os.environ}
            variables |= {"PORT": str(port), "WEBHOOK_SECRET": endpoint["secret"]}
            async with _running(command, variables) as process:
                await _until_listening(process, port)
                await voice_api.test_webhook_endpoint(endpoint["endpoint_id"])
                print("A test event follows, then those of your calls. Press Ctrl-C to stop.", flush=True)
                if status := await process.wait():  # 0 after Ctrl-C
                    raise CannotStart(f"The receiver has ended with status {status}.")


def _free(port: int) -> int:
    """Return a port that can be listened on, any for 0; raises CannotStart if another program has it."""
    try:
        with socket.create_server(("127.0.0.1", port)) as listening:
            return int(listening.getsockname()[1])
    except OSError as error:
        raise CannotStart(
            f"Port {port} cannot be used ({error.strerror}): choose another, as in "
            "`make webhook-example RECEIVER_PORT=9100`."
        ) from None


@asynccontextmanager
async def _endpoint(voice_api: VoiceApi, url: str) -> AsyncIterator[dict[str, Any]]:
    """Create an endpoint for all events, instead of those of earlier starts, and delete it in the end."""
    for left in await voice_api.webhook_endpoints():
        if left["description"] == DESCRIPTION:
            await voice_api.delete_webhook_endpoint(left["endpoint_id"])
    request = {"url": url, "events": WEBHOOK_EVENTS, "include": ["transcript", "results"]}
    endpoint = await voice_api.create_webhook_endpoint({**request, "description": DESCRIPTION})
    print(f"Created webhook endpoint {endpoint['endpoint_id']} for {url}", flush=True)
    try:
        yield endpoint
    finally:
        with suppress(CallFailed):  # the API may have stopped before; with tables in memory nothing is left
            await voice_api.delete_webhook_endpoint(endpoint["endpoint_id"])
            print("\nDeleted the webhook endpoint.", flush=True)


@asynccontextmanager
async def _running(command: Sequence[str], variables: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program for the time of the context."""
    process = await asyncio.create_subprocess_exec(*command, env=variables, stdin=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # Ctrl-C in a terminal ends it too
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _until_listening(process: asyncio.subprocess.Process, port: int) -> None:
    """Wait until a program accepts connections on a port; raises CannotStart if it does not."""
    try:
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError:
        raise CannotStart(f"The receiver does not listen on port {port}.") from None
    raise CannotStart(f"The receiver did not start, its status is {process.returncode}.")


if __name__ == "__main__":
    main()
