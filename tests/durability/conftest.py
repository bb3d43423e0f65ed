"""The report of a run: the crash matrix, in the terminal and, where DURABILITY_REPORT names a file, as Markdown."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

REPORT: Final = "DURABILITY_REPORT"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what became of each crash, and write it down."""
    matrix = [line for outcome in ("passed", "failed") for line in _lines(terminalreporter, outcome)]
    if not matrix:
        return
    text = "\n".join(_table(matrix))
    terminalreporter.section("crash matrix")
    terminalreporter.write_line(text)
    if path := os.environ.get(REPORT):
        with Path(path).open("a", encoding="utf-8") as report:
            report.write(f"## Crash matrix\n\n{text}\n")


def _lines(reporter: pytest.TerminalReporter, outcome: str) -> Iterator[tuple[str, str, str, str]]:
    for report in reporter.getreports(outcome):
        told: dict[str, Any] = dict(getattr(report, "user_properties", ()))
        if "crash" in told and report.when == "call":
            operation, step, when = told["crash"]
            yield operation, step, when, told.get("outcome", "**BROKEN**")


def _table(matrix: list[tuple[str, str, str, str]]) -> Iterator[str]:
    """Write one line per step: what came of a crash before it, and of one after it."""
    yield "| Operation | Step | Killed before | Killed after |"
    yield "|---|---|---|---|"
    outcomes: dict[tuple[str, str], dict[str, str]] = {}
    for operation, step, when, outcome in matrix:
        outcomes.setdefault((operation, step), {})[when] = outcome
    for (operation, step), told in outcomes.items():
        yield f"| {operation} | {step} | {told.get('before', '')} | {told.get('after', '')} |"
