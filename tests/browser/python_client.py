"""The Python reference client with other constants, as a module of its own for each test."""

import importlib.util
from typing import Any, Final

from tests.support.template import ROOT

CLIENTS: Final = ROOT / "docs" / "clients"
PATIENCE_SECONDS: Final = 300
"""Longer than any step takes on a busy machine."""

UNHURRIED: Final = {"PROMPT_SECONDS": PATIENCE_SECONDS, "CLOSING_SECONDS": 60}
"""Constants for a machine that stands still for some seconds."""

GOODBYE: Final = "Goodbye."
"""What the agent says when the client should hang up."""


def python_client(**constants: object) -> Any:
    """Return a private copy of the Python client, with short pauses and other constants."""
    spec = importlib.util.spec_from_file_location("client", CLIENTS / "client.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("PAUSES", "SERVER_TOOL_PAUSES"):
        setattr(module, name, tuple(pause / 50 for pause in getattr(module, name)))
    for name, value in {**UNHURRIED, **constants}.items():
        assert hasattr(module, name)
        setattr(module, name, value)
    return module
