"""Run the built functions in Docker with the AWS SAM CLI and the services of `make run`.

    python -m local.sam api --build .aws-sam/x86_64 --port 3000
    python -m local.sam invoke --build .aws-sam/x86_64 --function CreateSession --event events/create_session.json

`sam local` sets only the template's variables, resolves table names differently, and reads settings from files beside
the template. So it gets a modified copy of the built template, in a temporary folder. The services' variables, keys
included, are passed in its environment.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from events.samples import API_KEY
from events.sign_webhook import signed
from local.command import FIRST_REQUEST, Arguments, end_at_ctrl_c, port_named, services_in_use
from local.containers import NAME, Docker, seen_from_containers
from local.errors import CannotStart
from local.http_server import HOST, listen
from local.loopback import is_loopback
from local.sample_records import save_samples
from local.services import function_variables
from local.stack import Surroundings, running_services
from local.template import Template

_ROOT: Final = Path(__file__).parent.parent
_SAM: Final = _ROOT / ".venv-sam/bin/sam"
CREDENTIALS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_WEBHOOK_PATH: Final = "/api/v1/voice/webhooks/livekit"
_START_SECONDS: Final = 60
_FUNCTION_START_SECONDS: Final = 30
"""Time for a function's start: unlike Lambda, sam includes it in the function's timeout."""

_END_SECONDS: Final = 15


def main() -> None:
    """Run the command; exit with sam's status, or with 1 and one sentence if it cannot start."""
    try:
        sys.exit(asyncio.run(_run(sys.argv[1:])))
    except CannotStart as reason:
        sys.exit(str(reason))
    except asyncio.CancelledError:
        print("\nStopped.", file=sys.stderr)


async def _run(arguments: Sequence[str]) -> int:
    parser = Arguments(prog="python -m local.sam", description="Run the built functions in Docker.")
    commands = parser.add_subparsers(dest="command", required=True)
    api = commands.add_parser("api", help="serve the whole API")
    api.add_argument("--port", default="3000", help="port of the API; 0 for any free port")
    invoke = commands.add_parser("invoke", help="invoke one function and print its answer")
    invoke.add_argument("--function", default="", help="the function's name in the template")
    invoke.add_argument("--event", default="", help="a file with the event; default: the function's sample")
    for command in (api, invoke):
        command.add_argument("--build", required=True, type=Path, help="the output folder of sam build")
    given = parser.parse_args(arguments)
    end_at_ctrl_c()
    if given.command == "api":
        return await _serve(given.build, port_named(given.port))
    return await _invoke(given.build, given.function, given.event)


# ---- Commands ----


async def _serve(build: Path, port: int) -> int:
    with listen(port) as listener:  # check that the port is free before starting anything
        port = listener.getsockname()[1]
    base_url = f"http://{HOST}:{port}"
    async with _sam_local(build, base_url + _WEBHOOK_PATH) as sam:
        process = await sam.start("start-api", "--port", str(port), "--warm-containers", "LAZY")
        try:
            await _accepts_connections(port, process)
            print(_ready(sam.around, base_url), flush=True)
            return await process.wait()
        finally:
            await _end(process)


async def _invoke(build: Path, function: str, event: str) -> int:
    document = event_named(event) if event else sample_of(function)
    async with _sam_local(build, f"http://{HOST}:1/unused") as sam:
        await save_samples(sam.around)
        process = await sam.start("invoke", function, "--event", "-", stdin=asyncio.subprocess.PIPE)
        try:
            await process.communicate(json.dumps(with_credentials(document, sam.around)).encode())
            return await process.wait()
        finally:
            await _end(process)


def sample_of(function: str) -> Any:
    """Read the sample event of a function; raises CannotStart if the function does not exist."""
    samples = {path.stem.title().replace("_", ""): path for path in sorted((_ROOT / "events").glob("*.json"))}
    if function not in samples:
        raise CannotStart(f"FUNCTION is {function!r}: it should be one of {', '.join(samples)}.")
    return event_named(str(samples[function]))


def event_named(path: str) -> Any:
    """Read an event; raises CannotStart."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CannotStart(f"EVENT is {path!r}, which is not a JSON file: {error}.") from None


def with_credentials(event: Any, around: Surroundings) -> Any:
    """Return an event with the samples' API key replaced by a valid one, or with a fresh webhook signature."""
    if not isinstance(event, dict) or "headers" not in event:
        return event
    if event.get("rawPath") == _WEBHOOK_PATH:
        return signed(event, *(around.services.webhook_keys or (around.livekit.api_key, around.livekit.api_secret)))
    return {
        **event,
        "headers": {name: text.replace(API_KEY, around.api_key) for name, text in event["headers"].items()},
    }


