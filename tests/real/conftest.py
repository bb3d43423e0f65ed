"""What the tests on real parts share: a build for this machine, and a summary of the parts that took part."""

import platform
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.real import parts
from tests.template.conftest import RUNTIME, environment

ARCHITECTURE: Final = "arm64" if platform.machine() in {"aarch64", "arm64"} else "x86_64"
"""Lambda's name for this machine's processor."""


@pytest.fixture(scope="session")
def python() -> Path:
    """The CPython of Lambda's minor version that builds for it."""
    found = subprocess.run(
        [parts.ROOT / "deploy/find_python.sh", RUNTIME], capture_output=True, text=True, check=False, env=environment()
    )
    if found.returncode:
        parts.absent(f"CPython {RUNTIME.removeprefix('python')}", found.stderr.strip())
    return Path(found.stdout.strip()) / RUNTIME


@pytest.fixture(scope="session")
def build(python: Path) -> Path:
    """What `make build` makes for this machine: a folder with template.yaml, the functions and the layer."""
    del python  # asked for because without one there is nothing to build with
    folder = parts.FOLDER / "build"
    made = subprocess.run(
        ["make", "build", f"ARCH={ARCHITECTURE}", f"BUILD_DIR={folder}"],  # noqa: S607 (what a person types)
        cwd=parts.ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if parts.versions:
        terminalreporter.section("real parts")
        for name, version in parts.versions.items():
            terminalreporter.line(f"{name:24} {version}")
