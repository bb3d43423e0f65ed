"""Start the probe of a function, and read what it measured."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.patience import LONG
from tests.support.template import FUNCTIONS, ROOT, TEMPLATE, snake_case

Event = dict[str, Any]
MEGABYTE: Final = 2**20


@dataclass(frozen=True, slots=True)
class Case:
    """An event to measure, after a small one that warms the function up."""

    name: str
    first: Event
    event: Event


@dataclass(frozen=True, slots=True)
class Measured:
    """How a function answered an event, and what that took."""

    name: str
    status: int
    answer_bytes: int
    peak_bytes: int
    growth_bytes: int
    """By how much the event raised the peak of the memory."""
    cpu_seconds: float


def memory_bytes(function: str) -> int:
    """Return the memory of a function, by the template."""
    default = TEMPLATE["Globals"]["Function"]["MemorySize"]
    return int(FUNCTIONS[function].get("MemorySize", default)) * MEGABYTE


def measure(function: str, cases: Iterable[Case]) -> list[Measured]:
    """Measure each case in a process of its own."""
    sent = [{"name": case.name, "first": case.first, "event": case.event} for case in cases]
    finished = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "probe.py"), str(ROOT / "functions" / snake_case(function))],
        input=json.dumps(sent),
        capture_output=True,
        text=True,
        check=True,
        timeout=10 * LONG,
        env={**os.environ, "PYTHONPATH": str(ROOT / "layers" / "voice"), "POWERTOOLS_LOG_LEVEL": "CRITICAL"},
    )
    measured = [Measured(**json.loads(line)) for line in finished.stdout.splitlines()]
    assert [each.name for each in measured] == [case["name"] for case in sent], finished.stderr[-3000:]
    return measured
