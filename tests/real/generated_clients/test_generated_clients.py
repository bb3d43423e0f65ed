"""Whole calls with the clients that three generators write from docs/openapi.json without special flags."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from local.real import parts
from local.running import LocalApi, running_api

pytestmark = pytest.mark.real

HERE: Final = Path(__file__).parent
DOCUMENT: Final = parts.ROOT / "docs" / "openapi.json"
OPERATIONS: Final = {
    operation["operationId"]
    for methods in json.loads(DOCUMENT.read_text())["paths"].values()
    for operation in methods.values()
}
NODE: Final = (20, 19)
"""The oldest Node.js that @hey-api/openapi-ts runs on."""

PYTHON_FOLDER: Final = parts.FOLDER / "python-client"
PYTHON_LOCK: Final = parts.ROOT / "requirements" / "clients.txt"
NODE_FOLDER: Final = parts.FOLDER / "node-clients"
NODE_LOCK: Final = HERE / "package-lock.json"
PROGRAMS: Final = NODE_FOLDER / "node_modules" / ".bin"
COLORS: Final = re.compile(r"\x1b\[\d+m")

NUMBER: Final = re.compile(r"\d")
"""In the name of a class, a sign that its schema has no name, as in Response200, or that two have the same."""

WHOLE_CALL: Final[dict[str, Any]] = {
    "voice": "Zephyr",
    "versions": [1, 2],
    "warnings": [],
    "agent": ["en-US", "Take a reservation", "fast", None],
    "metadata": {"restaurant": "Linden"},
    "agents": [True],
    "session": ["active", None, ""],
    "repeated": True,
    "connections": ["ws", "ws", True, True],
    "setup": ["setup"],
    "saved": 2,
    "stopped": ["active", True],
    "completed": ["completed", "client", "stopped", 3],
    "completed_again": "voice_session_not_active",
    "transcript": [
        {"role": "agent", "text": "What is your name?"},
        {"role": "user", "text": "My name is Ana Torres.", "start_ms": 1200, "end_ms": 2400},
    ],
    "results": [["guest_name"], ["guest_name"], ["guest_name"]],
    "extraction": "succeeded",
    "evidence": ["guest_name"],
    "sessions": [True],
    "next_cursor": None,
    "deleted": [204, 204, "voice_session_not_found"],
}
"""What each program in this folder prints about its call."""


def run(folder: Path, *command: str | Path) -> str:
    """Run a program in a folder and return its output without colors; fail if it fails."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": f"{PYTHON_FOLDER / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    output = COLORS.sub("", ended.stdout)
    assert ended.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def api() -> Iterator[LocalApi]:
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with running_api(clean) as running:
        yield running


# ---- openapi-python-client ----


