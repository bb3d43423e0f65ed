"""Warm requests: the services' delays are fixed, so the rest is our own time."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from bench.builds import CannotMeasure
from bench.prices import LAMBDA_GB_SECOND, MILLION
from bench.report import Target, p50, percentile, table
from bench.subjects import Container, Subject, container
from bench.tools import SERVER_TOOL
from bench.wire import DYNAMODB, GEMINI, LIVEKIT, RECEIVER
from bench.world import BASELINE_CREATE, BASELINE_GET, World

DYNAMODB_MS: Final = 5.0
LIVEKIT_MS: Final = 30.0
GEMINI_MS: Final = 120.0
RECEIVER_MS: Final = 100.0
"""The time in which a webhook endpoint responds, with the connection."""

BLOCK: Final = 10
SLOW_BLOCKS: Final = 20
FAST_BLOCKS: Final = 40
ENOUGH: Final = 20
"""The smallest number of calls to count, even if the machine's host disturbed nearly all."""

WHOLE_PROCESSOR_MB: Final = 1_769
"""The memory with which a function has one whole processor; less gives a share (Lambda Developer Guide)."""

MEMORY_MB: Final = (256, 512, 1024, WHOLE_PROCESSOR_MB)
MAX_SECONDS: Final = 150
"""The time for each of the two speeds after which no round begins; a busy machine completes fewer."""

Json = Any


DELAYS: Final = {DYNAMODB: DYNAMODB_MS, LIVEKIT: LIVEKIT_MS, GEMINI: GEMINI_MS, RECEIVER: RECEIVER_MS}


@dataclass(frozen=True, slots=True)
class Path:
    """A request's critical path: the sequential round trips that it has to wait for."""

    name: str
    trips: tuple[str, ...]
    """The service of each round trip; of concurrent ones, the slower."""

    words: str

    def milliseconds(self, trip: Mapping[str, float]) -> float:
        """Return the duration of the path, given the duration of a round trip to each service."""
        return sum(trip[service] for service in self.trips)


PATHS: Final = {
    "CreateSession": Path("create", (DYNAMODB, GEMINI), "agent ∥ count, Gemini ∥ (LiveKit, put)"),
    "GetSession": Path("get, with transcript", 2 * (DYNAMODB,), "session ∥ key, transcript"),
    "CompleteSession": Path(
        "complete",
        (*5 * (DYNAMODB,), GEMINI),
        "session ∥ count, put, update, agent, Gemini ∥ LiveKit ∥ message, update ∥ message",
    ),
    "ReceiveLivekitWebhook": Path("webhook, a first join", 3 * (DYNAMODB,), "update, update, message"),
    "DispatchEvents": Path(
        "dispatch to one endpoint", 5 * (DYNAMODB,), "session, endpoints, put of the delivery, message, update"
    ),
    "DeliverEvent": Path(
        "deliver", (*5 * (DYNAMODB,), RECEIVER), "delivery, endpoint, update, session, the endpoint's response, update"
    ),
    SERVER_TOOL: Path(
        "call of a server tool",
        (*4 * (DYNAMODB,), RECEIVER),
        "session, agent ∥ earlier record, begin ∥ endpoint, the endpoint's answer, end ∥ log",
    ),
    BASELINE_CREATE: Path(
        "baseline create", (DYNAMODB, DYNAMODB, LIVEKIT, GEMINI, DYNAMODB), "key, agent, LiveKit, Gemini, put"
    ),
    BASELINE_GET: Path("baseline get", 2 * (DYNAMODB,), "key, session"),
}


def measure(world: World) -> Json:
    """Call all in turn, a block each, with fixed delays and then without; bare round trips are included.

    Returns for each the wall-clock and CPU milliseconds, and the stolen time, of every call.
    """
    requests = _requests(world)
    took: Json = {speed: {name: [] for name in (*PATHS, *requests)} for speed in ("slow", "fast")}
    with ExitStack() as running:

        def started(subject: Subject) -> Container:
            return running.enter_context(container(world.builds, subject))

        baselines = {BASELINE_CREATE, BASELINE_GET}
        containers = {
            name: started(world.baseline(compiled=True) if name in baselines else world.subject(name.partition(",")[0]))
            for name in PATHS
        }
        containers |= dict.fromkeys(requests, started(world.trip()))
        for speed, blocks in (("slow", SLOW_BLOCKS), ("fast", FAST_BLOCKS)):
            delays = tuple(DELAYS.values()) if speed == "slow" else ()
            ends = time.monotonic() + MAX_SECONDS
            for block in range(blocks + 1):
                if block > 1 and time.monotonic() > ends:
                    break
                for name, running_container in containers.items():
                    world.replay(_REQUESTS_OF.get(name, name), *delays)
                    calls = running_container.call(requests.get(name) or world.event(name), BLOCK)
                    if world.tape.missed:
                        raise CannotMeasure(f"{name} sent requests that were not recorded: {world.tape.missed}")
                    if block:  # the first block opens connections and fills caches
                        took[speed][name] += zip(calls.wall, calls.processor, calls.stolen, strict=True)
    return took


_REQUESTS_OF: Final = {
    DYNAMODB: "CreateSession",
    LIVEKIT: "CreateSession",
    GEMINI: "CreateSession",
    RECEIVER: "DeliverEvent",
}
"""The function that also sends the bare request to a service."""


