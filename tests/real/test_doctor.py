"""`make doctor` with a real LiveKit server instead of the stand-in."""

import os
import subprocess
import sys
from typing import Final

import pytest

from local.real import parts
from local.running import LocalApi
from tests.real.livekit_server import API_SECRET, Server

pytestmark = pytest.mark.real

SECONDS: Final = 900


def doctor(**variables: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "doctor"],
        cwd=parts.ROOT,
        env={**clean, "PYTHONPATH": str(parts.ROOT / "layers/voice"), **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def names(ended: "subprocess.CompletedProcess[str]", verdict: str) -> list[str]:
    return [line[9:29].strip() for line in ended.stdout.splitlines() if line.startswith(verdict)]


def test_a_room_is_made_joined_and_deleted(livekit_server: Server, livekit_stack: LocalApi) -> None:
    ended = doctor(**livekit_server.variables, WEBHOOK_URL=livekit_stack.webhook_url)

    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert names(ended, "failed") + names(ended, "skipped") == []
    checked = ["LiveKit server", "LiveKit room", "LiveKit token", "LiveKit join", "LiveKit room closed"]
    assert [name for name in names(ended, "ok") if name.startswith("LiveKit")] == checked
    assert API_SECRET not in ended.stdout


def test_a_wrong_secret_is_named(livekit_server: Server) -> None:
    ended = doctor(**{**livekit_server.variables, "LIVEKIT_API_SECRET": "another-secret-that-is-long-enough-for-it"})

    assert (names(ended, "failed"), ended.returncode) == (["LiveKit room"], 1)
