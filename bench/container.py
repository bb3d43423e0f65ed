"""One container without the emulator: imports a handler as Lambda does, and times each call inside the process.

    python3.13 -S -s -B container.py app.handler        in the function's folder, with the layer on PYTHONPATH

Reads one line of JSON per order, {"event": ..., "times": n}, and answers each with the milliseconds of every call, the
processor's milliseconds of the same calls, how much of either the machine's host took for itself meanwhile, the bytes
that were logged, and the last answer. Uses the standard library alone, because whatever it imported would be there for
the handler already.
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
    """Serve standard input until it ends; what the function prints goes to a file, and is counted."""
    out = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 1)
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 (pathlib is for the handler to pay for)
        module, _, name = sys.argv[1].rpartition(".")
        handler = getattr(importlib.import_module(module), name)
        for line in sys.stdin:
            out.write(json.dumps(_calls(handler, json.loads(line))) + "\n")
            out.flush()


def _calls(handler: Any, order: dict[str, Any]) -> dict[str, Any]:
    wall, processor, stolen, logged = [], [], [], _logged()
    answer = None
    for _ in range(order["times"]):
        context = SimpleNamespace(
            aws_request_id="00000000-0000-4000-8000-000000000000",
            function_name=os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "function"),
            get_remaining_time_in_millis=lambda: 30_000,
        )
        event = json.loads(json.dumps(order["event"]))
        taken, started, used = _taken(), time.perf_counter(), time.process_time()
        answer = handler(event, context)
        wall.append((time.perf_counter() - started) * 1000)
        processor.append((time.process_time() - used) * 1000)
        stolen.append(_taken() - taken)
    return {
        "wall": wall,
        "processor": processor,
        "stolen": stolen,
        "logged": _logged() - logged,
        "answer": answer,
    }


def _taken() -> int:
    """Return for how long a virtual machine's host has run others on its processors, in 10 ms: proc(5), "steal"."""
    try:
        with open("/proc/stat", encoding="ascii") as told:  # noqa: PTH123
            return int(told.readline().split()[8])
    except FileNotFoundError:
        return 0


def _logged() -> int:
    sys.stdout.flush()
    return os.fstat(1).st_size


main()
