"""One container without the emulator: import a handler as Lambda does, and time each call inside the process.

    python3.13 -S -s -B container.py app.handler        in the function's folder, with the layer on PYTHONPATH

Reads one line of JSON per command, {"event": ..., "times": n}. Answers each with the wall-clock and CPU milliseconds of
every call, the time stolen by the machine's host, the bytes logged, and the last response. Imports the standard library
only: any other import would make the same import in the handler free.
"""

import importlib
import json
import os
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any


def main() -> None:
    """Serve standard input until it ends; redirect the function's output to a file and count its bytes."""
    out = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 1)
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 (an import of pathlib counts as the handler's)
        module, _, name = sys.argv[1].rpartition(".")
        handler = getattr(importlib.import_module(module), name)
        for line in sys.stdin:
            out.write(json.dumps(_calls(handler, json.loads(line))) + "\n")
            out.flush()


def _calls(handler: Any, request: dict[str, Any]) -> dict[str, Any]:
    wall, processor, stolen, logged = [], [], [], _logged()
    answer = None
    for _ in range(request["times"]):
        context = SimpleNamespace(
            aws_request_id="00000000-0000-4000-8000-000000000000",
            function_name=os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "function"),
            get_remaining_time_in_millis=lambda: 30_000,
        )
        event = json.loads(json.dumps(request["event"]))
        stolen_before, started, used = _stolen_ticks(), time.perf_counter(), time.process_time()
        answer = handler(event, context)
        wall.append((time.perf_counter() - started) * 1000)
        processor.append((time.process_time() - used) * 1000)
        stolen.append(_stolen_ticks() - stolen_before)
    return {
        "wall": wall,
        "processor": processor,
        "stolen": stolen,
        "logged": _logged() - logged,
        "answer": answer,
    }


def _stolen_ticks() -> int:
    """Return the time that a virtual machine's host ran other guests, in units of 10 ms: "steal" in proc(5)."""
    try:
        with open("/proc/stat", encoding="ascii") as stat:  # noqa: PTH123
            return int(stat.readline().split()[8])
    except FileNotFoundError:
        return 0


def _logged() -> int:
    sys.stdout.flush()
    return os.fstat(1).st_size


main()
