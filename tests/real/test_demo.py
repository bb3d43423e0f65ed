"""`make demo` with a real LiveKit server instead of the stand-in."""

import os
import re
import subprocess
import sys
import time
from typing import Final

import jwt
import pytest

from local.real import parts
from tests.local.conftest import Site
from tests.real.livekit_server import Server

pytestmark = pytest.mark.real

SECONDS: Final = 900


def test_a_whole_call_is_shown_with_its_results(livekit_server: Server) -> None:
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "demo",
            "--pace",
            "4",
        ],  # at a higher pace, a slow machine reaches the time limit of the call
        cwd=parts.ROOT,
        env={**clean, **livekit_server.variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    shown = ended.stdout
    assert (ended.returncode, ended.stderr) == (0, ""), shown
    assert "Stand-ins on this machine: Gemini, DynamoDB." in shown
    assert "The LiveKit room is a real one" in shown
    assert "Mia         Linden by the lake, this is Mia, how nice that you call! What is your name?" in shown
    assert "table      │ Name of the booked table                             │ T12 " in shown
    assert "extraction succeeded by stand-in" in shown
    [(url, room)] = re.findall(r"LiveKit  (\S+)  room (\S+)  token ", shown)
    assert url == livekit_server.livekit.url
    assert room in log_of_the_server()  # the server created it, and completing the call closed it
    assert room not in rooms_of(livekit_server)


def log_of_the_server() -> str:
    return (parts.FOLDER / "logs/livekit-server.log").read_text(encoding="utf-8", errors="replace")


def rooms_of(server: Server) -> set[str]:
    """Return the names of all rooms of the server."""
    claims = {"iss": server.livekit.api_key, "exp": int(time.time()) + 3_600, "video": {"roomList": True}}
    token = jwt.encode(claims, server.livekit.api_secret)
    answer = Site(server.http_url).post(
        "/twirp/livekit.RoomService/ListRooms", {}, ("Authorization", f"Bearer {token}")
    )
    return {room["name"] for room in answer.json["rooms"]}
