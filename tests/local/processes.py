"""Which processes there are, for tests that want none left behind."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def children(pid: int) -> set[int]:
    """The processes that a process has started and that run."""
    return {process for process, parent in _running() if parent == pid}


def is_running(pid: int) -> bool:
    return pid in {process for process, _ in _running()}


def is_reaped(pid: int) -> bool:
    """Whether nothing is left of a process of ours: while it is noticed to have ended, threads of it may still be."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something holds, for as long as a slow machine may need."""
    for _ in range(6_000):
        if is_so():
            return
        time.sleep(0.05)
    pytest.fail("It never came true.")


def _running() -> Iterator[tuple[int, int]]:
    """All processes and their parents, without those that have ended and wait to be noticed."""
    for pid, parent, state in _in_proc() if Path("/proc/self/stat").exists() else _by_ps():
        if state != "Z":
            yield pid, parent


def _in_proc() -> Iterator[tuple[int, int, str]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        yield int(stat.parent.name), int(parent), state


def _by_ps() -> Iterator[tuple[int, int, str]]:
    listed = subprocess.run(["/bin/ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    for pid, parent, state in map(str.split, listed.stdout.splitlines()):
        yield int(pid), int(parent), state[0]
