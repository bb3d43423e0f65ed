"""Fixtures for the tests of the template: the template as data, and the output of `make build`."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RUNTIME = "python3.13"
ARCHITECTURES = ("arm64", "x86_64")

Node = Any
"""A part of the template; its structure is CloudFormation's."""


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms (`!Ref Name`) as the long ones (`{"Ref": "Name"}`)."""

    def long_form(self, tag: str, node: yaml.Node) -> Node:
        """Return one intrinsic function with its arguments."""
        name = tag if tag in ("Ref", "Condition") else f"Fn::{tag}"
        match node:
            case yaml.ScalarNode():
                value: Node = self.construct_scalar(node)
                return {name: value.split(".", 1) if tag == "GetAtt" else value}
            case yaml.SequenceNode():
                return {name: self.construct_sequence(node, deep=True)}
        raise AssertionError(f"!{tag} with a mapping")


_Loader.add_multi_constructor("!", _Loader.long_form)


def environment(**changes: str) -> dict[str, str]:
    """Return the environment for a `make`, without the variables of an outer `make test`."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return {**inherited, "SAM_CLI_TELEMETRY": "0", **changes}


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
    return yaml.load((ROOT / "template.yaml").read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)


@pytest.fixture(scope="session")
def resources(template: Node) -> Node:
    """The template's resources by logical id."""
    return template["Resources"]


@pytest.fixture(scope="session")
def functions(resources: Node) -> Mapping[str, Node]:
    """The properties of the template's functions by logical id."""
    return {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::Serverless::Function"
    }


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
