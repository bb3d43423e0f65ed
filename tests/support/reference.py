"""The operations of the API reference, which is generated from the functions."""

import json
from typing import Any, Final

from tests.support.template import BASE, ROOT

OPERATIONS: Final[list[tuple[str, str, dict[str, Any]]]] = [
    (method.upper(), path.removeprefix(BASE), operation)
    for path, methods in json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))["paths"].items()
    for method, operation in methods.items()
]
"""Method, path below BASE, and operation of each route."""
