"""Shared by the tests of the documentation: its command blocks, and the local stack that `make run` starts."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import IO, Final

import pytest

from tests.contracts.template.conftest import template
from tests.support.template import ROOT

__all__ = ["template"]

READY_SECONDS: Final = 300
"""Far longer than a start takes, because other tests may use all cores."""

_REAL: Final = re.compile(r"(AWS|GEMINI|GOOGLE|LIVEKIT|PI_VOICE|RETENTION|POWERTOOLS)_")


@pytest.fixture(scope="module")  # to the end of all tests, its schedule and queues would go on
def exports() -> Iterator[Mapping[str, str]]:
    """Run `python -m local`, as `make run` does, and return the variables that it prints for export."""
    clean = {name: value for name, value in os.environ.items() if not _REAL.match(name)}
    process = subprocess.Popen(
        [sys.executable, "-m", "local", "--port", "0"],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT / "layers/voice")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        yield _exported(process.stdout)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _exported(output: IO[str]) -> Mapping[str, str]:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_forward, args=(output, lines), daemon=True).start()
    variables: dict[str, str] = {}
    deadline = time.monotonic() + READY_SECONDS
    while not {"BASE", "API_KEY", "WEBHOOK_URL"} <= variables.keys():
        line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        assert line, f"the local stack ended before it was ready; it had printed {variables}"
        if found := re.fullmatch(r'export (\w+)="([^"]*)"\n', line):
            variables[found[1]] = found[2]
    return variables


def _forward(output: IO[str], lines: "queue.SimpleQueue[str]") -> None:
    """Put each line on the queue, then an empty one; reading to the end keeps the process from blocking."""
    with output:
        for line in output:
            lines.put(line)
    lines.put("")
