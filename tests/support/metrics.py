"""Metrics in the log of a function."""

import json

import pytest


def metrics(capsys: pytest.CaptureFixture[str], name: str) -> int:
    """Return how often a metric was counted."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    return sum(name in line for line in lines if "_aws" in line)
