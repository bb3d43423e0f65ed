"""The command: `python -m local --port 3000` serves until Ctrl-C and says how to call what it serves."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final, Never

from local.errors import CannotStart
from local.stack import Stack, running_stack

_HIGHEST_PORT: Final = 65_534
"""The webhook's own URL has the next one."""


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise CannotStart(f"{message[0].upper()}{message[1:]}.")


def main() -> None:
    """Serve until Ctrl-C or SIGTERM; exits with 1 and one sentence when it cannot start."""
    try:
        asyncio.run(_serve(port_of(sys.argv[1:])))
    except CannotStart as reason:
        sys.exit(str(reason))
    except asyncio.CancelledError:
        print("\nEverything has ended.")


def port_of(arguments: Sequence[str]) -> int:
    """Read the command's arguments; raises CannotStart."""
    parser = _Arguments(prog="python -m local", description="Serve the whole template on this machine.")
    parser.add_argument("--port", default="3000", help="where the API listens; 0 is any free port")
    text = parser.parse_args(arguments).port
    if not text.isdecimal() or int(text) > _HIGHEST_PORT:
        raise CannotStart(f"{text!r} is no port: give a number up to {_HIGHEST_PORT}, as in `make run PORT=3100`.")
    return int(text)


async def _serve(port: int) -> None:
    this = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)  # type: ignore[union-attr]
    async with running_stack(port, dict(os.environ)) as stack:
        print(_ready(stack), flush=True)
        await asyncio.Event().wait()


def _ready(stack: Stack) -> str:
    services = stack.services
    return f"""\
Pi Voice is ready. Ctrl-C ends it.

  LiveKit    {"yours" if services.livekit else "a stand-in"}, {stack.livekit.url}
  Gemini     {"the real one" if services.gemini else "a stand-in"}{_at(stack.gemini.base_url)}
  DynamoDB   {"yours" if services.dynamodb_url else "a stand-in (moto), in memory"}, {stack.dynamodb_url}
  SQS        {"yours" if services.sqs_url else "a stand-in (moto), in memory"}, {stack.sqs_url}
  Schedules  {", ".join(f"{clock.function} every {clock.seconds:g} s" for clock in stack.clocks)}
  Lambda     for functions without a route: aws lambda invoke --endpoint-url {stack.invoke_url} ...

export BASE="{stack.base_url}"
export API_KEY="{stack.api_key}"
export WEBHOOK_URL="{stack.webhook_url}"

The reference is at {stack.base_url}/docs.
Paste the three lines above into another terminal. A first request to try there:

curl -s "$BASE/api/v1/voice/voices" -H "Authorization: Bearer $API_KEY"
"""


def _at(url: str | None) -> str:
    return f", {url}" if url else ""
