"""Measure, and write docs/performance.md: `make bench`, or `make bench ARGS="cold warm"` for some of it.

A section's figures are kept in .bench/results, so that the page always shows the last run of each. It is written once
there are figures of all.
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

from bench import cold, growth, load, scale, warm, work
from bench.builds import FOLDER, ROOT, Builds, CannotMeasure, builds
from bench.report import Target, table
from bench.world import World, record_all, running_world

_RESULTS: Final = FOLDER / "results"
_PAGE: Final = ROOT / "docs/performance.md"
_TEMPLATE: Final = ROOT / "bench/pages/performance.md"

Json = Any


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: how it is measured, what it shows, and what is asked of it."""

    measure: Callable[[World], Json]
    tables: Callable[[Json], dict[str, str]]
    targets: Callable[[Json], list[Target]] = lambda _: []


SECTIONS: Final = {
    "cold": Section(cold.measure, cold.tables, cold.targets),
    "warm": Section(warm.measure, warm.tables, warm.targets),
    "work": Section(work.measure, work.tables, work.targets),
    "load": Section(load.measure, load.tables),
}
"""Those that share one world; growth has a world of its own, on another DynamoDB."""

NAMES: Final = (*SECTIONS, "growth", "scale")


def main() -> str | None:
    """Measure what is named, or everything, and write the pages; return what is missing."""
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
    if set(wanted) & {*SECTIONS, "growth"}:
        built = builds()
        _measure_all(built, wanted)
        name = _PAGE.relative_to(ROOT)
        if missing := [each for each in (*SECTIONS, "growth") if not _results_of(each).is_file()]:
            print(f"{name} stays as it is: there are no figures of {', '.join(missing)} yet.")
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
                    _keep(name, load_before, loop_ms, section.measure(world), section.tables)
    if "growth" in wanted:
        print("Measuring: growth ...")
        _keep("growth", load_before, loop_ms, growth.measure(built), growth.tables)


def _keep(
    name: str, load_before: float, loop_ms: float, figures: Json, tables: Callable[[Json], dict[str, str]]
) -> None:
    """Keep a section's figures with their date and how busy and how fast the machine was before, and show them."""
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    kept = {"date": date, "load": load_before, "loop_ms": loop_ms, "figures": figures}
    _results_of(name).write_text(json.dumps(kept), encoding="utf-8")
    print("\n\n".join(tables(figures).values()), "\n")


def _results_of(name: str) -> Path:
    """Return the file with the figures of a section's last run."""
    return _RESULTS / f"{name}.json"


def page() -> str:
    """Write the page from the figures that are there."""
    shown: dict[str, str] = {}
    dates: list[str] = []
    targets: list[Target] = []
    for name, tables, of_section in (
        *((name, section.tables, section.targets) for name, section in SECTIONS.items()),
        ("growth", growth.tables, lambda _: []),
    ):
        kept = json.loads(_results_of(name).read_text(encoding="utf-8"))
        shown |= tables(kept["figures"])
        dates.append(f"{name} on {kept['date']} (load {kept['load']:.1f}, loop {kept['loop_ms']:.0f} ms)")
        targets += of_section(kept["figures"])
    shown["dates"] = ", ".join(dates)
    shown["machine"] = _machine()
    shown["targets"] = table(["target", "at most", "measured", "met"], [target.row for target in targets])
    text = _TEMPLATE.read_text(encoding="utf-8")
    for name, value in shown.items():
        text = text.replace(f"{{{{ {name} }}}}", value)
    return text


def _loop_ms() -> float:
    """Return what a million additions take, by which the same machine on two days can be told apart."""
    return min(timeit.repeat("n += 1", "n = 0", number=1_000_000)) * 1000


def _machine() -> str:
    """Describe the machine as far as figures depend on it."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(": ")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].strip() if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model} ({platform.machine()}), {memory:.0f} GB"


if __name__ == "__main__":
    sys.exit(main())
