"""Documents with one bad value."""

from typing import Any


def each(path: str, *values: object) -> list[tuple[str, object]]:
    """Pair a field with each of these bad values."""
    return [(path, value) for value in values]


def set_at(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    return {**document, name: set_at(document.get(name, {}), rest, value) if rest else value}
