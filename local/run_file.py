"""The file by which other commands on this machine find a running API: its address and an API key.

Only its user can read it. It is removed when the API stops; after a crash it may be left, and names an API that does
not answer.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

FOLDER: Final = Path(__file__).parent.parent / ".run"


@dataclass(frozen=True, slots=True)
class RunningApi:
    """The origin of a running API, and an API key of it."""

    base: str
    api_key: str


@contextmanager
def announced(api: RunningApi, folder: Path = FOLDER) -> Iterator[None]:
    """Write the file for the time of the context; raises OSError."""
    file = _file(urlsplit(api.base).port or 0, folder)
    folder.mkdir(mode=0o700, exist_ok=True)
    new = file.with_suffix(f".{secrets.token_hex(4)}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as written:
        json.dump(asdict(api), written)
    new.replace(file)
    try:
        yield
    finally:
        if find(urlsplit(api.base).port or 0, folder) == api:
            with suppress(FileNotFoundError):
                file.unlink()


def find(port: int, folder: Path = FOLDER) -> RunningApi | None:
    """Return what the API on a port has written; None if there is no file."""
    try:
        match json.loads(_file(port, folder).read_text(encoding="utf-8")):
            case {"base": str(base), "api_key": str(api_key)}:
                return RunningApi(base, api_key)
    except (OSError, ValueError):
        pass
    return None


def _file(port: int, folder: Path) -> Path:
    return folder / f"{port}.json"
