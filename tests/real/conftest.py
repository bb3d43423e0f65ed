"""Fixtures of the tests on real parts: a build for this machine, LiveKit, and a summary of the versions that ran."""

import os
import platform
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from local.real import parts
from local.running import LocalApi, running_api
from tests.real.livekit_server import Server, running_livekit
from tests.support.template import RUNTIME, environment

ARCHITECTURE: Final = "arm64" if platform.machine() in {"aarch64", "arm64"} else "x86_64"
"""Lambda's name for this machine's processor."""


@pytest.fixture(scope="session")
def python() -> Path:
    """The CPython of Lambda's minor version."""
    found = subprocess.run(
        [parts.ROOT / "deploy/find_python.sh", RUNTIME], capture_output=True, text=True, check=False, env=environment()
    )
    if found.returncode:
        raise parts.Missing(f"CPython {RUNTIME.removeprefix('python')}", found.stderr.strip())
    return Path(found.stdout.strip()) / RUNTIME


@pytest.fixture(scope="session")
def build(python: Path) -> Path:
    """The build for this machine, which `make bench` also uses: a folder with template.yaml, functions and layer."""
    del python  # requested because the build needs an interpreter
    made = subprocess.run(
        ["make", "local-build"],  # noqa: S607
        cwd=parts.ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout
    return parts.ROOT / ".aws-sam" / ARCHITECTURE


@pytest.fixture(scope="session")
def livekit_server() -> Iterator[Server]:
    """A LiveKit server that sends its webhooks to `livekit_stack`."""
    with running_livekit(f"http://127.0.0.1:{parts.free_port(2) + 1}") as server:
        yield server


@pytest.fixture(scope="session")
def livekit_stack(livekit_server: Server) -> Iterator[LocalApi]:
    """The local stack with that LiveKit server; DynamoDB and Gemini are stand-ins."""
    webhook_port = urlsplit(livekit_server.webhook_url).port
    assert webhook_port
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with running_api({**clean, **livekit_server.variables}, webhook_port - 1) as stack:
        yield stack


@contextmanager
def _missing_parts_skipped() -> Iterator[None]:
    """Skip a test because this machine lacks a part; fail it with REQUIRE_REAL=1."""
    try:
        yield
    except parts.Missing as missing:
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    with _missing_parts_skipped():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    with _missing_parts_skipped():
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if parts.versions:
        terminalreporter.section("real parts")
        for name, version in parts.versions.items():
            terminalreporter.line(f"{name:24} {version}")
