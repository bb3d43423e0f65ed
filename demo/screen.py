"""The demo's output: each step, the turns and tool calls, the timer, and the results beside the schema.

A terminal shows the call live. Other outputs get each line once, when it is complete.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from demo.clock import CallClock
from demo.results import Row

Turn = Mapping[str, Any]

_WIDTH_OF_A_FILE: Final = 120
_WIDEST: Final = 120
_COLORS: Final = {"agent": "cyan", "user": "green"}
_BAR_WIDTH: Final = 30
_PER_SECOND: Final = 10


class Screen:
    """A terminal, or a file."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=False)
        if not self._console.is_terminal:
            self._console.width = _WIDTH_OF_A_FILE
        self._console.width = min(self._console.width, _WIDEST)
        self._names: Mapping[str, str] = {}
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # for a terminal whose encoding has no ✓

    def title(self, title: str, *lines: str) -> None:
        """Print the title and the lines below it."""
        self._console.print(Rule(f"[bold]{escape(title)}[/]", align="left"))
        for line in filter(None, lines):
            self._console.print(escape(line), style="dim", soft_wrap=not self._console.is_terminal)
        self._console.print()

    def step(self, what: str, *details: str) -> None:
        """Print a finished step and its details."""
        self._console.print(f"[green]✓[/] {escape(what)}")
        for detail in details:
            self._console.print(Text(f"    {detail}"), style="dim", soft_wrap=True)

    def note(self, what: str) -> None:
        """Print a note."""
        self._console.print(f"[yellow]•[/] {escape(what)}")

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show a spinner with a text."""
        if self._console.is_terminal:
            with self._console.status(escape(what)):
                yield
        else:
            yield

    @contextmanager
    def call(
        self, unfinished: Callable[[], Sequence[Turn]], clock: CallClock, names: Mapping[str, str], cap: int | None
    ) -> Iterator[None]:
        """Show a call live: unfinished turns and the timer; `names` are those of the two roles."""
        self._names = names
        self._console.print()
        if self._console.is_terminal:
            view = _CallView(self, unfinished, clock, cap)
            with Live(view, console=self._console, refresh_per_second=_PER_SECOND, transient=True):
                yield
        else:
            yield
        self._console.print()

    def turn(self, turn: Turn, *, is_cut: bool) -> None:
        """Print one turn."""
        if self._console.is_terminal:
            self._console.print(self.turn_line(turn, is_cut=is_cut))
        else:
            name = self._names.get(turn["role"], "").ljust(self._widest_name)
            start = Text(f"{_start(turn)}  {name}  ")
            self._console.print(start.append(_said(turn, is_cut=is_cut)), soft_wrap=True)

    def tool_call(self, call: Mapping[str, Any], ended_ms: float, *, is_on_server: bool) -> None:
        """Print a function that the agent has called, its arguments and the answer."""
        arguments, answer = (json.dumps(call[what], ensure_ascii=False) for what in ("arguments", "response"))
        status = "" if call["status"] == "succeeded" else f" ({call['status']})"
        status += f" from the server in {call['milliseconds']} ms" if is_on_server else ""
        line = Text(f"{in_minutes(ended_ms / 1000)}  {self._names.get('agent', '').ljust(self._widest_name)}  ")
        line.append(f"{call['name']} {arguments} → {answer}{status}", style="yellow")
        self._console.print(line, soft_wrap=True)

    def turn_line(self, turn: Turn, style: str = "", *, is_cut: bool = False) -> RenderableType:
        """Lay out one turn: time, speaker, text."""
        line = Table.grid(padding=(0, 2), pad_edge=False)
        line.add_column(width=5, style="dim")
        line.add_column(width=self._widest_name, style=_COLORS[turn["role"]])
        line.add_column(style=style)
        line.add_row(_start(turn), self._names.get(turn["role"]), _said(turn, is_cut=is_cut))
        return line

    @property
    def _widest_name(self) -> int:
        return max(map(len, self._names.values()), default=0)

    def results(self, rows: Sequence[Row], footer: str) -> None:
        """Show the results beside the schema."""
        table = Table()
        table.add_column("field", style="bold")
        table.add_column("what the agent asked for", style="dim")
        table.add_column("result", style="green")
        for row in rows:
            table.add_row(*map(escape, row))
        self._console.print("\n[bold]Results[/]")
        self._console.print(table)
        self._console.print(footer, style="dim")


class _CallView:
    """The unfinished turns and the timer, redrawn ten times a second."""

    def __init__(
        self, screen: Screen, unfinished: Callable[[], Sequence[Turn]], clock: CallClock, cap: int | None
    ) -> None:
        self._screen = screen
        self._unfinished = unfinished
        self._clock = clock
        self._cap = cap

    def __rich__(self) -> RenderableType:
        now = self._clock.now()
        timer = Table.grid(padding=(0, 2))
        timer.add_row(
            "[red]●[/]",
            f"[bold]{in_minutes(now)}[/] of {in_minutes(self._cap)}" if self._cap else f"[bold]{in_minutes(now)}[/]",
            ProgressBar(total=self._cap, completed=now, width=_BAR_WIDTH) if self._cap else "",
        )
        return Group(*(self._screen.turn_line(turn, "italic") for turn in self._unfinished()), "", timer)


def _start(turn: Turn) -> str:
    return in_minutes(turn["start_ms"] / 1000)


def _said(turn: Turn, *, is_cut: bool) -> Text:
    text = Text(turn["text"])
    return text.append(" ... (interrupted)", style="dim") if is_cut else text


def in_minutes(seconds: float) -> str:
    """Format seconds as minutes and seconds: 01:05."""
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"
