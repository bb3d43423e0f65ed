"""The command `python -m demo examples/intake.json`: start the API, hold one call and show it."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
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

DEFAULT_EXAMPLE: Final = "examples/booking.json"
DEFAULT_PACE: Final = "4"

_CTRL_C: Final = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise CannotStart(f"{message[0].upper()}{message[1:]}.")


def main() -> None:
    """Hold a call; exit with 1 and one sentence on failure, and with 130 after Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell ignores SIGINT in the background jobs of a script
        signal.signal(number, signal.default_int_handler)
    try:
        run(sys.argv[1:], os.environ)
    except (CannotStart, CallFailed) as reason:
        sys.exit(str(reason))
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        sys.exit(_CTRL_C)


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Hold a call; raises CannotStart and CallFailed."""
    options = _read(arguments)
    example = load(Path(options.example or DEFAULT_EXAMPLE))
    recording = Path(options.record) if options.record else None
    services = None if options.base else Services.chosen_by(environment)
    pace = _pace(options.pace, services)
    if options.base and "API_KEY" not in environment:
        raise CannotStart("API_KEY is not set: the API named with --base needs a key.")
    screen = Screen()
    screen.title(f"A whole call: {example.path}", *_notes(services, pace))
    walk_through = WalkThrough(screen, example, pace)
    if options.base:
        asyncio.run(walk_through.run(options.base.rstrip("/"), environment["API_KEY"], recording))
        return
    with ExitStack() as running:
        began = time.monotonic()
        with screen.waiting("Starting the API ..."):
            api = running.enter_context(running_api({**environment, PACE: str(pace)}))
        screen.step(f"API running after {time.monotonic() - began:.1f} s", api.base_url)
        asyncio.run(walk_through.run(api.base_url, api.api_key, recording, reaches_this_machine=True))


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="python -m demo", description="Hold one call, and show it.")
    parser.add_argument("example", nargs="?", help="an agent, with its caller in a .caller.json beside it")
    parser.add_argument("--pace", help="how many times faster than people the stand-in for Gemini speaks")
    parser.add_argument("--record", help="a WAV file to write the call to")
    parser.add_argument("--base", help="an API that runs already, opened with the key in API_KEY")
    return parser.parse_args(arguments)


def _pace(wanted: str | None, services: Services | None) -> float:
    """Return the pace of the agent's speech: 1 is natural, and only a stand-in started here speaks faster unasked."""
    if services is not None and services.gemini is not None:
        return 1.0
    return LiveTimes.of({PACE: wanted or ("1" if services is None else DEFAULT_PACE)}).pace


def _notes(services: Services | None, pace: float) -> Iterator[str]:
    """Say which services are stand-ins, where that is known before the call."""
    if services is not None:
        real = {"LiveKit": services.livekit, "Gemini": services.gemini, "DynamoDB": services.dynamodb_url}
        if names := [name for name, service in real.items() if service is None]:
            yield f"Stand-ins on this machine: {', '.join(names)}."
        if services.gemini is None:
            yield (
                "The stand-in for Gemini asks the agent's questions in order and understands no speech: the demo hides "
                "the caller's words in their audio, and the stand-in reads them from there."
            )
        if services.livekit is not None:
            yield "The LiveKit room is a real one and stays empty: the caller of this demo talks to Gemini only."
    if pace != 1:
        yield f"The call runs at {pace:g} times natural speed; PACE=1 is natural."
