"""Warm requests: what the services take is fixed, so what is left is our own share."""

import http.client
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from bench.builds import CannotMeasure
from bench.report import Target, p50, percentile, table
from bench.subjects import Subject, container
from bench.world import BASELINE_CREATE, BASELINE_GET, World

DYNAMODB_MS: Final = 5.0
LIVEKIT_MS: Final = 30.0
GEMINI_MS: Final = 120.0

BLOCK: Final = 10
SLOW_BLOCKS: Final = 20
FAST_BLOCKS: Final = 40
MAX_SECONDS: Final = 150
"""For each of the two; no round of blocks begins after this, and a busy machine gets fewer."""

Json = Any


@dataclass(frozen=True, slots=True)
class Path:
    """A request's critical path: what has to be waited for, one after the other, however fast we are."""

    name: str
    trips: int
    """To DynamoDB; what runs side by side counts once."""

    provider_ms: float
    words: str

    @property
    def milliseconds(self) -> float:
        """What the path takes at the fixed delays."""
        return self.trips * DYNAMODB_MS + self.provider_ms


PATHS: Final = {
    "CreateSession": Path("create", 2, GEMINI_MS, "agent ∥ key, Gemini ∥ LiveKit, put"),
    "GetSession": Path("get, with transcript", 2, 0, "session ∥ key, transcript"),
    "CompleteSession": Path("complete", 5, GEMINI_MS, "session ∥ key, put, update, agent, Gemini ∥ LiveKit, update"),
    "ReceiveLivekitWebhook": Path("webhook, a first join", 2, 0, "update, update"),
    BASELINE_CREATE: Path("baseline create", 3, LIVEKIT_MS + GEMINI_MS, "key, agent, LiveKit, Gemini, put"),
    BASELINE_GET: Path("baseline get", 2, 0, "key, session"),
}


def measure(world: World) -> Json:
    """Call all in turn, a block each, first with the fixed delays and then with none."""
    subjects: dict[str, Subject] = {
        name: world.baseline(compiled=True) if name in {BASELINE_CREATE, BASELINE_GET} else world.subject(name)
        for name in PATHS
    }
    took: Json = {"slow": {name: [] for name in PATHS}, "fast": {name: [] for name in PATHS}}
    with ExitStack() as running:
        containers = {
            name: running.enter_context(container(world.builds, subject)) for name, subject in subjects.items()
        }
        for speed, blocks in (("slow", SLOW_BLOCKS), ("fast", FAST_BLOCKS)):
            delays = (DYNAMODB_MS, LIVEKIT_MS, GEMINI_MS) if speed == "slow" else (0, 0, 0)
            ends = time.monotonic() + MAX_SECONDS
            for block in range(blocks + 1):
                if block > 1 and time.monotonic() > ends:
                    break
                for name, running_container in containers.items():
                    world.replay(name, *delays)
                    calls = running_container.call(world.event(name), BLOCK)
                    if world.tape.missed:
                        raise CannotMeasure(f"{name} asked what was never recorded: {world.tape.missed}")
                    if block:  # the first fills connections and caches
                        took[speed][name] += calls.wall
    took["trip"] = _bare_trip(world)
    return took


def _bare_trip(world: World) -> float:
    """Return what one trip to DynamoDB takes a client that does nothing else, at the fixed delay."""
    world.replay("ListVoices", DYNAMODB_MS)  # which looks up the key and nothing more
    [signature] = [signature for chapter, signature in world.tape.kept if chapter == "ListVoices"]
    operation, table_name, _, key, _ = json.loads(signature)
    body = json.dumps({"TableName": table_name, "Key": key})
    place = urlsplit(world.dynamodb_url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    times = []
    for _ in range(100):
        started = time.perf_counter()
        connection.request("POST", "/", body, {"X-Amz-Target": f"DynamoDB_20120810.{operation}"})
        connection.getresponse().read()
        times.append((time.perf_counter() - started) * 1000)
    connection.close()
    return p50(times)


def targets(took: Json) -> list[Target]:
    """Return our own share of create, and create and get beside the baseline when nothing is waited for."""

    def fast(name: str) -> float:
        return p50(took["fast"][name])

    create = PATHS["CreateSession"]
    beyond = p50(took["slow"]["CreateSession"]) - create.milliseconds
    return [
        Target("warm create beyond the slower provider and 2 DynamoDB trips, p50", 5, beyond, "ms"),
        Target("warm create / baseline, no delays, p50", 0.5, fast("CreateSession") / fast(BASELINE_CREATE)),
        Target("warm get / baseline, no delays, p50", 0.5, fast("GetSession") / fast(BASELINE_GET)),
    ]


def tables(took: Json) -> dict[str, str]:
    """Write one table for each speed."""
    slow = []
    fast = []
    for name, path in PATHS.items():
        times = took["slow"][name]
        slow.append(
            [
                path.name,
                path.words,
                f"{path.milliseconds:.0f}",
                f"{p50(times):.1f}",
                f"{percentile(times, 0.99):.1f}",
                f"{p50(times) - path.milliseconds:.1f}",
            ]
        )
        times = took["fast"][name]
        fast.append([path.name, f"{p50(times):.1f}", f"{percentile(times, 0.99):.1f}"])
    return {
        "warm_slow": table(["request", "path", "ms, path", "p50", "p99", "beyond the path"], slow),
        "warm_fast": table(["request", "ms, p50", "p99"], fast),
        "slow_calls": str(len(took["slow"]["CreateSession"])),
        "fast_calls": str(len(took["fast"]["CreateSession"])),
        "trip": f"{took['trip']:.1f}",
    }
