"""Invoke one function with each of some events, each in a process of its own, and measure memory and processor time.

    python probe.py <folder of the function>      < [{"name": ..., "first": <event>, "event": <event>}, ...]

The function is imported once. Each process is forked from there, and handles a small first event before the one to
measure.
Prints one JSON object a line.
"""

import json
import os
import resource
import sys
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

MACHINE_GUARD_BYTES = 2**32
"""Address space that a process may reserve, so that a test that fails does not take the machine's memory."""

MACHINE_GUARD_SECONDS = 60

CONTEXT = SimpleNamespace(
    aws_request_id="lambda-request", function_name="probe", get_remaining_time_in_millis=lambda: 30_000
)


def measure(handler: Callable[[Any, Any], Any], case: dict[str, Any]) -> dict[str, Any]:
    """Handle the events of a case; return the outcome of the second one and what it took."""
    handler(case["first"], CONTEXT)
    before = resource.getrusage(resource.RUSAGE_SELF)
    answer = handler(case["event"], CONTEXT)
    after = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "name": case["name"],
        "status": answer["statusCode"],
        "answer_bytes": len(answer["body"] or ""),
        "peak_bytes": after.ru_maxrss * unit,
        "growth_bytes": (after.ru_maxrss - before.ru_maxrss) * unit,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def main() -> None:
    """Measure each case in a fork."""
    cases = json.load(sys.stdin)
    output = os.dup(1)
    os.dup2(2, 1)  # the function logs to stdout
    sys.path.insert(0, sys.argv[1])
    handler = __import__("app").handler
    for case in cases:
        if (child := os.fork()) == 0:
            resource.setrlimit(resource.RLIMIT_AS, (MACHINE_GUARD_BYTES, MACHINE_GUARD_BYTES))
            resource.setrlimit(resource.RLIMIT_CPU, (MACHINE_GUARD_SECONDS, MACHINE_GUARD_SECONDS))
            try:
                os.write(output, json.dumps(measure(handler, case)).encode() + b"\n")
            except BaseException:  # noqa: BLE001 (a fork must not go on with the loop)
                traceback.print_exc()
            os._exit(0)
        os.waitpid(child, 0)


main()
