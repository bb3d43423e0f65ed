"""Fixtures for the tests of the template: the template as data, and the output of `make build`."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.template import FUNCTIONS, ROOT, RUNTIME, TEMPLATE, Node, environment

ARCHITECTURES = ("arm64", "x86_64")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A CPython with the minor version of Lambda's runtime."""

    path: Path

    def run(
        self, *arguments: str | Path, stdin: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it without the installed packages of this machine, and without writing bytecode."""
        command = [self.path, "-I", "-S", "-B", *arguments]
        return subprocess.run(command, input=stdin, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def template() -> Node:
    """The template, with its short forms expanded."""
    return TEMPLATE


@pytest.fixture(scope="session")
def resources(template: Node) -> Node:
    """The template's resources by logical id."""
    return template["Resources"]


@pytest.fixture(scope="session")
def functions() -> Mapping[str, Node]:
    """The properties of the template's functions by logical id."""
    return FUNCTIONS


@pytest.fixture(scope="session")
def interpreter() -> Interpreter:
    """The interpreter that `make build` finds."""
    found = subprocess.run(
        [ROOT / "deploy/find_python.sh", RUNTIME], capture_output=True, text=True, check=False, env=environment()
    )
    if found.returncode:
        pytest.skip(found.stderr.strip())
    return Interpreter(Path(found.stdout.strip()) / RUNTIME)


@pytest.fixture(scope="session")
def builds(interpreter: Interpreter, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The outputs of `make build` by architecture, built concurrently."""
    del interpreter  # requested because the build needs an interpreter
    folders = {name: tmp_path_factory.mktemp(name) / "build" for name in ARCHITECTURES}
    makes = {
        name: subprocess.Popen(
            ["make", "build", f"ARCH={name}", f"BUILD_DIR={folder}"],  # noqa: S607 (as a user types it)
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, folder in folders.items()
    }
    for name, make in makes.items():
        output, _ = make.communicate()
        assert make.returncode == 0, f"make build ARCH={name}:\n{output}"
    return folders
