"""A wrapper of a function's handler that can also report the file of every imported module.

test_runtime.py puts this file, alone in a folder, at the end of a function's import path.
"""

import sys
from types import ModuleType
from typing import Any

import app  # type: ignore[import-not-found]  # each function has one

QUESTION = {"witness": "What was imported from where?"}


def handler(event: Any, context: Any) -> Any:
    """Return the import path and the files of each module for the question; pass other events to the function."""
    if event != QUESTION:
        return app.handler(event, context)
    return {"path": sys.path, "modules": {name: places(module) for name, module in list(sys.modules.items())}}


def places(module: ModuleType) -> list[str]:
    """Return the file of a module, the folders of a namespace package, or nothing for a built-in module."""
    file = getattr(module, "__file__", None)
    return [file] if file else list(getattr(module, "__path__", ()))
