"""Reads requests to the Gemini API as strictly as Google: unknown names and wrong values are refused at any depth.

Names may be written in camelCase or in snake_case and are read as camelCase; null is as good as absent.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

Json = Any
Message = dict[str, Json]

_TABLE: Final = Path(__file__).with_name("gemini_messages.yaml")
_PACKAGE: Final = "type.googleapis.com/google.ai.generativelanguage"
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_TIMESTAMP_FAULT: Final = "Illegal timestamp format; timestamps must end with 'Z' or have a valid timezone offset."
_DURATION: Final = re.compile(r"-?\d+(\.\d{1,9})?s")
_INT32: Final = range(-(2**31), 2**31)
_INT64: Final = range(-(2**63), 2**63)


class InvalidRequest(Exception):
    """A request that Google refuses before it looks at what it means; `violations` are fields and descriptions."""

    def __init__(self, violations: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(description for _, description in violations))
        self.violations = violations


@cache
def fields(version: str) -> Mapping[str, Mapping[str, str]]:
    """Return the fields of all messages of a version: message name to field name (camelCase) to type."""
    table = yaml.safe_load(_TABLE.read_text())
    return {
        message: {
            name: kind.partition(" ")[0] for name, kind in of_message.items() if kind.partition(" ")[2] in {"", version}
        }
        for message, of_message in table.items()
    }


def snake(name: str) -> str:
    """Write a camelCase name in snake_case."""
    return re.sub("([A-Z])", r"_\1", name).lower()


def read(message: str, version: str, body: Json, at: str = "") -> Message:
    """Read a message and return it with camelCase names; raises InvalidRequest, which names every fault.

    `at` is where Google's texts say that the message stands, in snake_case.
    """
    if not isinstance(body, dict):
        fault = 'Invalid JSON payload received. Unknown name "": Root element must be a message.'
        raise InvalidRequest([("", fault)])
    reading = _Reading(version)
    result = reading.message(message, body, at)
    if reading.violations:
        raise InvalidRequest(reading.violations)
    return result


class _Reading:
    def __init__(self, version: str) -> None:
        self.violations: list[tuple[str, str]] = []
        self._version = version
        self._fields = fields(version)

    def message(self, kind: str, value: Json, at: str) -> Message:
        if not isinstance(value, dict):
            self._invalid(at, f"{_PACKAGE}.{self._version}.{kind}", value)
            return {}
        result = {}
        known = self._fields[kind]
        names = {**{snake(name): name for name in known}, **{name: name for name in known}}
        for key, item in value.items():
            if key not in names:
                where = f" at '{at}'" if at else ""
                fault = f'Invalid JSON payload received. Unknown name "{key}"{where}: Cannot find field.'
                self.violations.append((at, fault))
            elif item is not None:
                name = names[key]
                result[name] = self._value(known[name], item, f"{at}.{snake(name)}" if at else snake(name))
        return result

    def _value(self, kind: str, value: Json, at: str) -> Json:
        inner = kind[1:-1]
        match kind[0], value:
            case "[", list():
                return [self._value(inner, item, f"{at}[{number}]") for number, item in enumerate(value)]
            case "{", dict():
                return {name: self._value(inner, item, f"{at}.{name}") for name, item in value.items()}
            case (("[" | "{"), _):
                self._invalid(at, "TYPE_MESSAGE", value)
                return value
        if kind in self._fields:
            return self.message(kind, value, at)
        self._check(kind, value, at)
        return value

    def _check(self, kind: str, value: Json, at: str) -> None:
        if kind == "timestamp":
            if not _is_timestamp(value):
                where = f"Invalid value at '{at}' (type.googleapis.com/google.protobuf.Timestamp)"
                self.violations.append((at, f"{where}, Field '{at.rpartition('.')[2]}', {_TIMESTAMP_FAULT}"))
        elif kind in _SCALARS:
            if not _SCALARS[kind](value):
                self._invalid(at, f"TYPE_{kind.upper()}", value)
        elif value not in kind.split("|"):
            self._invalid(at, "TYPE_ENUM", value)

    def _invalid(self, at: str, kind: str, value: Json) -> None:
        self.violations.append((at, f"Invalid value at '{at}' ({kind}), {json.dumps(value)}"))


def _is_timestamp(value: Json) -> bool:
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        return False
    with suppress(ValueError):
        return bool(datetime.fromisoformat(value))
    return False


def _is_whole(value: Json, within: range) -> bool:
    """Tell whether a value is an integer, which protocol buffers also take as a text or as a float without a rest."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        return float(value).is_integer() and int(float(value)) in within
    except (ValueError, OverflowError):
        return False


def _is_number(value: Json) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


_SCALARS: Final[Mapping[str, Callable[[Json], bool]]] = {
    "any": lambda _: True,
    "bool": lambda value: isinstance(value, bool),
    "bytes": lambda value: isinstance(value, str),
    "double": _is_number,
    "duration": lambda value: isinstance(value, str) and _DURATION.fullmatch(value) is not None,
    "fieldmask": lambda value: isinstance(value, str),
    "int32": lambda value: _is_whole(value, _INT32),
    "int64": lambda value: _is_whole(value, _INT64),
    "string": lambda value: isinstance(value, str),
}
