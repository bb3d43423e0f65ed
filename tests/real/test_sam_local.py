"""The built functions in Docker, run by `make sam-invoke` and `make sam-api`."""

import asyncio
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import pytest
import yaml
from livekit import api as livekit
from livekit.protocol.room import DeleteRoomRequest

from local.containers import NAME
from local.real import parts
from local.sam import image_of
from local.stand_ins.livekit import API_KEY, API_SECRET
from tests.local.processes import until
from tests.real.docker_engine import Engine, image, running_engine
from tests.support.command_blocks import BLOCKS, settled
from tests.support.template import environment

pytestmark = pytest.mark.real

READY_SECONDS: Final = 900
END_SECONDS: Final = 300
AT_A_TIME: Final = 3
OURS: Final = "pi-voice-local"
INHERITED: Final = ("PATH", "HOME", "LANG", "TMPDIR")

STATUSES: Final = {"GetAgent": 200, "CreateSession": 201, "CompleteSession": 200, "ReceiveLivekitWebhook": 200}
"""A function with AWS only, one with each provider's SDK, and the one with a signature. test_deploy.py has them all."""

FIELDS: Final = {"ExtractResults": "batchItemFailures", "SweepSessions": "data", "CreateApiKey": "data"}
"""Functions without a route: for the queue, for the schedule and for operators."""


