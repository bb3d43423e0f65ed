"""The command: `python -m demo examples/booking.json` starts the API, holds one call and shows it."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Never

from demo.errors import CallFailed
from demo.example import load
from demo.screen import Screen
from demo.walk_through import WalkThrough
from local.errors import CannotStart
from local.running import running_api
from local.services import Services
from local.stand_ins.gemini_live import PACE, LiveTimes

DEFAULT_EXAMPLE: Final = "examples/intake.json"
DEFAULT_PACE: Final = "4"

_CTRL_C: Final = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise CannotStart(f"{message[0].upper()}{message[1:]}.")


def main() -> None:
    """Hold a call; exits with 1 and one sentence when that fails, and with 130 after Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):  # in the background of a script, Ctrl-C may have been switched off
        signal.signal(number, signal.default_int_handler)
    try:
        _run(_arguments())
    except (CannotStart, CallFailed) as reason:
        sys.exit(str(reason))
    except KeyboardInterrupt:
        sys.stderr.write("\nEverything has ended.\n")
        sys.exit(_CTRL_C)


def _arguments() -> argparse.Namespace:
    parser = _Parser(prog="python -m demo", description="Hold one call, and show it.")
    parser.add_argument("example", nargs="?", help="an agent, with its caller in a .caller.json beside it")
    parser.add_argument("--pace", help="how many times faster than people the stand-in for Gemini speaks")
    parser.add_argument("--record", help="a WAV file to write the call to")
    parser.add_argument("--base", help="an API that runs already, opened with the key in API_KEY")
    return parser.parse_args()


def _run(wishes: argparse.Namespace) -> None:
    example = load(Path(wishes.example or DEFAULT_EXAMPLE))
    recording = Path(wishes.record) if wishes.record else None
    services = None if wishes.base else Services.chosen_by(os.environ)
    pace = _pace(wishes.pace, services)
    screen = Screen()
    screen.title(f"A whole call: {example.path}", *_circumstances(services, pace))
    with _api(wishes.base, pace, screen) as (base_url, api_key):
        asyncio.run(WalkThrough(screen, example, pace).take(base_url, api_key, recording))


def _pace(wanted: str | None, services: Services | None) -> float:
    """Return how many times faster than people the agent speaks, which only a stand-in of our own does unasked."""
    has_stand_in = services is not None and services.gemini is None
    if services is not None and services.gemini is not None:
        return 1.0
    return LiveTimes.of({PACE: wanted or (DEFAULT_PACE if has_stand_in else "1")}).pace


@contextmanager
def _api(base_url: str | None, pace: float, screen: Screen) -> Iterator[tuple[str, str]]:
    """Yield the address and the key of an API, one of our own unless one is named; raises CannotStart."""
    if base_url:
        if "API_KEY" not in os.environ:
            raise CannotStart("API_KEY is not set: the API named with --base needs a key.")
        yield base_url.rstrip("/"), os.environ["API_KEY"]
        return
    began = time.monotonic()
    with ExitStack() as running:
        with screen.waiting("Starting the API ..."):
            api = running.enter_context(running_api({**os.environ, PACE: str(pace)}))
        screen.step(f"API running after {time.monotonic() - began:.1f} s", api.base_url)
        yield api.base_url, api.api_key


def _circumstances(services: Services | None, pace: float) -> Iterator[str]:
    """Say what is real and what is not, as far as it is known beforehand."""
    if services is not None:
        real = {"LiveKit": services.livekit, "Gemini": services.gemini, "DynamoDB": services.dynamodb_url}
        if names := [name for name, service in real.items() if service is None]:
            yield f"Stand-ins on this machine: {', '.join(names)}."
        if services.gemini is None:
            yield (
                "The stand-in for Gemini asks the agent's questions in turn and understands nothing; it reads the "
                "caller's words out of their audio, where the demo hides them."
            )
        if services.livekit is not None:
            yield "The LiveKit room is a real one, and stays empty: the caller of this demo talks to Gemini alone."
    if pace != 1:
        yield f"The call passes {pace:g} times as fast as it would; PACE=1 is natural."