def _requests(world: World) -> dict[str, Json]:
    """Return one request to each service, for the handler that only sends a request."""
    world.replay("CreateSession")
    of_create = [signature for chapter, signature in world.tape.responses if chapter == "CreateSession"]
    _, table_name, _, key, *_ = json.loads(next(each for each in of_create if '"GetItem"' in each))
    row = json.dumps({"TableName": table_name, "Key": key})
    token, room = (next(each for each in of_create if word in each) for word in ("auth_tokens", "CreateRoom"))
    requests = {
        DYNAMODB: (f"{world.dynamodb_url}/", {"X-Amz-Target": "DynamoDB_20120810.GetItem"}, row),
        LIVEKIT: (world.livekit.url.replace("ws:", "http:") + room, {}, ""),
        GEMINI: (world.gemini_url + token, {}, ""),
        RECEIVER: (world.receiver_url, {}, ""),
    }
    return {
        service: {"url": url, "headers": headers, "body": body} for service, (url, headers, body) in requests.items()
    }


def _undisturbed(calls: Sequence[tuple[float, float, int]]) -> Sequence[tuple[float, float, int]]:
    """Return the calls that the machine's host did not disturb; if too few, those that it disturbed least."""
    undisturbed = [call for call in calls if not call[2]]
    return undisturbed if len(undisturbed) >= ENOUGH else sorted(calls, key=lambda call: call[2])[:ENOUGH]


def _wall_times(took: Json, speed: str, name: str) -> list[float]:
    return [wall for wall, _, _ in _undisturbed(took[speed][name])]


def _trips(took: Json) -> dict[str, float]:
    """Return the duration of one bare request to each service at the fixed delays."""
    return {service: p50(_wall_times(took, "slow", service)) for service in DELAYS}


def targets(took: Json) -> list[Target]:
    """Return the targets: our own time in create and in tool calls, and ratios to the baseline without delays."""

    def fast(name: str) -> float:
        return p50(_wall_times(took, "fast", name))

    allowed = max(GEMINI_MS, LIVEKIT_MS) + DYNAMODB_MS
    own = p50(_wall_times(took, "slow", SERVER_TOOL)) - PATHS[SERVER_TOOL].milliseconds(_trips(took))
    what = f"warm create, p50, beyond the delays of the slower provider and of 1 DynamoDB trip ({allowed:.0f} ms)"
    return [
        Target(what, 8, p50(_wall_times(took, "slow", "CreateSession")) - allowed, "ms"),
        Target("warm call of a server tool, p50, beyond its round trips", 25, own, "ms"),
        Target("warm create / baseline, no delays, p50", 0.6, fast("CreateSession") / fast(BASELINE_CREATE)),
        Target("warm get / baseline, no delays, p50", 0.9, fast("GetSession") / fast(BASELINE_GET)),
    ]


def tables(took: Json) -> dict[str, str]:
    """Return one table for each speed."""
    slow = []
    fast = []
    trips = _trips(took)
    for name, path in PATHS.items():
        times = _wall_times(took, "slow", name)
        slow.append(
            [
                path.name,
                path.words,
                f"{path.milliseconds(DELAYS):.0f}",
                f"{path.milliseconds(trips):.1f}",
                f"{p50(times):.1f}",
                f"{percentile(times, 0.99):.1f}",
                f"{p50(times) - path.milliseconds(trips):.1f}",
                str(len(times)),
            ]
        )
        times = _wall_times(took, "fast", name)
        fast.append([path.name, f"{p50(times):.1f}", f"{percentile(times, 0.99):.1f}", str(len(times))])
    return {
        "warm_slow": table(
            ["request", "path", "its delays, ms", "its trips, ms", "p50", "p99", "p50 beyond the trips", "calls"], slow
        ),
        "warm_fast": table(["request", "ms, p50", "p99", "calls"], fast),
        "memory": _by_memory(took),
        "slow_calls": str(len(took["slow"]["CreateSession"])),
        "fast_calls": str(len(took["fast"]["CreateSession"])),
        "enough": str(ENOUGH),
        "trips": ", ".join(f"{milliseconds:.1f} to {service}" for service, milliseconds in trips.items()),
    }


def _by_memory(took: Json) -> str:
    """Return estimated durations and costs by memory: the waiting, and the work at a share of a processor."""
    rows = []
    for name, path in PATHS.items():
        if name in (BASELINE_CREATE, BASELINE_GET):
            continue
        work = p50([processor for _, processor, _ in _undisturbed(took["slow"][name])])
        waiting = p50(_wall_times(took, "slow", name)) - work
        row = [path.name, f"{work:.1f}"]
        for memory in MEMORY_MB:
            milliseconds = waiting + work * WHOLE_PROCESSOR_MB / memory
            dollars = milliseconds / 1000 * memory / 1024 * LAMBDA_GB_SECOND * MILLION
            row += [f"{milliseconds:.0f}", f"{dollars:.2f}"]
        rows.append(row)
    head = ["request", "work, ms"]
    for memory in MEMORY_MB:
        head += [f"{memory} MB: ms", "$"]
    return table(head, rows)
