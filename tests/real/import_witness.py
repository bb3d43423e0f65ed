"""A handler in front of a function's own: it passes events on, and when asked it tells what was imported from where.

test_runtime.py puts this file, alone in a folder, at the end of a function's import path.
"""

import sys
from types import ModuleType
from typing import Any

import app  # type: ignore[import-not-found]  # each function has one

QUESTION = {"witness": "What was imported from where?"}


def handler(event: Any, context: Any) -> Any:
    """Answer the question with the import path and the files of each module, everything else as the function does."""
    if event != QUESTION:
        return app.handler(event, context)
    return {"path": sys.path, "modules": {name: places(module) for name, module in list(sys.modules.items())}}


def places(module: ModuleType) -> list[str]:
    """Return the file of a module, the folders of a namespace package, nothing for what is part of the interpreter."""
    file = getattr(module, "__file__", None)
    return [file] if file else list(getattr(module, "__path__", ()))
