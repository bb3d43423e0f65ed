"""Functions to measure, each in its own container: with the emulator for cold starts, without it for warm requests."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.builds import Builds, CannotMeasure, Command
from local.real.parts import free_port

_CONTAINER: Final = Path(__file__).with_name("container.py")
_INVOKE: Final = "/2015-03-31/functions/function/invocations"
_ANSWER_SECONDS: Final = 60

Json = Any


@dataclass(frozen=True, slots=True)
class Subject:
    """A function: its code folder, its import path and its environment."""

    name: str
    code: Path
    path: tuple[Path, ...]
    environment: Mapping[str, str]

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment of its process, as on Lambda."""
        return {
            **self.environment,
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": "60",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "LAMBDA_TASK_ROOT": str(self.code),
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join(map(str, self.path)),
            "TZ": ":UTC",
        }


@dataclass(frozen=True, slots=True)
class Cold:
    """A cold start: milliseconds from starting the emulator to the response, and Python's peak memory."""

    milliseconds: float
    megabytes: float
    answer: Json


def cold(builds: Builds, subject: Subject, event: Json) -> Cold:
    """Start a function under the emulator, invoke it once, and stop it."""
    port = free_port(2)
    # -S, -s: no installed packages of this machine. -B: no bytecode is written for the next start.
    python: Command = [builds.python, "-S", "-s", "-B", "-m", "awslambdaric", "app.handler"]
    emulator: Command = [
        builds.emulator,
        *("--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
        *("--runtime-api-address", f"127.0.0.1:{port + 1}"),
        *("--log-level", "error"),
    ]
    body = json.dumps(event).encode()
    started = time.perf_counter()
    process = subprocess.Popen(
        [*emulator, *python],
        cwd=subject.code,
        env=subject.variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        answer = _invoke(port, body)
        milliseconds = (time.perf_counter() - started) * 1000
        megabytes = _peak_megabytes(process.pid)
    finally:
        process.kill()
        process.wait()
    _check(subject, answer)
    return Cold(milliseconds, megabytes, answer)


def wait_for(port: int, seconds: float) -> None:
    """Wait until a server listens on a port; raises ConnectionRefusedError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)
        else:
            return


def _invoke(port: int, body: bytes) -> Json:
    """Send the request as soon as the emulator listens."""
    wait_for(port, _ANSWER_SECONDS)
    request = urllib.request.Request(f"http://127.0.0.1:{port}{_INVOKE}", body)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=_ANSWER_SECONDS) as answer:
        return json.load(answer)


def _peak_megabytes(pid: int) -> float:
    """Return the peak memory of the emulator's child process, which is Python."""
    children = Path(f"/proc/{pid}/task")
    pids = [child for task in children.iterdir() for child in (task / "children").read_text().split()]
    status = Path(f"/proc/{pids[0]}/status").read_text(encoding="utf-8")
    [peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(peak) / 1024


def _check(subject: Subject, answer: Json) -> None:
    """Raise CannotMeasure for an error response: its time says nothing about a successful one."""
    wrong = (
        not isinstance(answer, dict)
        or answer.get("statusCode", 200) >= 300
        or "error" in answer
        or "errorType" in answer
    )
    if wrong:
        raise CannotMeasure(f"{subject.name} answered {json.dumps(answer)[:2000]}")


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of one container: wall-clock and CPU milliseconds of each."""

    wall: list[float]
    processor: list[float]
    stolen: list[int]
    """Hundredths of a second during each call in which the machine's host ran other guests."""

    logged: int
    answer: Json


class Container:
    """A running container of one function."""

    def __init__(self, subject: Subject, process: "subprocess.Popen[str]") -> None:
        self._subject = subject
        self._process = process

    def call(self, event: Json, times: int = 1) -> Calls:
        """Call the handler with the same event, `times` times in sequence."""
        assert self._process.stdin  # noqa: S101 (they are pipes)
        assert self._process.stdout  # noqa: S101
        self._process.stdin.write(json.dumps({"event": event, "times": times}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise CannotMeasure(f"{self._subject.name} ended; see its traceback above.")
        calls = Calls(**json.loads(line))
        _check(self._subject, calls.answer)
        return calls


@contextmanager
def container(builds: Builds, subject: Subject) -> Iterator[Container]:
    """Start a container of a function without the emulator."""
    with subprocess.Popen(
        [builds.python, "-S", "-s", "-B", _CONTAINER, "app.handler"],
        cwd=subject.code,
        env=subject.variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Container(subject, process)
        finally:
            process.kill()
