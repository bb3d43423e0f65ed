"""The real parts that `make test-real` holds the product against: how they are installed, started and reported.

Everything is installed into the ignored folder .real. What a machine cannot provide is skipped by name with the
reason; with REQUIRE_REAL=1 that is a failure.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

import pytest

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".real"
INSTALL_SECONDS: Final = 2_400
START_SECONDS: Final = 600
END_SECONDS: Final = 60

Command = list[str | Path]

versions: Final[dict[str, str]] = {}
"""The parts that took part in this run, by name; the terminal shows them at the end."""


def absent(part: str, reason: str) -> NoReturn:
    """Skip a test because this machine has no such part; fail it where all of them are required."""
    message = f"{part}: {reason}"
    if os.environ.get("REQUIRE_REAL") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def program(part: str, name: str) -> str:
    """Return the path of a program of the machine, or say that the part is absent."""
    return shutil.which(name) or absent(part, f"there is no {name} on PATH")


def install(part: str, command: Command, environment: Mapping[str, str] | None = None) -> None:
    """Run one step of an installation, or say that the part is absent and how the step ended."""
    try:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        absent(part, f"{command[0]} took more than {INSTALL_SECONDS} s to install it")
    if ended.returncode:
        absent(part, f"{' '.join(map(str, command))} ended with {ended.returncode}:\n{ended.stdout[-2000:].strip()}")


def is_installed(folder: Path, lock: Path) -> bool:
    """Return whether a folder holds what a lock says; `mark_installed` told so when it was complete."""
    mark = folder / "installed"
    return mark.is_file() and mark.read_bytes() == lock.read_bytes()


def mark_installed(folder: Path, lock: Path) -> None:
    """Say that a folder holds what a lock says."""
    shutil.copyfile(lock, folder / "installed")


def free_port(in_a_row: int = 1) -> int:
    """Return a port that nobody uses, nor those behind it; the system gives none of them to who asks for any."""
    while True:
        port = random.randrange(20_000, 30_000)  # noqa: S311 (no secret)
        with suppress(OSError), ExitStack() as taken:
            for number in range(in_a_row):
                taken.enter_context(socket.create_server(("127.0.0.1", port + number)))
            return port


@contextmanager
def running(
    part: str, command: Command, is_ready: Callable[[], bool], environment: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """Run a server until the end of the context, from the moment that it is ready; yield its log.

    A server that does not start fails the test: it is installed, so this is a fault and not a lack.
    """
    log = FOLDER / "logs" / f"{part.lower().replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=FOLDER,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as server,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while not is_ready():
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{part} did not start:\n{log.read_text(errors='replace')[-3000:]}", pytrace=False)
                time.sleep(0.1)
            yield log
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()


def accepts_connections(port: int) -> Callable[[], bool]:
    """Return a question that is answered yes once something listens on a port of loopback."""

    def is_ready() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    return is_ready


def listening_addresses(port: int) -> set[str]:
    """Return the addresses on which something listens on a TCP port of this machine, in the kernel's own hex."""
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    listening = "0A"
    places = [row[1].split(":") for row in rows if row[3] == listening]
    return {address for address, number in places if int(number, 16) == port}
