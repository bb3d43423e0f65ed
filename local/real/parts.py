"""Install and start the real servers and programs that tests and measurements run against.

Everything is installed into the ignored folder .real. `make test-real` shows the versions of the parts that ran.
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
from typing import Final

from local.errors import CannotStart

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".real"
INSTALL_SECONDS: Final = 2_400
START_SECONDS: Final = 600
END_SECONDS: Final = 60

Command = list[str | Path]

versions: Final[dict[str, str]] = {}
"""The versions of the parts that ran in this process, by name."""


class Missing(Exception):
    """This machine does not have a part, and it cannot be installed."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part}: {reason}")


def program(part: str, name: str) -> str:
    """Return the path of a program on PATH; raises Missing."""
    found = shutil.which(name)
    if found is None:
        raise Missing(part, f"there is no {name} on PATH")
    return found


def install(part: str, command: Command, environment: Mapping[str, str] | None = None) -> None:
    """Run one step of an installation; raises Missing with the output of the step if it fails."""
    try:
        ended = subprocess.run(  # noqa: S603 (our own command)
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
        raise Missing(part, f"{command[0]} took more than {INSTALL_SECONDS} s to install it") from None
    if ended.returncode:
        output = ended.stdout[-2000:].strip()
        raise Missing(part, f"{' '.join(map(str, command))} ended with {ended.returncode}:\n{output}")


def is_installed(folder: Path, lock: Path) -> bool:
    """Return whether a complete installation of a lock file is in a folder, by its mark."""
    mark = folder / "installed"
    return mark.is_file() and mark.read_bytes() == lock.read_bytes()


def mark_installed(folder: Path, lock: Path) -> None:
    """Mark a folder as a complete installation of a lock file."""
    shutil.copyfile(lock, folder / "installed")


def free_port(in_a_row: int = 1) -> int:
    """Return the first of some free ports in a row, outside the range from which the system assigns ports."""
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
    """Run a server until the end of the context; yield its log once it is ready.

    Raises CannotStart, not Missing, if it does not start: it is installed, so this is a fault.
    """
    log = FOLDER / "logs" / f"{part.lower().replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 (our own command)
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
                    raise CannotStart(f"{part} did not start:\n{log.read_text(errors='replace')[-3000:]}")
                time.sleep(0.1)
            yield log
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()


def accepts_connections(port: int) -> Callable[[], bool]:
    """Return a function that returns whether a server listens on a port of loopback."""

    def is_ready() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    return is_ready
