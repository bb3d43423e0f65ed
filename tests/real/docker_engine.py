"""A Docker engine, the machine's own or one for these tests, with the image of Lambda's runtime."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from local.errors import CannotStart
from local.real import parts

PART: Final = "Docker"
IMAGE_PART: Final = "Lambda image"

_FOLDER_PREFIX: Final = "pi-voice-docker-"
_PULL_SECONDS: Final = 120
_ASK_SECONDS: Final = 120

Engine = Mapping[str, str]
"""The environment variables by which the docker command finds an engine."""


@contextmanager
def running_engine() -> Iterator[Engine]:
    """Yield the engine that answers, or start one as root; installs Debian's docker.io if there is none."""
    if version := _version({}):
        parts.versions[PART] = f"{version}, the machine's own"
        yield {}
        return
    if os.geteuid() != 0:
        raise parts.Missing(PART, "no engine answers, and only root can start one")
    if not (shutil.which("dockerd") and shutil.which("docker")):
        _install()
    _clear_after_killed_engines()
    # The path of a Unix socket has to be short. The images stay in our own folder from one run to the next.
    with ExitStack() as running:
        short = running.enter_context(tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX))
        engine = {"DOCKER_HOST": f"unix://{short}/socket"}
        command: parts.Command = ["dockerd", "--host", engine["DOCKER_HOST"], "--data-root", parts.FOLDER / "docker"]
        command += ["--exec-root", f"{short}/run", "--pidfile", f"{short}/pid"]
        try:
            running.enter_context(parts.running(PART, command, lambda: _version(engine) is not None))
        except CannotStart as fault:  # in a container, for example, root may lack the rights that an engine needs
            raise parts.Missing(PART, str(fault)) from None
        parts.versions[PART] = f"{_version(engine)}, started for the tests"
        yield engine


def image(engine: Engine, name: str) -> None:
    """Pull AWS's image of the runtime into the engine, or build one with the program LAMBDA_IMAGE_BUILDER."""
    builder = os.environ.get("LAMBDA_IMAGE_BUILDER")
    if not _has(engine, name) and not _pull(engine, name):
        if not builder:
            raise parts.Missing(
                IMAGE_PART, f"{name} cannot be pulled, and LAMBDA_IMAGE_BUILDER names no program to build it"
            )
        parts.install(IMAGE_PART, [builder], engine)
    about = ["docker", "image", "inspect", "--format", "{{.Id}} of {{.Created}}{{if .RepoDigests}}, AWS's{{end}}", name]
    parts.versions[IMAGE_PART] = _asked(engine, about).stdout.strip()


def _clear_after_killed_engines() -> None:
    """Remove what killed engines left: their network namespaces hold addresses that a new engine assigns again."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        try:
            engine = int((folder / "pid").read_text(encoding="ascii"))
            running = (Path("/proc") / str(engine) / "comm").read_text(encoding="ascii") == "dockerd\n"
        except (OSError, ValueError):
            running = False
        if running:
            continue
        for namespace in filter(os.path.ismount, folder.glob("run/netns/*")):
            subprocess.run(["umount", namespace], check=True)  # noqa: S607
        shutil.rmtree(folder)


def _install() -> None:
    if not shutil.which("apt-get"):
        raise parts.Missing(PART, "there is no engine, and no apt-get to install one")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    parts.install(PART, ["apt-get", "update", "-qq"], quiet)
    parts.install(PART, ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "docker.io"], quiet)


def _version(engine: Engine) -> str | None:
    """Return the version of an engine, None if it does not answer."""
    if not shutil.which("docker"):
        return None
    asked = _asked(engine, ["docker", "version", "--format", "{{.Server.Version}}"])
    return asked.stdout.strip() if asked.returncode == 0 else None


def _has(engine: Engine, name: str) -> bool:
    return _asked(engine, ["docker", "image", "inspect", name]).returncode == 0


def _pull(engine: Engine, name: str) -> bool:
    return _asked(engine, ["docker", "pull", "--quiet", name], _PULL_SECONDS).returncode == 0


def _asked(engine: Engine, command: list[str], seconds: int = _ASK_SECONDS) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env={**os.environ, **engine},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "")
