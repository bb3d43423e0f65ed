"""The command blocks of the documentation."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.template import ROOT

DOCUMENTS: Final = (
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/adr/*.md")),
)


_FENCE: Final = re.compile(r"^\s*(`{3,}|~{3,})\s*(.*?)\s*$")


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


BLOCKS: Final = [block for document in DOCUMENTS for block in blocks_of(document)]


def settled(text: str) -> str:
    """Replace ids, tokens, ports and times, which differ between runs."""
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>", text)
    text = re.sub(r"\beyJ[\w.-]+", "<jwt>", text)
    text = re.sub(r"\bauth_tokens/\w+", "<token>", text)
    text = re.sub(r"\bwhsec_[\w+/=.]+", "<secret>", text)
    text = re.sub(r"\b127\.0\.0\.1:\d+", "<host>", text)
    return re.sub(r"\b1\d{9}\b", "<time>", text).strip()
