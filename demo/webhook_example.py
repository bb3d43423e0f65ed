"""The command `python -m demo.webhook_example`: receive the webhooks of an API that runs already.

It creates a webhook endpoint for a receiver of examples/webhooks, which it starts with the endpoint's secret, and asks
for a test event. It deletes the endpoint when it ends.
"""

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp

from demo.errors import CallFailed
from demo.receivers import endpoint, free, running, until_listening
from demo.voice_api import WEBHOOK_EVENTS, VoiceApi
from demo.web_example import api_of
from local.command import Arguments, end_at_ctrl_c, port_named
from local.errors import CannotStart
from local.run_file import RunningApi

DESCRIPTION: Final = "make webhook-example"
"""Marks the endpoints of this command. One is left if the command was killed; the next start deletes it."""

_FOLDER: Final = Path(__file__).parents[1] / "examples/webhooks"
_RECEIVERS: Final = {"python": "receiver.py", "node": "receiver.mjs"}


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
    port = free(port, "make webhook-example RECEIVER_PORT=9100")
    url = f"http://127.0.0.1:{port}/"
    request = {"url": url, "events": WEBHOOK_EVENTS, "include": ["transcript", "results"], "description": DESCRIPTION}
    async with aiohttp.ClientSession() as http:
        voice_api = VoiceApi(http, api.base, api.api_key)
        async with endpoint(voice_api, request, _say_deleted) as created:
            print(f"Created webhook endpoint {created['endpoint_id']} for {url}", flush=True)
            variables = {"PORT": str(port), "WEBHOOK_SECRET": created["secret"]}
            async with running(command, variables) as process:
                await until_listening(process, port, "The receiver")
                await voice_api.test_webhook_endpoint(created["endpoint_id"])
                print("A test event follows, then those of your calls. Press Ctrl-C to stop.", flush=True)
                if status := await process.wait():  # 0 after Ctrl-C
                    raise CannotStart(f"The receiver has ended with status {status}.")


def _say_deleted() -> None:
    print("\nDeleted the webhook endpoint.", flush=True)


if __name__ == "__main__":
    main()