def _ready(around: Surroundings, base_url: str) -> str:
    return f"""
Pi Voice is ready, in Docker. A function starts with its first request. Press Ctrl-C to stop.

{services_in_use(around)}
  In answers, {NAME} is this machine, both from the containers and from here.

export BASE="{base_url}"
export API_KEY="{around.api_key}"
export WEBHOOK_URL="{base_url}{_WEBHOOK_PATH}"

{FIRST_REQUEST}"""


# ---- Inputs of sam ----


@dataclass(frozen=True, slots=True)
class _Sam:
    """`sam local`, with its options and its environment."""

    around: Surroundings
    options: Sequence[str]
    environment: Mapping[str, str]

    async def start(self, command: str, *arguments: str, stdin: int = asyncio.subprocess.DEVNULL) -> Process:
        """Start a `sam local` command."""
        return await asyncio.create_subprocess_exec(
            str(_SAM),
            *("local", command, *arguments, *self.options),
            cwd=_ROOT,
            env=dict(self.environment),
            stdin=stdin,
            start_new_session=True,  # so Ctrl-C reaches the parent only
        )


@asynccontextmanager
async def _sam_local(build: Path, webhook_url: str) -> AsyncIterator[_Sam]:
    environment = dict(os.environ)  # running_services clears os.environ
    docker = Docker.chosen_by(environment)
    async with AsyncExitStack() as running:
        around = await running.enter_async_context(running_services(webhook_url, environment))
        built = yaml.safe_load((build / "template.yaml").read_text(encoding="utf-8"))
        image = image_of(built)
        docker.get(image)
        network = running.enter_context(docker.network())
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="pi-voice-")))
        aws = {around.dynamodb_url, around.sqs_url}
        urls = [url for url in (around.livekit.url, around.gemini.base_url, *aws) if url]
        address = await running.enter_async_context(docker.relay_to(urls, image, network, folder))

        variables = variables_for_containers(around)
        own = {**around.machine, **docker.settings, "SAM_CLI_TELEMETRY": "0"}
        # Only the functions get fake credentials: if sam had any, it would first look up their account at AWS.
        fake = {name: own.pop(name) for name in CREDENTIALS if all(map(is_loopback, aws))}
        template = folder / "template.yaml"
        document = local_template(built, build, around.template, dict.fromkeys(variables, "") | fake)
        template.write_text(yaml.safe_dump(document), encoding="utf-8")
        yield _Sam(
            around,
            [
                *("--template-file", str(template), "--skip-pull-image"),
                *("--docker-network", network, "--add-host", f"{NAME}:{address}"),
            ],
            {**own, **variables},
        )


def variables_for_containers(around: Surroundings) -> dict[str, str]:
    """Return the environment variables of functions in containers."""
    gemini = around.gemini
    return function_variables(
        around.services,
        replace(around.livekit, url=seen_from_containers(around.livekit.url)),
        replace(gemini, base_url=seen_from_containers(gemini.base_url) if gemini.base_url else None),
        seen_from_containers(around.dynamodb_url),
        seen_from_containers(around.sqs_url),
    )


def image_of(built: Mapping[str, Any]) -> str:
    """Return the name of AWS's image for the runtime and the architecture of a built template."""
    version = built["Globals"]["Function"]["Runtime"].removeprefix("python")
    return f"public.ecr.aws/lambda/python:{version}-{built['Parameters']['Architecture']['Default']}"


def local_template(
    built: Mapping[str, Any], build: Path, template: Template, variables: Mapping[str, str]
) -> Mapping[str, Any]:
    """Return the built template with absolute paths and the local stack's variables.

    The services' variables are empty: sam takes their values from its own environment, so no key is written to disk.
    """
    values = {each.logical_id: {**each.environment, **variables} for each in template.functions}
    limits = {each.logical_id: each.timeout_seconds for each in template.functions}
    resources = {}
    for name, resource in built["Resources"].items():
        properties = dict(resource.get("Properties", {}))
        for key in ("CodeUri", "ContentUri"):
            if key in properties:
                properties[key] = str((build / properties[key]).resolve())
        if name in values:
            properties["Environment"] = {"Variables": values[name]}
            properties["Timeout"] = limits[name] + _FUNCTION_START_SECONDS
        resources[name] = {**resource, "Properties": properties}
    shared = {key: value for key, value in built["Globals"]["Function"].items() if key != "Environment"}
    return {**built, "Globals": {**built["Globals"], "Function": shared}, "Resources": resources}


# ---- The process of sam ----


async def _accepts_connections(port: int, process: Process) -> None:
    """Wait until sam listens; raises CannotStart if it exits or does not listen within the time limit."""
    deadline = time.monotonic() + _START_SECONDS
    while process.returncode is None and time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            await asyncio.sleep(0.1)
        else:
            return
    raise CannotStart("`sam local start-api` did not start; see its output above.")


async def _end(process: Process) -> None:
    """Stop sam with SIGINT, so that it removes its containers; removing the network removes the rest."""
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    main()
