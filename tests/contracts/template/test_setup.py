"""The setup of the project: the Makefile and the lock files."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.local.processes import until
from tests.support.template import ROOT, environment

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


@pytest.fixture
def small(clone: Path) -> Path:
    """A clone whose environment contains only pip."""
    shutil.copy(clone / "requirements/pip.txt", clone / "requirements/dev.txt")
    return clone


def started(folder: Path) -> subprocess.Popen[str]:
    """Start `make .venv` in a process group of its own."""
    return subprocess.Popen(
        ["make", "-s", "-f", ROOT / "Makefile", ".venv"],  # noqa: S607
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def version_of_pip(folder: Path) -> str:
    """Run a script of the environment; its first line has to name an existing Python."""
    return subprocess.run([folder / ".venv/bin/pip", "--version"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("target", ["run", "test", "check", "build"])
def test_without_python_every_target_prints_one_sentence(clone: Path, target: str) -> None:
    made = make(clone, target, "PYTHON=no-such-python")

    message, *of_make = made.stderr.splitlines()
    assert made.returncode != 0
    assert message.startswith("Pi Voice needs Python 3.11 or later, and there is no no-such-python:")
    assert [line for line in of_make if not line.startswith("make: ")] == []


def test_a_too_old_python_is_reported_in_one_sentence(clone: Path) -> None:
    old = clone / "python3.10"
    run = (
        "import runpy, sys; sys.version_info = (3, 10); del sys.argv[0]; runpy.run_path(sys.argv[0], None, '__main__')"
    )
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{run}" "$@"\n')
    old.chmod(0o755)

    made = make(clone, "run", f"PYTHON={old}")

    assert made.returncode != 0
    assert made.stderr.startswith("Pi Voice needs Python 3.11 or later, and ")


# ---- Environments ----


def environments(small: Path) -> list[str]:
    return sorted(path.name for path in (small / ".environments").glob(".venv-*"))


def test_two_commands_at_once_set_up_one_environment(small: Path) -> None:
    made = [started(small) for _ in range(2)]
    printed = [one.communicate()[1] for one in made]

    assert [one.returncode for one in made] == [0, 0], printed
    assert sorted(text.splitlines()[0].partition(" ")[0] for text in printed) == ["Setting", "Waiting"]
    assert len(environments(small)) == 1
    assert version_of_pip(small)


def test_an_interrupted_installation_is_not_taken_for_a_complete_one(small: Path) -> None:
    interrupted = started(small)
    until(lambda: any(small.glob(".environments/.venv-*/bin/python")))
    os.killpg(interrupted.pid, signal.SIGKILL)
    interrupted.communicate()
    left = (small / ".venv").exists()

    repeated = make(small, ".venv")

    assert not left
    assert repeated.returncode == 0, repeated.stderr
    assert version_of_pip(small)


def test_an_environment_is_replaced_when_its_lock_has_changed_and_not_before(small: Path) -> None:
    assert make(small, ".venv").returncode == 0
    [first] = environments(small)

    unchanged = make(small, ".venv")
    with (small / "requirements/dev.txt").open("a") as lock:
        lock.write("# changed\n")
    changed = make(small, ".venv")

    assert unchanged.stderr == ""
    assert changed.stderr.startswith("Setting up .venv")
    assert len(environments(small)) == 1
    assert environments(small) != [first]


def test_an_environment_of_a_former_version_is_replaced_by_a_link(small: Path) -> None:
    (small / ".venv/bin").mkdir(parents=True)

    made = make(small, ".venv")

    assert made.returncode == 0, made.stderr
    assert version_of_pip(small)


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


def test_no_test_module_imports_another() -> None:
    """What several need is in tests/support, or in a module of their folder without tests."""
    imports = re.compile(r"^\s*(?:from|import) (?:tests\.[\w.]*)?\btest_\w+", re.MULTILINE)

    assert [path.name for path in (ROOT / "tests").rglob("*.py") if imports.search(path.read_text("utf-8"))] == []


def test_each_folder_of_tests_is_a_tier_that_contributing_describes() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("**/*.py"))}

    assert set(re.findall(r"^\*\*`(\w+)`\*\*: ", text, re.MULTILINE)) == folders - {"support"}
