"""The report of a run: the crash matrix and what tests have counted.

It is in the terminal and, where DURABILITY_REPORT names a file, in there as Markdown. Tests tell it as properties of
theirs, because they may run in other processes than this one.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

REPORT: Final = "DURABILITY_REPORT"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what became of each crash and what was counted, and write it down."""
    if hasattr(terminalreporter.config, "workerinput"):
        return  # one of several processes that run tests, which tell all to the one that shows it
    told = [each for outcome in ("passed", "failed") for each in _told(terminalreporter, outcome)]
    sections = [(each["counted"], _figures(each["figures"])) for each in told if "figures" in each]
    if crashes := [each for each in told if "crash" in each]:
        sections.insert(0, ("crash matrix", _matrix(crashes)))
    for title, table in sections:
        text = "\n".join(table)
        terminalreporter.section(title)
        terminalreporter.write_line(text)
        if path := os.environ.get(REPORT):
            with Path(path).open("a", encoding="utf-8") as report:
                report.write(f"## {title.capitalize()}\n\n{text}\n")


def _told(reporter: pytest.TerminalReporter, outcome: str) -> Iterator[dict[str, Any]]:
    for report in reporter.getreports(outcome):
        if getattr(report, "when", None) == "call":
            yield dict(report.user_properties)


def _figures(counted: dict[str, object]) -> Iterator[str]:
    yield from ("| What | Figure |", "|---|---|")
    for name, value in counted.items():
        yield f"| {name} | {value} |"


def _matrix(crashes: list[dict[str, Any]]) -> Iterator[str]:
    """Write one line per step: what came of a crash before it, and of one after it."""
    yield from ("| Operation | Step | Killed before | Killed after |", "|---|---|---|---|")
    outcomes: dict[tuple[str, str], dict[str, str]] = {}
    for told in crashes:
        operation, step, when = told["crash"]
        outcomes.setdefault((operation, step), {})[when] = told.get("outcome", "**BROKEN**")
    for (operation, step), by_time in outcomes.items():
        yield f"| {operation} | {step} | {by_time.get('before', '')} | {by_time.get('after', '')} |"
