#!/usr/bin/env python3
"""Run a command while no other one holds the same lock: `locked.py <lock file> <command> [<argument> ...]`."""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; the system releases it if the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another command that uses {path.stem} ...", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    with locked(Path(sys.argv[1])):
        sys.exit(subprocess.run(sys.argv[2:], check=False).returncode)
