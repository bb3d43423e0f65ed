"""The services and a lane of functions for each module, and the report of a run: the crash matrix and the figures.

The terminal shows the report, and DURABILITY_REPORT names a file for it in Markdown. Tests pass their figures as
properties, because they may run in other processes than this one.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.durability.world import Lane, World

REPORT: Final = "DURABILITY_REPORT"
LONGEST: Final = ("test_crashes", "test_interleavings", "test_event_load", "test_load")
"""The modules that take longest, most of them with a single test."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World.running() as world:
        yield world


@pytest.fixture(scope="module")
def lane(world: World) -> Iterator[Lane]:
    with world.lane() as lane:
        yield lane


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest modules first, so that no process of xdist is left alone with one of them."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the outcome of each crash and the figures, and write them to the file."""
    if hasattr(terminalreporter.config, "workerinput"):
        return  # a worker process of xdist; the controller shows the report
    properties = [each for outcome in ("passed", "failed") for each in _properties(terminalreporter, outcome)]
    sections = [(each["counted"], _figures(each["figures"])) for each in properties if "figures" in each]
    if crashes := [each for each in properties if "crash" in each]:
        sections.insert(0, ("crash matrix", _matrix(crashes)))
    for title, table in sections:
        text = "\n".join(table)
        terminalreporter.section(title)
        terminalreporter.write_line(text)
        if path := os.environ.get(REPORT):
            with Path(path).open("a", encoding="utf-8") as report:
                report.write(f"## {title.capitalize()}\n\n{text}\n")


def _properties(reporter: pytest.TerminalReporter, outcome: str) -> Iterator[dict[str, Any]]:
    for report in reporter.getreports(outcome):
        if getattr(report, "when", None) == "call":
            yield dict(report.user_properties)


def _figures(counted: dict[str, object]) -> Iterator[str]:
    yield from ("| What | Figure |", "|---|---|")
    for name, value in counted.items():
        yield f"| {name} | {value} |"


def _matrix(crashes: list[dict[str, Any]]) -> Iterator[str]:
    """Return one row per step: the outcomes of a crash before it and after it."""
    yield from ("| Operation | Step | Killed before | Killed after |", "|---|---|---|---|")
    outcomes: dict[tuple[str, str], dict[str, str]] = {}
    for properties in crashes:
        operation, step, when = properties["crash"]
        outcomes.setdefault((operation, step), {})[when] = properties.get("outcome", "**BROKEN**")
    for (operation, step), by_time in outcomes.items():
        yield f"| {operation} | {step} | {by_time.get('before', '')} | {by_time.get('after', '')} |"
