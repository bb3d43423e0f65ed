"""Measure and write docs/performance.md: `make bench`, or `make bench ARGS="cold warm"` for some sections.

The results of each section's last run are stored in .bench/results. The page is written once every section has results.
"""

import json
import os
import platform
import sys
import timeit
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench import browser, cold, growth, load, scale, schemas, warm, work
from bench.builds import FOLDER, ROOT, Builds, CannotMeasure, builds
from bench.report import Target, table
from bench.world import record_all, running_world

_RESULTS: Final = FOLDER / "results"
_PAGE: Final = ROOT / "docs/performance.md"
_TEMPLATE: Final = ROOT / "bench/pages/performance.md"

Json = Any


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: its measurement, its tables and its targets."""

    measure: Callable[[Any], Json]
    """Takes the shared world, or for sections apart from it the builds."""
    tables: Callable[[Json], dict[str, str]]
    targets: Callable[[Json], list[Target]] = lambda _: []


SECTIONS: Final = {
    "cold": Section(cold.measure, cold.tables, cold.targets),
    "warm": Section(warm.measure, warm.tables, warm.targets),
    "work": Section(work.measure, work.tables, work.targets),
    "schemas": Section(schemas.measure, schemas.tables, schemas.targets),
    "load": Section(load.measure, load.tables),
}
"""The sections that share one world."""

APART: Final = {
    "growth": Section(growth.measure, growth.tables),
    "browser": Section(browser.measure, browser.tables, browser.targets),
}
"""The sections without it: growth runs on DynamoDB Local, and browser in Chromium."""

NAMES: Final = (*SECTIONS, *APART, "scale")


def main() -> str | None:
    """Measure the named sections, or all, and write the pages; return an error message."""
    wanted = sys.argv[1:] or list(NAMES)
    if unknown := [name for name in wanted if name not in NAMES]:
        return f"There is no section {', '.join(unknown)}: there are {', '.join(NAMES)}."
    try:
        _measure(wanted)
    except CannotMeasure as reason:
        return str(reason)
    return None


def _measure(wanted: list[str]) -> None:
    _RESULTS.mkdir(parents=True, exist_ok=True)
    if set(wanted) & {*SECTIONS, *APART}:
        _measure_all(builds(), wanted)
        name = _PAGE.relative_to(ROOT)
        if missing := [each for each in (*SECTIONS, *APART) if not _results_of(each).is_file()]:
            print(f"{name} is unchanged: there are no results yet for {', '.join(missing)}.")
        else:
            _PAGE.write_text(page(), encoding="utf-8")
            print(f"Written to {name}.")
    if "scale" in wanted:
        scale.main()


def _measure_all(built: Builds, wanted: list[str]) -> None:
    load_before, loop_ms = os.getloadavg()[0], _loop_ms()
    with ExitStack() as running:
        if set(wanted) & set(SECTIONS):
            world = running.enter_context(running_world(built))
            print("Recording what every function does ...")
            record_all(world)
            for name, section in SECTIONS.items():
                if name in wanted:
                    print(f"Measuring: {name} ...")
                    _store(name, load_before, loop_ms, section.measure(world), section.tables)
    for name, section in APART.items():
        if name in wanted:
            print(f"Measuring: {name} ...")
            _store(name, load_before, loop_ms, section.measure(built), section.tables)


def _store(
    name: str, load_before: float, loop_ms: float, figures: Json, tables: Callable[[Json], dict[str, str]]
) -> None:
    """Store and print a section's figures, with the date and the machine's load and speed before the run."""
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    stored = {"date": date, "load": load_before, "loop_ms": loop_ms, "figures": figures}
    _results_of(name).write_text(json.dumps(stored), encoding="utf-8")
    print("\n\n".join(tables(figures).values()), "\n")


def _results_of(name: str) -> Path:
    """Return the file with the figures of a section's last run."""
    return _RESULTS / f"{name}.json"


def page() -> str:
    """Return the page with the stored figures."""
    shown: dict[str, str] = {}
    dates: list[str] = []
    targets: list[Target] = []
    for name, section in {**SECTIONS, **APART}.items():
        stored = json.loads(_results_of(name).read_text(encoding="utf-8"))
        shown |= section.tables(stored["figures"])
        dates.append(f"{name} on {stored['date']} (load {stored['load']:.1f}, loop {stored['loop_ms']:.0f} ms)")
        targets += section.targets(stored["figures"])
    shown["dates"] = ", ".join(dates)
    shown["machine"] = _machine()
    shown["targets"] = table(["target", "at most", "measured", "met"], [target.row for target in targets])
    text = _TEMPLATE.read_text(encoding="utf-8")
    for name, value in shown.items():
        text = text.replace(f"{{{{ {name} }}}}", value)
    return text


def _loop_ms() -> float:
    """Return the milliseconds of a million additions: a rented machine's speed changes from day to day."""
    return min(timeit.repeat("n += 1", "n = 0", number=1_000_000)) * 1000


def _machine() -> str:
    """Return the processor, its cores and the memory of this machine."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(": ")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].strip() if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model} ({platform.machine()}), {memory:.0f} GB"


if __name__ == "__main__":
    sys.exit(main())
