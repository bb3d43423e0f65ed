"""Medians, percentiles, and tables in Markdown."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Json = Any


@dataclass(frozen=True, slots=True)
class Target:
    """A measured figure and its upper limit."""

    what: str
    limit: float
    measured: float
    unit: str = ""

    @property
    def row(self) -> list[str]:
        """The row for the table of targets."""
        shown = f"{self.measured:.2f}" if not self.unit else f"{self.measured:.1f} {self.unit}"
        limit = f"{self.limit:.2f}" if not self.unit else f"{self.limit:g} {self.unit}"
        return [self.what, limit, shown, "yes" if self.measured <= self.limit else "**no**"]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that the given share of all values does not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def p50(values: Sequence[float]) -> float:
    """Return the median."""
    return median(values)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the first column is text, the others are figures."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
