"""Docker, and the way from its containers to services that listen on this machine's own address alone.

To a container 127.0.0.1 is the container itself, and nothing of ours listens anywhere else. Docker Desktop leads a
container to the machine's loopback by itself. On Linux there is a relay in two halves: one on this side that accepts
on Unix sockets in a folder of its own, and a container that has the folder and listens on a network of its own.

    function ── pi-voice.localhost:PORT ──> relay container ── FOLDER/PORT ──> this process ── 127.0.0.1:PORT
"""

import asyncio
import secrets
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from local import relay_process
from local.errors import CannotStart
from local.services import is_loopback

NAME: Final = "pi-voice.localhost"
"""This machine, to containers. To browsers and to curl any name under localhost is the machine too, so a URL with it
leads to the same place from either side."""

_MOUNTED_AT: Final = "/relay"
_PYTHON: Final = "/var/lang/bin/python3"
_PROGRAM: Final = Path(relay_process.__file__).read_text(encoding="utf-8")
_ENGINE_SECONDS: Final = 30
_END_SECONDS: Final = 5
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def seen_from_containers(url: str) -> str:
    """Return the URL under which a container finds a service."""
    return urlsplit(url)._replace(netloc=f"{NAME}:{_port(url)}").geturl() if is_loopback(url) else url


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or _DEFAULT_PORTS[parts.scheme]


@dataclass(frozen=True, slots=True)
class Docker:
    """The engine that the docker command leads to."""

    environment: Mapping[str, str]

    @classmethod
    def chosen_by(cls, environment: Mapping[str, str]) -> "Docker":
        """Find the engine as the docker command does, with all of the user's settings; raises CannotStart."""
        if not shutil.which("docker", path=environment.get("PATH")):
            raise CannotStart("This needs Docker, and there is no docker on PATH: `make run` does without.")
        docker = cls(environment)
        docker.operating_system()
        return docker

    @property
    def settings(self) -> dict[str, str]:
        """The variables that lead to this engine."""
        return {
            name: value
            for name, value in self.environment.items()
            if name.startswith("DOCKER_") or name == "XDG_RUNTIME_DIR"  # where a rootless engine is
        }

    def operating_system(self) -> str:
        """Return what the engine runs on; raises CannotStart when it does not answer."""
        ended = self._run("info", "--format", "{{.OperatingSystem}}")
        if ended.returncode or not ended.stdout.strip():
            said = ended.stderr.strip().splitlines() or ["it says nothing."]
            raise CannotStart(f"This needs Docker, and its engine does not answer: {said[-1]}")
        return ended.stdout.strip()

    def reaches_loopback(self) -> bool:
        """Return whether the engine itself leads containers to this machine's loopback."""
        return sys.platform != "linux" or self.operating_system() == "Docker Desktop"

    def get(self, image: str) -> None:
        """Pull an image that is not on this machine yet; raises CannotStart."""
        if self._run("image", "inspect", image).returncode == 0:
            return
        print(f"Pulling {image}, once.", file=sys.stderr, flush=True)
        try:
            subprocess.run(  # noqa: S603 (the name is the template's)
                ["docker", "pull", "--quiet", image],  # noqa: S607 (the user's docker)
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                check=True,
            )
        except subprocess.CalledProcessError:
            raise CannotStart(f"{image} cannot be pulled, and it is not on this machine.") from None

    @contextmanager
    def network(self) -> Iterator[str]:
        """Make a network and yield its name; at the end it goes, with all containers that are left in it."""
        name = f"pi-voice-local-{secrets.token_hex(4)}"
        made = self._run("network", "create", name)
        if made.returncode:
            raise CannotStart(f"Docker makes no network: {made.stderr.strip().rstrip('.')}.")
        try:
            yield name
        finally:
            left = self._run("ps", "--all", "--quiet", "--filter", f"network={name}").stdout.split()
            if left:
                self._run("rm", "--force", *left)
            self._run("network", "rm", name)

    @asynccontextmanager
    async def relay_to(self, urls: Iterable[str], image: str, network: str, folder: Path) -> AsyncIterator[str]:
        """Lead containers of a network to services on loopback; yield what NAME has to be to them.

        The folder is a short path of our own, for a Unix socket per service. Raises CannotStart.
        """
        if self.reaches_loopback():
            yield "host-gateway"
            return
        services = {_port(url): urlsplit(url).hostname or "" for url in urls if is_loopback(url)}
        async with AsyncExitStack() as running:
            for port, host in services.items():
                try:
                    accepting = await asyncio.start_unix_server(
                        partial(forward_to_service, host, port), folder / str(port)
                    )
                except OSError as error:  # a path of more than about a hundred letters
                    raise CannotStart(f"{folder} cannot hold a Unix socket, so set TMPDIR: {error}.") from None
                running.callback(accepting.close)
            yield await running.enter_async_context(self._relay(image, network, folder, services))

    @asynccontextmanager
    async def _relay(self, image: str, network: str, folder: Path, ports: Iterable[int]) -> AsyncIterator[str]:
        process = await asyncio.create_subprocess_exec(
            *("docker", "run", "--rm", "--interactive", "--network", network),
            *("--volume", f"{folder}:{_MOUNTED_AT}:ro", "--entrypoint", _PYTHON, image),
            *("-c", _PROGRAM, _MOUNTED_AT, *map(str, ports)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=None,
            env=self.environment,
            start_new_session=True,  # Ctrl-C is for us alone
        )
        try:
            address = (await process.stdout.readline()).decode().strip()  # type: ignore[union-attr]
            if not address:
                raise CannotStart("The relay into Docker did not start; what Docker said is above.")
            yield address
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            try:
                await asyncio.wait_for(process.wait(), _END_SECONDS)
            except TimeoutError:
                process.kill()  # and the network takes the container along
                await process.wait()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", *arguments]
        try:
            return subprocess.run(  # noqa: S603 (all arguments are ours)
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_ENGINE_SECONDS,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 1, "", f"no answer within {_ENGINE_SECONDS} s")


async def forward_to_service(host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lead one connection from a Unix socket to a service."""
    try:
        service = await asyncio.open_connection(host, port)
    except OSError:
        writer.close()  # as if the caller had been refused
        return
    await relay_process.pipe((reader, writer), service)
