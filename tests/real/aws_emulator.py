"""An AWS emulator on loopback (ministack) in its own virtual environment, and a shell that reaches no other AWS.

With AUTH=true the emulator checks each request of a function against the policies of its role in the template. It runs
the functions as processes of its own interpreter, which therefore has Lambda's minor version.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config

from local.real import parts
from local.real.parts import Command
from tests.support.template import environment

PART: Final = "AWS emulator"
PACKAGE: Final = "ministack"
REGION: Final = "eu-west-1"
ROOT_KEY: Final = "test"
"""The access key that the emulator treats as the account's root key."""

_LOCK: Final = parts.ROOT / "requirements/emulator.txt"
_FOLDER: Final = parts.FOLDER / "emulator"
_OF_THE_USER: Final = ("AWS_", "GEMINI_", "GOOGLE_", "LIVEKIT_")

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 (tempfile chooses the name)
_UNPACKED_BYTES: Final = 3 * 1024**3
"""Space for a copy of the layer per function, doubled as a reserve."""

Json = Any


def installed(python: Path) -> Path:
    """Install the emulator, record its version and return its program."""
    if not parts.is_installed(_FOLDER, _LOCK):
        pip: Command = [_FOLDER / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        parts.install(PART, [python, "-m", "venv", "--clear", _FOLDER])
        parts.install(PART, [*pip, "--require-hashes", "--no-deps", "--requirement", _LOCK])
        parts.mark_installed(_FOLDER, _LOCK)
    [site_packages] = _FOLDER.glob("lib/python3*/site-packages")
    [package] = distributions(name=PACKAGE, path=[str(site_packages)])
    parts.versions[f"{PART} ({PACKAGE})"] = package.version
    return _FOLDER / "bin" / PACKAGE


@dataclass(frozen=True, slots=True)
class Aws:
    """A running emulator."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a shell that uses this AWS, without the settings of the user's own services."""
        clean = {name: value for name, value in environment().items() if not name.startswith(_OF_THE_USER)}
        return clean | {
            "AWS_ACCESS_KEY_ID": ROOT_KEY,
            "AWS_SECRET_ACCESS_KEY": ROOT_KEY,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "NO_PROXY": "127.0.0.1",
        }

    def make(self, *words: str, typed: str = "", **variables: str) -> str:
        """Run `make` in such a shell with typed input, and return its output."""
        ended = subprocess.run(
            ["make", *words],  # noqa: S607 (as a user types it)
            cwd=parts.ROOT,
            env=self.environment | variables,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        return ended.stdout

    def client(self, service: str) -> Any:
        """Return boto3's client of a service."""
        return boto3.client(  # type: ignore[call-overload]  # the name is a variable
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ROOT_KEY,
            aws_secret_access_key=ROOT_KEY,
            config=Config(proxies={}, read_timeout=300),
        )

    def invoke(self, function: str, event: Json) -> Json:
        """Invoke a function through the Lambda API, assert that it succeeds, and return its response."""
        answer = self.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event).encode())
        document = json.load(answer["Payload"])
        assert "FunctionError" not in answer, document
        return document


@contextmanager
def running_aws(program: Path) -> Iterator[Aws]:
    """Run the emulator, on loopback alone and without Docker, until the end of the context."""
    port = parts.free_port()
    with tempfile.TemporaryDirectory(dir=_roomy_folder(), ignore_cleanup_errors=True) as folder:
        only: Mapping[str, str] = {
            "PATH": "/usr/bin:/bin",
            "HOME": folder,
            "TMPDIR": folder,  # where it unpacks a copy of the layer per function
            "AUTH": "true",
            "BIND_HOST": "127.0.0.1",
            "DOCKER_HOST": f"unix://{folder}/none",
            "GATEWAY_PORT": str(port),
            "IOT_MTLS_ENABLED": "0",
            "MINISTACK_HOST": "127.0.0.1",
            "MINISTACK_REGION": REGION,
            "SFTP_ENABLED": "0",
        }
        command: Command = ["env", "-i", *(f"{name}={value}" for name, value in only.items()), program]
        with parts.running(PART, command, parts.accepts_connections(port)):
            yield Aws(f"http://127.0.0.1:{port}")


def _roomy_folder() -> Path:
    """Return the fastest folder for a gigabyte of small files: in memory, if programs may run there."""
    is_roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _UNPACKED_BYTES
    return _MEMORY if is_roomy and not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC else parts.FOLDER