@pytest.fixture(scope="module")
def client_python() -> Path:
    """The Python of an environment with the generator and the dependencies of its clients."""
    program = PYTHON_FOLDER / "bin" / "python"
    if not parts.is_installed(PYTHON_FOLDER, PYTHON_LOCK):
        pip: parts.Command = [program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        parts.install("openapi-python-client", [sys.executable, "-m", "venv", "--clear", PYTHON_FOLDER])
        parts.install("openapi-python-client", [*pip, "--require-hashes", "--no-deps", "--requirement", PYTHON_LOCK])
        parts.mark_installed(PYTHON_FOLDER, PYTHON_LOCK)
    parts.versions["openapi-python-client"] = run(
        HERE, program, "-c", "from importlib.metadata import version; print(version('openapi-python-client'))"
    ).strip()
    return program


@pytest.fixture(scope="module")
def python_client(client_python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the generated package, and the output of the generator."""
    folder = tmp_path_factory.mktemp("python")
    generator = client_python.with_name("openapi-python-client")
    output = run(folder, generator, "generate", "--path", DOCUMENT, "--output-path", folder / "project")
    shutil.move(folder / "project" / "pi_voice_client", folder)
    shutil.copy(HERE / "whole_call.py", folder)
    return folder, output


def test_openapi_python_client_takes_every_route_without_a_warning(python_client: tuple[Path, str]) -> None:
    folder, output = python_client

    assert output == f"Generating {folder / 'project'}\n"
    functions = {path.stem for path in folder.glob("pi_voice_client/api/*/*.py")} - {"__init__"}
    assert {name.replace("_", "") for name in functions} == {name.lower() for name in OPERATIONS}


def test_openapi_python_client_makes_no_class_with_a_number_in_its_name(python_client: tuple[Path, str]) -> None:
    folder, _ = python_client

    assert [path.stem for path in folder.glob("pi_voice_client/models/*.py") if NUMBER.search(path.stem)] == []


def test_a_whole_call_with_openapi_python_client_passes_mypy(
    client_python: Path, python_client: tuple[Path, str]
) -> None:
    folder, _ = python_client
    mypy = (sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file", "")

    output = run(folder, *mypy, "--python-executable", client_python, "whole_call.py")

    assert output == "Success: no issues found in 1 source file\n"


def test_openapi_python_client_holds_a_whole_call(
    client_python: Path, python_client: tuple[Path, str], api: LocalApi
) -> None:
    folder, _ = python_client

    assert json.loads(run(folder, client_python, "whole_call.py", api.base_url, api.api_key)) == WHOLE_CALL


# ---- openapi-typescript and @hey-api/openapi-ts ----


@pytest.fixture(scope="module")
def node() -> str:
    """The program of Node.js, once the packages of the lock are in NODE_FOLDER."""
    program, npm = parts.program("Node.js", "node"), parts.program("Node.js", "npm")
    version = run(HERE, program, "--version").strip()
    if tuple(map(int, version.lstrip("v").split(".")[:2])) < NODE:
        raise parts.Missing("Node.js", f"{version} is older than {'.'.join(map(str, NODE))}")
    if not parts.is_installed(NODE_FOLDER, NODE_LOCK):
        NODE_FOLDER.mkdir(parents=True, exist_ok=True)
        for name in (".npmrc", "package.json", NODE_LOCK.name):
            shutil.copy(HERE / name, NODE_FOLDER)
        parts.install("Node.js packages", [npm, "ci", "--prefix", NODE_FOLDER])
        parts.mark_installed(NODE_FOLDER, NODE_LOCK)
    parts.versions["Node.js"] = version
    parts.versions.update(json.loads((HERE / "package.json").read_text())["devDependencies"])
    return program


@pytest.fixture(scope="module")
def typescript(node: str) -> tuple[str, str]:
    """Generate both clients in NODE_FOLDER, beside the programs that use them, and return the generators' output."""
    assert node
    for generated in ("client", "built"):
        shutil.rmtree(NODE_FOLDER / generated, ignore_errors=True)
    for name in ("tsconfig.json", "openapi_fetch.ts", "hey_api.ts"):
        shutil.copy(HERE / name, NODE_FOLDER)
    types = run(NODE_FOLDER, PROGRAMS / "openapi-typescript", DOCUMENT, "--output", "schema.d.ts")
    client = run(NODE_FOLDER, PROGRAMS / "openapi-ts", "--input", DOCUMENT, "--output", "client")
    return types, client


@pytest.fixture(scope="module")
def javascript(typescript: tuple[str, str]) -> Path:
    """Compile the programs and both clients in strict mode, and return their folder."""
    assert typescript
    run(NODE_FOLDER, PROGRAMS / "tsc")
    return NODE_FOLDER / "built"


def test_openapi_typescript_takes_every_route_without_a_warning(typescript: tuple[str, str]) -> None:
    output, _ = typescript
    generated = (NODE_FOLDER / "schema.d.ts").read_text()

    assert re.fullmatch(r"✨ openapi-typescript \S+\n🚀 \S+ → schema.d.ts \[\S+\]\n", output), output
    assert [name for name in OPERATIONS if f'operations["{name}"]' not in generated] == []


def test_hey_api_takes_every_route_without_a_warning(typescript: tuple[str, str]) -> None:
    _, output = typescript
    generated = (NODE_FOLDER / "client" / "sdk.gen.ts").read_text()

    lines = [line.removeprefix("[Job 1] ") for line in output.splitlines() if line]
    assert [re.sub(r"v[\d.]+$|/\S+$", "…", line) for line in lines] == [
        "@hey-api/openapi-ts …",
        "⏳ Generating from 1 input:",
        "  [1] …",
        "✅ Done! Your output is in …",
    ]
    assert set(re.findall(r"^export const (\w+) = <", generated, re.MULTILINE)) == OPERATIONS


def test_hey_api_makes_no_type_with_a_number_in_its_name(typescript: tuple[str, str]) -> None:
    assert typescript
    names = re.findall(r"^export type (\w+)", (NODE_FOLDER / "client" / "types.gen.ts").read_text(), re.MULTILINE)

    assert "CreatedSession" in names
    assert [name for name in names if NUMBER.search(name)] == []


@pytest.mark.parametrize("program", ["openapi_fetch.js", "hey_api.js"])
def test_a_typescript_client_holds_a_whole_call(javascript: Path, node: str, api: LocalApi, program: str) -> None:
    output = run(javascript, node, program, api.base_url, api.api_key)

    assert json.loads(output) == WHOLE_CALL