@dataclass(frozen=True, slots=True)
class Local:
    """An engine with the image, and the build to run in it."""

    engine: Engine
    build: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a user with this engine and no services of their own."""
        inherited = {name: value for name, value in environment().items() if name in INHERITED or "DOCKER" in name}
        return {**inherited, **self.engine}

    def invoke(self, function: str) -> Any:
        """Return the output of `make sam-invoke` for the function's sample event."""
        ended = subprocess.run(
            ["make", "-s", "sam-invoke", f"FUNCTION={function}", f"LOCAL_BUILD_DIR={self.build}"],  # noqa: S607
            cwd=parts.ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout, ended.stderr
        return json.loads(ended.stdout)

    def ours(self) -> set[str]:
        """Return the names of our networks and the ids of the containers in them."""
        networks = self._docker("network", "ls", "--format", "{{.Name}}")
        containers = [line.split() for line in self._docker("ps", "--all", "--format", "{{.ID}} {{.Networks}}")]
        found = {name for name in networks if OURS in name}
        return found | {container for container, *within in containers if OURS in str(within)}

    def _docker(self, *arguments: str) -> list[str]:
        asked = subprocess.run(
            ["docker", *arguments],  # noqa: S607
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return asked.stdout.splitlines()


@dataclass(frozen=True, slots=True)
class Api:
    """A running `make sam-api`: its exported variables and its log."""

    exports: dict[str, str]
    log: Path

    def call(self, path: str, body: object = None) -> Any:
        """Send a request to a route and return its data."""
        headers = {"Authorization": f"Bearer {self.exports['API_KEY']}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.exports['BASE']}/api/v1/voice{path}"
        with urlopen(Request(url, data, headers), timeout=300) as answer:  # noqa: S310 (our own address)
            return json.load(answer)["data"]


@pytest.fixture(scope="module")
def local(build: Path) -> Iterator[Local]:
    with running_engine() as engine:
        image(engine, image_of(yaml.safe_load((build / "template.yaml").read_text(encoding="utf-8"))))
        version = subprocess.run(
            [parts.ROOT / ".venv-sam/bin/sam", "--version"], capture_output=True, text=True, check=True
        )
        parts.versions["AWS SAM CLI"] = version.stdout.strip().removeprefix("SAM CLI, version ")
        yield Local(engine, build)


@contextmanager
def running_sam_api(local: Local) -> Iterator[Api]:
    """Run `make sam-api` until the end of the context, and stop it as Ctrl-C does."""
    log = parts.FOLDER / "logs/sam-api.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            ["make", "-s", "sam-api", f"PORT={parts.free_port()}", f"LOCAL_BUILD_DIR={local.build}"],  # noqa: S607
            cwd=parts.ROOT,
            env=local.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        exports: dict[str, str] = {}
        ready = threading.Event()

        def read() -> None:
            for line in process.stdout or ():
                if found := re.fullmatch(r'export (\w+)="(.*)"\n', line):
                    exports[found[1]] = found[2]
                if line.startswith("curl "):
                    ready.set()
            ready.set()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            assert ready.wait(READY_SECONDS), log.read_text()
            assert process.poll() is None, log.read_text()
            yield Api(exports, log)
        finally:
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            reader.join()


@pytest.fixture(scope="module")
def api(local: Local) -> Iterator[Api]:
    with running_sam_api(local) as running:
        yield running


@pytest.fixture(scope="module")
def answers(local: Local) -> Iterator[Mapping[str, Future[Any]]]:
    """The response of each function; a few are invoked at a time, and sam lets them share an image."""
    pool = ThreadPoolExecutor(AT_A_TIME)
    yield {function: pool.submit(local.invoke, function) for function in (*STATUSES, *FIELDS)}
    pool.shutdown(cancel_futures=True)


# ---- make sam-api ----


def test_the_readme_s_walk_through_prints_the_shown_output(api: Api) -> None:
    readme = [block for block in BLOCKS if block.document == parts.ROOT / "README.md"]
    [script] = [block for block in readme if block.kind == "run"]
    [shown] = [block for block in readme if block.kind == "output"]

    ended = subprocess.run(
        ["sh"],  # noqa: S607
        input=script.text,
        env=environment(**api.exports),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.stderr, ended.returncode) == ("", 0)
    assert settled(ended.stdout.replace(NAME, "127.0.0.1")) == settled(shown.text)


def test_urls_in_responses_reach_the_stand_ins_from_the_host_too(api: Api) -> None:
    session = a_session(api)
    urls = [session["connection"]["livekit"]["url"], session["connection"]["gemini_live"]["url"]]

    for url in urls:
        assert f"//{NAME}:" in url
        found = subprocess.run(
            ["curl", "-sS", "-o", os.devnull, url.replace("ws:", "http:")],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stderr


def test_livekit_s_webhooks_arrive_through_sam_s_gateway(api: Api) -> None:
    session = a_session(api)
    url = session["connection"]["livekit"]["url"].replace(NAME, "127.0.0.1")

    async def close_room() -> None:
        async with livekit.LiveKitAPI(url, API_KEY, API_SECRET) as client:
            await client.room.delete_room(DeleteRoomRequest(room=session["session_id"]))

    asyncio.run(close_room())

    until(lambda: api.call(f"/sessions/{session['session_id']}")["livekit"]["finished_at"])


def a_session(api: Api) -> Any:
    """Create the sample's agent and its session."""
    agent, session = (
        json.loads(json.loads((parts.ROOT / f"events/{name}.json").read_text())["body"])
        for name in ("create_agent", "create_session")
    )
    return api.call("/sessions", {**session, "agent_id": api.call("/agents", agent)["agent_id"]})


# ---- make sam-invoke ----


@pytest.mark.parametrize("function", STATUSES)
def test_a_function_with_a_route_succeeds_with_its_sample(answers: Mapping[str, Future[Any]], function: str) -> None:
    answer = answers[function].result()

    assert answer["statusCode"] == STATUSES[function], answer


@pytest.mark.parametrize("function", FIELDS)
def test_a_function_without_a_route_succeeds_with_its_sample(answers: Mapping[str, Future[Any]], function: str) -> None:
    assert answers[function].result().keys() == {FIELDS[function]}


# ---- Afterwards ----


def test_no_container_or_network_is_left_in_docker(local: Local) -> None:
    before = local.ours()
    with running_sam_api(local) as api:
        api.call("/voices")
        added = local.ours() - before
        assert len(added) == len({"the network", "the relay", "the function"})

    assert local.ours() == before
