"""Load: the local stack with more and more clients, beside the baseline under uvicorn with as many processes."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from bench.builds import ROOT, CannotMeasure, Command
from bench.report import p50, percentile, table
from bench.subjects import wait_for
from bench.world import BASELINE_CREATE, BASELINE_GET, World
from local.real.parts import free_port
from local.running import running_api
from local.workers import MAX_WORKERS

CLIENTS: Final = (1, 2, 4, 8, 16, 32)
SECONDS: Final = 2
ROUNDS: Final = 3
WARM_UP_SECONDS: Final = 12
START_SECONDS: Final = 60

Json = Any


def measure(world: World) -> Json:
    """Create sessions and get a session on both, alternately; the services answer without delay."""
    found: Json = {}
    with _local_stack(world) as ours, _uvicorn(world) as theirs:
        contestants = {
            "create Pi Voice": (ours, "CreateSession"),
            "create baseline": (theirs, BASELINE_CREATE),
            "get Pi Voice": (ours, "GetSession"),
            "get baseline": (theirs, BASELINE_GET),
        }
        for url, chapter in contestants.values():
            _clients(world, url, chapter, MAX_WORKERS * 2, WARM_UP_SECONDS)  # until all processes run
        for _ in range(ROUNDS):
            for clients in CLIENTS:
                for kind, (url, chapter) in contestants.items():
                    cell = found.setdefault(kind, {}).setdefault(str(clients), [])
                    cell.append(_clients(world, url, chapter, clients, SECONDS))
    return {"python": platform.python_version(), "found": found}


def _clients(world: World, url: str, chapter: str, clients: int, seconds: int) -> Json:
    world.replay(chapter)
    event = world.event(chapter)
    method, path = event["requestContext"]["http"]["method"], event["rawPath"]
    ended = subprocess.run(
        [sys.executable, "-m", "bench.clients", url + path, method, world.api_key, str(clients), str(seconds)],
        cwd=ROOT,
        input=event.get("body", ""),
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(ended.stdout)
    if figures["refused"]:
        raise CannotMeasure(f"Load, {chapter}: {figures['refused']}")
    milliseconds = figures["milliseconds"]
    return {
        "per_second": len(milliseconds) / figures["seconds"],
        "p99": percentile(milliseconds, 0.99),
    }


@contextmanager
def _local_stack(world: World) -> Iterator[str]:
    world.replay("CreateSession")
    world.tape.recording = frozenset(world.tape.delays)  # it creates missing tables first
    environment = {
        **world.around.machine,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'layers/voice'}",
        "AWS_ENDPOINT_URL_DYNAMODB": world.dynamodb_url,
        "AWS_ENDPOINT_URL_SQS": world.around.sqs_url,
        "LIVEKIT_URL": world.livekit.url,
        "LIVEKIT_API_KEY": world.livekit.api_key,
        "LIVEKIT_API_SECRET": world.livekit.api_secret,
        "GEMINI_API_KEY": world.gemini.api_key,
        "GOOGLE_GEMINI_BASE_URL": world.gemini.base_url or "",
    }
    with running_api(environment) as stack:
        yield stack.base_url


@contextmanager
def _uvicorn(world: World) -> Iterator[str]:
    port = free_port()
    baseline = world.baseline(compiled=True)
    python: Command = [world.builds.python, "-S", "-s", "-B", "-m", "uvicorn", "app:app"]
    with subprocess.Popen(
        [*python, "--workers", str(MAX_WORKERS), "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"],
        cwd=baseline.code,
        env={**baseline.variables, "PYTHONPATH": f"{baseline.code}{os.pathsep}{baseline.variables['PYTHONPATH']}"},
    ) as process:
        try:
            wait_for(port, START_SECONDS)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def tables(measured: Json) -> dict[str, str]:
    """Return one table: a row per number of clients, each figure the median of all rounds."""
    found = measured["found"]
    head = ["clients", *(f"{kind}: {figure}" for kind in found for figure in ("requests/s", "p99, ms"))]
    rows = [
        [
            str(clients),
            *(
                f"{p50([sample[figure] for sample in samples[str(clients)]]):.0f}"
                for samples in found.values()
                for figure in ("per_second", "p99")
            ),
        ]
        for clients in CLIENTS
    ]
    return {"load": table(head, rows), "load_python": measured["python"], "load_rounds": str(ROUNDS)}
