"""Install DynamoDB Local, AWS's own engine, with Maven and run it by OnLoopback.java beside this file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from local.real import parts

PART: Final = "DynamoDB Local"
_POM: Final = Path(__file__).with_name("pom.xml")
_PROGRAM: Final = Path(__file__).with_name("OnLoopback.java")
_FOLDER: Final = parts.FOLDER / "dynamodb-local"


@contextmanager
def dynamodb_local() -> Iterator[str]:
    """Run an empty DynamoDB Local, in memory, and yield its URL; raises Missing and CannotStart."""
    java = parts.program(PART, "java")
    _install()
    port = parts.free_port()
    command: parts.Command = [java, f"-Djava.library.path={_FOLDER}", "-cp", f"{_FOLDER}/*", _PROGRAM, str(port)]
    with parts.running(PART, command, parts.accepts_connections(port)):
        parts.versions[PART] = _version()
        yield f"http://127.0.0.1:{port}"


def _install() -> None:
    if parts.is_installed(_FOLDER, _POM):
        return
    maven = parts.program(PART, "mvn")
    copy = ["dependency:copy-dependencies", f"-DoutputDirectory={_FOLDER}"]
    parts.install(PART, [maven, "--quiet", "--batch-mode", "--strict-checksums", "--file", _POM, *copy])
    parts.mark_installed(_FOLDER, _POM)


def _version() -> str:
    [jar] = _FOLDER.glob("DynamoDBLocal-*.jar")
    return jar.stem.removeprefix("DynamoDBLocal-")
