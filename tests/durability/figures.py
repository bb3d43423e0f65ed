"""The figures of a run: shown in the terminal at its end, and appended to the file that DURABILITY_REPORT names."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class _Summary:
    """A plugin of pytest for the one section that a test has to show."""

    title: str
    table: str

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section(self.title)
        terminalreporter.write_line(self.table)


def tell(config: pytest.Config, title: str, counted: Mapping[str, object]) -> None:
    """Show and write down what a test counted."""
    table = "\n".join(["| What | Figure |", "|---|---|", *(f"| {name} | {value} |" for name, value in counted.items())])
    config.pluginmanager.register(_Summary(title, table), f"figures: {title}")
    if report := os.environ.get("DURABILITY_REPORT"):
        with Path(report).open("a", encoding="utf-8") as file:
            file.write(f"## {title.capitalize()}\n\n{table}\n")
