"""The command `python -m doctor [stack]`: check the services of the environment or of a deployed stack."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Never

from doctor.aws import SECRETS, StackChecks
from doctor.checks import Result, redacted, run_checks
from doctor.gemini import GeminiChecks
from doctor.livekit import LiveKitChecks
from doctor.target import Target
from doctor.webhook import api_check, webhook_check
from local.errors import CannotStart
from local.running import LocalApi, running_api
from local.services import Gemini, LiveKit, Services, function_variables
from local.stack import TEMPLATE
from local.stand_ins import gemini, livekit
from local.stand_ins.gemini_live import PACE
from local.template import load
from pi_voice.adapters.http_client import HttpClient
from pi_voice.logs import logger

WEBHOOK_URL: Final = "WEBHOOK_URL"

_PACE: Final = "4"
_CTRL_C: Final = 130
_AWS: Final = ("AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SQS")
"""Not checked without a stack, and the local API would create its tables and queues there."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise CannotStart(f"{message[0].upper()}{message[1:]}.")


def main() -> None:
    """Run the checks; exit with 1 if one failed, and with 130 after Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    logger.setLevel("CRITICAL")  # the results say what the adapters would log
    try:
        has_passed = run(sys.argv[1:], os.environ)
    except CannotStart as reason:
        sys.exit(str(reason))
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        sys.exit(_CTRL_C)
    sys.exit(0 if has_passed else 1)


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Run the checks, and return whether none failed; raises CannotStart."""
    parser = _Parser(prog="python -m doctor", description="Check that a call can be held.")
    parser.add_argument("stack", nargs="?", help="a deployed stack; without it, the environment's keys are checked")
    stack = parser.parse_args(arguments).stack
    if stack:
        print(f"Checking the stack {stack}.\n", flush=True)
        return _verdict(asyncio.run(_check_stack(stack)))
    with _environment(environment) as target:
        return _verdict(asyncio.run(_check_environment(target)))


def _verdict(has_passed: bool) -> bool:  # noqa: FBT001 (its only argument)
    print("\nA call can be held." if has_passed else "\nCorrect what failed, and run make doctor again.")
    return has_passed


# ---- The environment ----


@contextmanager
def _environment(environment: Mapping[str, str]) -> Iterator[Target]:
    """Choose the services as `make run` does, and start what is missing; raises CannotStart."""
    services = Services.chosen_by(environment)
    stand_ins = [
        name for name, service in {"LiveKit": services.livekit, "Gemini": services.gemini}.items() if not service
    ]
    print(
        f"No keys of {' and '.join(stand_ins)} are set, so the stand-ins are checked.\n"
        if stand_ins
        else "Checking the services of the environment's keys.\n",
        flush=True,
    )
    if environment.get(WEBHOOK_URL) and not stand_ins:
        yield _target(services, None, environment)
        return
    started = {name: value for name, value in environment.items() if name not in _AWS}
    with running_api({PACE: _PACE, **started}) as api:
        yield _target(services, api, environment)


def _target(services: Services, api: LocalApi | None, environment: Mapping[str, str]) -> Target:
    real_livekit, real_gemini = services.livekit, services.gemini
    if api:
        real_livekit = real_livekit or LiveKit(api.livekit_url, livekit.API_KEY, livekit.API_SECRET)
        real_gemini = real_gemini or Gemini(gemini.API_KEY, api.gemini_url)
    if real_livekit is None or real_gemini is None:
        raise CannotStart("There is neither a key nor a stand-in of a service.")
    variables = function_variables(services, real_livekit, real_gemini, "", "")
    template = load(TEMPLATE, variables, services.parameters)
    return Target(
        {**template.functions[0].environment, **variables},
        environment.get(WEBHOOK_URL) or (api.webhook_url if api else ""),
        has_real_livekit=services.livekit is not None,
        has_real_gemini=services.gemini is not None,
    )


async def _check_environment(target: Target) -> bool:
    async with _http() as http:
        return await _check_services(target, http)


# ---- A stack ----


async def _check_stack(name: str) -> bool:
    stack = StackChecks(name)
    async with _http() as http:
        if not await run_checks(stack.checks(), _printer(Target({}, ""))):
            print(Result("Services", "skipped", f"Not checked, because they need: {SECRETS}."))
            return False
        target = stack.target
        is_answering = await run_checks([api_check(target, http, stack.outputs["ApiUrl"])], _printer(target))
        return await _check_services(target, http) and is_answering


# ---- Both ----


async def _check_services(target: Target, http: HttpClient) -> bool:
    call = GeminiChecks(target, http)
    checks = [webhook_check(target, http), *LiveKitChecks(target, http).checks(), *call.checks()]
    try:
        return await run_checks(checks, _printer(target))
    finally:
        await call.close()


@asynccontextmanager
async def _http() -> AsyncIterator[HttpClient]:
    http = HttpClient()
    try:
        yield http
    finally:
        await http.close()


def _printer(target: Target) -> Callable[[Result], None]:
    return lambda result: print(redacted(str(result), target.secrets), flush=True)
