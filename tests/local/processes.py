"""Queries for processes, for tests that check that none is left."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def children(pid: int) -> set[int]:
    """Return the running children of a process."""
    return {process for process, parent in _running() if parent == pid}


def is_running(pid: int) -> bool:
    return pid in {process for process, _ in _running()}


def is_reaped(pid: int) -> bool:
    """Return whether a child process is gone; after it has exited, threads of it may remain for a moment."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, for up to five minutes."""
    for _ in range(6_000):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("The condition did not become true.")


def _running() -> Iterator[tuple[int, int]]:
    """Yield all processes and their parents, except zombies."""
    for pid, parent, state in _in_proc() if Path("/proc/self/stat").exists() else _by_ps():
        if state != "Z":
            yield pid, parent


def _in_proc() -> Iterator[tuple[int, int, str]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # the process has just ended
            continue
        yield int(stat.parent.name), int(parent), state


def _by_ps() -> Iterator[tuple[int, int, str]]:
    listed = subprocess.run(["/bin/ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    for pid, parent, state in map(str.split, listed.stdout.splitlines()):
        yield int(pid), int(parent), state[0]
