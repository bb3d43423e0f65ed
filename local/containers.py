"""Docker, and the network path from its containers to services on this machine's loopback address.

Inside a container 127.0.0.1 is the container itself, and the services listen on loopback only. Docker Desktop forwards
containers to the machine's loopback. On Linux a relay in two parts does that: this process accepts on Unix sockets
in a folder, and a relay container mounts the folder and listens on its own network.

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
from local.loopback import is_loopback

NAME: Final = "pi-voice.localhost"
"""Name of this machine inside containers. Browsers and curl resolve any name under localhost to this machine, so a URL
with this name works on both sides."""

_MOUNTED_AT: Final = "/relay"
_PYTHON: Final = "/var/lang/bin/python3"
_PROGRAM: Final = Path(relay_process.__file__).read_text(encoding="utf-8")
_ENGINE_SECONDS: Final = 30
_END_SECONDS: Final = 5
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def seen_from_containers(url: str) -> str:
    """Return the URL under which a container reaches a service."""
    return urlsplit(url)._replace(netloc=f"{NAME}:{_port(url)}").geturl() if is_loopback(url) else url


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or _DEFAULT_PORTS[parts.scheme]


@dataclass(frozen=True, slots=True)
class Docker:
    """The engine that the docker command uses."""

    environment: Mapping[str, str]

    @classmethod
    def chosen_by(cls, environment: Mapping[str, str]) -> "Docker":
        """Find the engine with the docker command and the user's settings; raises CannotStart."""
        if not shutil.which("docker", path=environment.get("PATH")):
            raise CannotStart("This needs Docker, and there is no docker on PATH: `make run` works without Docker.")
        docker = cls(environment)
        docker.operating_system()
        return docker

    @property
    def settings(self) -> dict[str, str]:
        """The environment variables that select this engine."""
        return {
            name: value
            for name, value in self.environment.items()
            if name.startswith("DOCKER_") or name == "XDG_RUNTIME_DIR"  # for rootless engines
        }

    def operating_system(self) -> str:
        """Return the engine's operating system; raises CannotStart if the engine does not answer."""
        ended = self._run("info", "--format", "{{.OperatingSystem}}")
        if ended.returncode or not ended.stdout.strip():
            errors = ended.stderr.strip().splitlines() or ["no error message."]
            raise CannotStart(f"This needs Docker, and its engine does not answer: {errors[-1]}")
        return ended.stdout.strip()

    def reaches_loopback(self) -> bool:
        """Return whether the engine forwards containers to this machine's loopback."""
        return sys.platform != "linux" or self.operating_system() == "Docker Desktop"

    def get(self, image: str) -> None:
        """Pull an image unless it is on this machine; raises CannotStart."""
        if self._run("image", "inspect", image).returncode == 0:
            return
        print(f"Pulling {image} (first use).", file=sys.stderr, flush=True)
        try:
            subprocess.run(  # noqa: S603 (the name comes from the template)
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
        """Create a network and yield its name; remove it afterwards, with the containers that are still in it."""
        name = f"pi-voice-local-{secrets.token_hex(4)}"
        created = self._run("network", "create", name)
        if created.returncode:
            raise CannotStart(f"Docker cannot create a network: {created.stderr.strip().rstrip('.')}.")
        try:
            yield name
        finally:
            left = self._run("ps", "--all", "--quiet", "--filter", f"network={name}").stdout.split()
            if left:
                self._run("rm", "--force", *left)
            self._run("network", "rm", name)

    @asynccontextmanager
    async def relay_to(self, urls: Iterable[str], image: str, network: str, folder: Path) -> AsyncIterator[str]:
        """Relay a network's containers to services on loopback; yield the address that NAME must resolve to.

        The folder gets a Unix socket per service, so its path has to be short. Raises CannotStart.
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
                except OSError as error:  # a path of more than about 100 characters
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
            start_new_session=True,  # so Ctrl-C reaches the parent only
        )
        try:
            address = (await process.stdout.readline()).decode().strip()  # type: ignore[union-attr]
            if not address:
                raise CannotStart("The relay container did not start; see Docker's output above.")
            yield address
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            try:
                await asyncio.wait_for(process.wait(), _END_SECONDS)
            except TimeoutError:
                process.kill()  # removing the network removes the container
                await process.wait()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", *arguments]
        try:
            return subprocess.run(  # noqa: S603 (the arguments come from this module)
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
    """Forward one connection from a Unix socket to a service."""
    try:
        service = await asyncio.open_connection(host, port)
    except OSError:
        writer.close()  # the client sees a refused connection
        return
    await relay_process.pipe((reader, writer), service)
