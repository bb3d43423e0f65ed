"""The setup of the project: the Makefile and the lock files."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.template.conftest import ROOT, environment

LOCKS = (
    "layers/voice/requirements.txt",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "requirements").glob("*.txt")),
)


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-f", ROOT / "Makefile", *arguments],  # noqa: S607 (as a user types it)
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The part of a fresh clone that setup reads."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


@pytest.mark.parametrize("target", ["run", "test", "check", "build"])
def test_without_python_every_target_prints_one_sentence(clone: Path, target: str) -> None:
    made = make(clone, target, "PYTHON=no-such-python")

    message, *of_make = made.stderr.splitlines()
    assert made.returncode != 0
    assert message.startswith("Pi Voice needs Python 3.11 or later, and no-such-python is older or missing:")
    assert [line for line in of_make if not line.startswith("make: ")] == []


def test_a_too_old_python_is_reported_in_one_sentence(clone: Path) -> None:
    old = clone / "python3.10"
    old.write_text('#!/bin/sh\necho "import sys; sys.version_info = (3, 10)\n$2" | exec python3 -\n')
    old.chmod(0o755)

    made = make(clone, "run", f"PYTHON={old}")

    assert made.returncode != 0
    assert made.stderr.startswith(f"Pi Voice needs Python 3.11 or later, and {old} is older or missing:")


def test_an_environment_is_rebuilt_only_when_its_lock_changes(clone: Path) -> None:
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").symlink_to(sys.executable)
    shutil.copy(clone / "requirements/dev.txt", clone / ".venv/installed")

    untouched = make(clone, ".venv", "PYTHON=no-such-python")
    (clone / "requirements/dev.txt").write_text("# something else\n")
    renewed = make(clone, ".venv", "PYTHON=no-such-python")

    assert untouched.returncode == 0
    assert renewed.returncode != 0


def test_an_environment_is_rebuilt_when_another_python_is_named(clone: Path) -> None:
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/lib/python3.11").mkdir(parents=True)
    (clone / ".venv/bin/python").symlink_to(sys.executable)
    shutil.copy(clone / "requirements/dev.txt", clone / ".venv/installed")

    same = make(clone, ".venv", "PYTHON=/nowhere/python3.11")
    other = make(clone, ".venv", "PYTHON=/nowhere/python3.13")

    assert same.returncode == 0
    assert other.returncode != 0


def test_make_without_a_target_lists_every_target_with_its_purpose(clone: Path) -> None:
    (clone / "Makefile").symlink_to(ROOT / "Makefile")
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared

    listed = re.findall(r"^  make ([a-z-]+) +\S", make(clone).stdout, re.MULTILINE)

    assert sorted(listed) == sorted(declared[1].split())


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_and_hashes_everything_and_names_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")

    requirements = re.split(r"^(?=[a-z0-9])", re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    for requirement in filter(None, requirements):
        assert re.match(r"[a-z0-9-]+==\S+ .*\\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+$", requirement), requirement
    assert "://" not in text
    assert not re.search(r"^ *-", re.sub(r"^ +--hash=sha256:", "", text, flags=re.MULTILINE), re.MULTILINE)


def test_tests_run_with_the_deployed_versions() -> None:
    layer, development = pins("layers/voice/requirements.txt"), pins("requirements/dev.txt")

    assert layer.items() <= development.items()
