"""Cold starts: every built function under the Runtime Interface Emulator, beside the baseline and the floor."""

import random
import time
from typing import Any, Final

from bench.builds import CannotMeasure
from bench.report import Target, p50, table
from bench.subjects import Subject, cold
from bench.tools import SERVER_TOOL
from bench.world import BASELINE_CREATE, BASELINE_GET, World

ROUNDS: Final = 15
WHOLE_ROUNDS: Final = 3
"""In every third round all functions start; in the others those of the targets, whose ratios need more starts."""
MAX_SECONDS: Final = 300
"""The time after which no new round begins; a busy machine completes fewer."""

STOCK_CREATE: Final = "baseline create, as `sam build` ships it"
STOCK_GET: Final = "baseline get, as `sam build` ships it"
COMPILED_CREATE: Final = "baseline create, with bytecode"
COMPILED_GET: Final = "baseline get, with bytecode"
FLOOR: Final = "the floor: a handler that does nothing"

_TARGETS: Final = ("CreateSession", "GetSession", "ReceiveLivekitWebhook")

Json = Any


def measure(world: World) -> Json:
    """Start functions in rounds, in random order, so that a slow moment affects all alike."""
    contestants: list[tuple[str, str, Subject]] = [
        (STOCK_CREATE, BASELINE_CREATE, world.baseline(compiled=False)),
        (STOCK_GET, BASELINE_GET, world.baseline(compiled=False)),
        (COMPILED_CREATE, BASELINE_CREATE, world.baseline(compiled=True)),
        (COMPILED_GET, BASELINE_GET, world.baseline(compiled=True)),
        (FLOOR, FLOOR, world.floor()),
        (SERVER_TOOL, SERVER_TOOL, world.subject("CallTool")),
        *((name, name, world.subject(name)) for name in world.functions),
    ]
    compared = {STOCK_CREATE, STOCK_GET, COMPILED_CREATE, COMPILED_GET, *_TARGETS}
    order, starts = random.Random(1), {name: _nothing() for name, _, _ in contestants}  # noqa: S311 (no secret)
    ends = time.monotonic() + MAX_SECONDS
    for number in range(ROUNDS + 1):
        if number > WHOLE_ROUNDS and time.monotonic() > ends:
            break
        order.shuffle(contestants)
        for name, chapter, subject in contestants:
            if number % WHOLE_ROUNDS and name not in compared:
                continue
            world.replay(chapter)
            start = cold(world.builds, subject, {} if chapter == FLOOR else world.event(chapter))
            if world.tape.missed:
                raise CannotMeasure(f"{name} sent requests that were not recorded: {world.tape.missed}")
            if number:  # the first round reads the files into memory
                starts[name]["ms"].append(start.milliseconds)
                starts[name]["mb"].append(start.megabytes)
    return starts


def _nothing() -> dict[str, list[float]]:
    return {"ms": [], "mb": []}


def targets(starts: Json) -> list[Target]:
    """Return ratios of the smallest values of this run: a disturbance only makes a start longer."""

    def ratio(name: str, baseline: str) -> float:
        return float(min(starts[name]["ms"]) / min(starts[baseline]["ms"]))

    return [
        Target("cold create session / stock baseline", 0.20, ratio("CreateSession", STOCK_CREATE)),
        Target("cold create session / baseline, both with bytecode", 0.50, ratio("CreateSession", COMPILED_CREATE)),
        Target("cold get session / stock baseline", 0.14, ratio("GetSession", STOCK_GET)),
        Target("cold webhook / stock baseline", 0.14, ratio("ReceiveLivekitWebhook", STOCK_GET)),
    ]


def tables(starts: Json) -> dict[str, str]:
    """Return the table, slowest first."""
    rows = []
    for name, start in sorted(starts.items(), key=lambda each: -min(each[1]["ms"])):
        of_others = name.startswith("baseline") or name == FLOOR
        create = name == "CreateSession"
        stock, compiled = (STOCK_CREATE, COMPILED_CREATE) if create else (STOCK_GET, COMPILED_GET)
        rows.append(
            [
                name,
                f"{min(start['ms']):,.0f}",
                f"{p50(start['ms']):,.0f}",
                f"{max(start['ms']):,.0f}",
                f"{p50(start['mb']):.0f}",
                "" if of_others else f"{min(start['ms']) / min(starts[stock]['ms']):.2f}",
                "" if of_others else f"{min(start['ms']) / min(starts[compiled]['ms']):.2f}",
            ]
        )
    head = ["function", "ms, smallest", "median", "largest", "MB, peak", "of stock", "of bytecode"]
    return {"cold": table(head, rows), "rounds": str(len(starts["CreateSession"]["ms"]))}
