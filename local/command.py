"""The command `python -m local --port 3000`: serve until Ctrl-C, and print how to call the API."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from typing import Final, Never

from local.errors import CannotStart
from local.run_file import FOLDER, RunningApi, announced
from local.sample_records import save_agent
from local.stack import Stack, Surroundings, running_stack

_PORT: Final = "3000"
_HIGHEST_PORT: Final = 65_534
"""The webhook's function URL uses the next port."""


class Arguments(argparse.ArgumentParser):
    """An argument parser that raises CannotStart with a full sentence."""

    def error(self, message: str) -> Never:
        """Raise CannotStart."""
        raise CannotStart(f"{message[0].upper()}{message[1:]}.")


def main() -> None:
    """Serve until Ctrl-C or SIGTERM; exit with 1 and one sentence if it cannot start."""
    try:
        asyncio.run(_serve(port_of(sys.argv[1:])))
    except CannotStart as reason:
        sys.exit(str(reason))
    except asyncio.CancelledError:
        print("\nStopped.")


def port_of(arguments: Sequence[str]) -> int:
    """Read the command's arguments; raises CannotStart."""
    parser = Arguments(prog="python -m local", description="Serve the whole template on this machine.")
    parser.add_argument("--port", default=_PORT, help="port of the API; 0 for any free port")
    return port_named(parser.parse_args(arguments).port)


def port_named(text: str) -> int:
    """Parse a port; raises CannotStart."""
    if not text.isdecimal() or int(text) > _HIGHEST_PORT:
        raise CannotStart(f"{text!r} is not a port: give a number up to {_HIGHEST_PORT}, as in `make run PORT=3100`.")
    return int(text)


def end_at_ctrl_c() -> None:
    """Cancel the current task on the first Ctrl-C or SIGTERM, and ignore later ones during the cleanup."""
    loop, this = asyncio.get_running_loop(), asyncio.current_task()

    def cancel() -> None:
        if this and not this.cancelling():
            this.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, cancel)


async def _serve(port: int) -> None:
    end_at_ctrl_c()
    async with running_stack(port, dict(os.environ)) as stack:
        if stack.around.services.dynamodb_url is None:
            await save_agent(stack.around)
        with _findable(stack):
            print(_ready(stack), flush=True)
            await asyncio.Event().wait()


@contextmanager
def _findable(stack: Stack) -> Iterator[None]:
    """Let `make web-example` and `make webhook-example` find the stack, if the project's folder can be written to."""
    with ExitStack() as findable:
        try:
            findable.enter_context(announced(RunningApi(stack.base_url, stack.around.api_key)))
        except OSError as error:
            print(
                f"`make web-example` and `make webhook-example` will need BASE and API_KEY, because {FOLDER} cannot "
                f"be written: {error.strerror}."
            )
        yield


def _ready(stack: Stack) -> str:
    return f"""\
Pi Voice is ready. Press Ctrl-C to stop it.

{services_in_use(stack.around)}
  Schedules  {", ".join(f"{scheduler.function} every {scheduler.seconds:g} s" for scheduler in stack.schedulers)}
  Lambda     functions without a route: aws lambda invoke --endpoint-url {stack.invoke_url} ...

export BASE="{stack.base_url}"
export API_KEY="{stack.around.api_key}"
export WEBHOOK_URL="{stack.webhook_url}"

API reference: {stack.base_url}/docs
Talk to an agent in your browser: make web-example{_port(stack.base_url)}
Receive the webhooks of your calls: make webhook-example{_port(stack.base_url)}
{_pages(stack.around)}
{FIRST_REQUEST}"""


def _port(base_url: str) -> str:
    return "" if base_url.endswith(f":{_PORT}") else f" PORT={base_url.rpartition(':')[2]}"


def _pages(around: Surroundings) -> str:
    if around.services.allows_loopback:
        return "Web pages on localhost may call the API. CORS_ALLOW_ORIGINS names other pages instead."
    return f"Web pages that may call the API: {around.services.origins}"


_SCRIPTED: Final = "It recognizes no speech: what you say to it counts as the next line of a script."

FIRST_REQUEST: Final = """\
Paste the three lines above into another terminal, then send a first request there:

curl -s "$BASE/api/v1/voice/voices" -H "Authorization: Bearer $API_KEY"
"""


def services_in_use(around: Surroundings) -> str:
    """List the services, a line for each, and say which are stand-ins."""
    services = around.services
    return f"""\
  LiveKit    {"yours" if services.livekit else "a stand-in"}, {around.livekit.url}
  Gemini     {"real" if services.gemini else "a stand-in"}{_at(around.gemini.base_url)}{_gemini_notes(around)}
  DynamoDB   {"yours" if services.dynamodb_url else "a stand-in (moto), in memory"}, {around.dynamodb_url}
  SQS        {"yours" if services.sqs_url else "a stand-in (moto), in memory"}, {around.sqs_url}"""


def _at(url: str | None) -> str:
    return f", {url}" if url else ""


def _gemini_notes(around: Surroundings) -> str:
    model = around.template.functions[0].environment["GEMINI_LIVE_MODEL"].removeprefix("models/")
    is_real = around.services.gemini is not None
    notes = model_warnings(model, datetime.now(UTC).date(), is_real=is_real) + ([] if is_real else [_SCRIPTED])
    return "".join(f"\n             {note}" for note in notes)


def model_warnings(model: str, today: date, *, is_real: bool) -> list[str]:
    """Return warnings about a Live model, each in one line; a stand-in does not shut models down."""
    from pi_voice.domain.live_models import shutdown_notice, unknown_model_notice  # noqa: PLC0415 (as in first_key)

    notices = unknown_model_notice(model), shutdown_notice(model, today, "GEMINI_LIVE_MODEL=") if is_real else None
    return [f"Warning: {notice}" for notice in notices if notice]
