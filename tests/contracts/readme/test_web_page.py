"""The README's backend and page are the files that `make web-example` runs."""

from pathlib import Path
from typing import Final

import pytest

from tests.support.command_blocks import BLOCKS
from tests.support.template import ROOT

EXAMPLE: Final = ROOT / "examples/web"
MOST_LINES: Final = {"backend.py": 15, "backend.mjs": 15, "page.js": 10}


def code(path: Path) -> list[str]:
    """Return the lines of a file without what says what it is, and without empty lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith(('"""', "// "))]


@pytest.mark.parametrize(("language", "name"), [("python", "backend.py"), ("js", "page.js")])
def test_the_readme_has_the_lines_of_the_example(language: str, name: str) -> None:
    [shown] = [block for block in BLOCKS if block.document == ROOT / "README.md" and block.language == language]

    assert [line for line in shown.text.splitlines() if line] == code(EXAMPLE / name)


@pytest.mark.parametrize("name", MOST_LINES)
def test_the_example_is_as_short_as_it_says(name: str) -> None:
    lines = [line for line in code(EXAMPLE / name) if line.strip("});") != ""]

    assert len(lines) <= MOST_LINES[name]


def test_the_readme_has_fewer_than_200_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200
