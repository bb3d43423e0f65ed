"""Shared by the tests of the documentation: its command blocks, and the local stack that `make run` starts."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import pytest

from tests.support.template import ROOT
from tests.template.conftest import template

__all__ = ["template"]

DOCUMENTS: Final = (
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/adr/*.md")),
)
READY_SECONDS: Final = 300
"""Far longer than a start takes, because other tests may use all cores."""

_FENCE: Final = re.compile(r"^\s*(`{3,}|~{3,})\s*(.*?)\s*$")
_REAL: Final = re.compile(r"(AWS|GEMINI|GOOGLE|LIVEKIT|PI_VOICE|RETENTION|POWERTOOLS)_")
_SHELLS: Final = frozenset({"bash", "console", "shell", "sh", "zsh", "powershell"})


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its first line, its language, the word after the language, and its text."""

    document: Path
    line: int
    language: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def is_command(self) -> bool:
        """Whether a reader may paste it into a shell; a block without a language counts as one."""
        return self.language in _SHELLS or not self.language

    @property
    def commands(self) -> list[str]:
        """The lines without comments, with continued lines joined."""
        joined = re.sub(r"\\\n\s*|(?<=\|)\s*\n\s*", " ", self.text)
        return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def name_of(document: Path) -> str:
    """Return a document's path relative to the repository."""
    return str(document.relative_to(ROOT))


def blocks_of(document: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a document."""
    fence, opened, language, kind = "", 0, "", ""
    lines: list[str] = []
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        found = _FENCE.match(line)
        if not fence and found:
            fence, opened, lines = found[1], number, []
            language, _, kind = found[2].partition(" ")
        elif fence and found and found[1].startswith(fence) and not found[2]:
            yield Block(document, opened, language, kind, "\n".join(lines))
            fence = ""
        elif fence:
            lines.append(line)
    assert not fence, f"{document.name}:{opened} opens a block that is not closed"


@pytest.fixture(scope="session")
def exports() -> Iterator[Mapping[str, str]]:
    """Run `python -m local`, as `make run` does, and return the variables that it prints for export."""
    clean = {name: value for name, value in os.environ.items() if not _REAL.match(name)}
    process = subprocess.Popen(
        [sys.executable, "-m", "local", "--port", "0"],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT / "layers/voice")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        yield _exported(process.stdout)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _exported(output: IO[str]) -> Mapping[str, str]:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_forward, args=(output, lines), daemon=True).start()
    variables: dict[str, str] = {}
    deadline = time.monotonic() + READY_SECONDS
    while not {"BASE", "API_KEY", "WEBHOOK_URL"} <= variables.keys():
        line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        assert line, f"the local stack ended before it was ready; it had printed {variables}"
        if found := re.fullmatch(r'export (\w+)="([^"]*)"\n', line):
            variables[found[1]] = found[2]
    return variables


def _forward(output: IO[str], lines: "queue.SimpleQueue[str]") -> None:
    """Put each line on the queue, then an empty one; reading to the end keeps the process from blocking."""
    with output:
        for line in output:
            lines.put(line)
    lines.put("")
