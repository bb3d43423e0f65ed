"""Reads requests to the Gemini API as strictly as Google: unknown names and wrong values are refused at any depth.

Names may be written in camelCase or in snake_case and are read as camelCase; null means absent. The messages are those
of Google's OpenAPI definitions, reduced by reduce_gemini_definitions.py: v1alpha of June 2026, v1beta of August 2026.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

Json = Any
Message = dict[str, Json]
Schema = dict[str, Any]

_DEFINITIONS: Final = Path(__file__).with_name("gemini_definitions")

_PACKAGE: Final = "type.googleapis.com/google.ai.generativelanguage"
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_TIMESTAMP_FAULT: Final = "Illegal timestamp format; timestamps must end with 'Z' or have a valid timezone offset."
_DURATION: Final = re.compile(r"-?\d+(\.\d{1,9})?s")
_INT32: Final = range(-(2**31), 2**31)
_INT64: Final = range(-(2**63), 2**63)


def _ref(message: str) -> Schema:
    return {"$ref": f"#/$defs/{message}"}


def _list(message: str) -> Schema:
    return {"type": "array", "items": _ref(message)}


_BOOLEAN: Final[Schema] = {"type": "boolean"}
_ADDITIONS: Final[Mapping[str, Mapping[str, Schema]]] = {
    # The messages of a Live API client: OpenAPI has no WebSocket. Source: https://ai.google.dev/api/live
    "ActivityEnd": {},
    "ActivityStart": {},
    "BidiGenerateContentClientContent": {"turnComplete": _BOOLEAN, "turns": _list("Content")},
    "BidiGenerateContentClientMessage": {
        "clientContent": _ref("BidiGenerateContentClientContent"),
        "realtimeInput": _ref("BidiGenerateContentRealtimeInput"),
        "setup": _ref("BidiGenerateContentSetup"),
        "toolResponse": _ref("BidiGenerateContentToolResponse"),
    },
    "BidiGenerateContentRealtimeInput": {
        "activityEnd": _ref("ActivityEnd"),
        "activityStart": _ref("ActivityStart"),
        "audio": _ref("Blob"),
        "audioStreamEnd": _BOOLEAN,
        "mediaChunks": _list("Blob"),
        "text": {"type": "string"},
        "video": _ref("Blob"),
    },
    "BidiGenerateContentToolResponse": {"functionResponses": _list("FunctionResponse")},
    # v1alpha names this message without defining it; v1beta defines it as V1mainMediaResolution.
    "MediaResolution": {
        "level": {
            "enum": [
                "MEDIA_RESOLUTION_UNSPECIFIED",
                "MEDIA_RESOLUTION_LOW",
                "MEDIA_RESOLUTION_MEDIUM",
                "MEDIA_RESOLUTION_HIGH",
                "MEDIA_RESOLUTION_ULTRA_HIGH",
            ]
        }
    },
}
"""Messages that Google's definitions lack: message name to field name to type."""


class InvalidRequest(Exception):
    """A malformed request; `violations` are pairs of a field and a description."""

    def __init__(self, violations: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(description for _, description in violations))
        self.violations = violations


@cache
def fields(version: str) -> Mapping[str, Mapping[str, Schema]]:
    """Return the fields of all messages of a version: message name to field name (camelCase) to JSON Schema."""
    defined = json.loads((_DEFINITIONS / f"{version}.json").read_text(encoding="utf-8"))
    return {**_ADDITIONS, **{name: message["properties"] for name, message in defined.items()}}


def snake(name: str) -> str:
    """Write a camelCase name in snake_case."""
    return re.sub("([A-Z])", r"_\1", name).lower()


def read(message: str, version: str, body: Json, at: str = "") -> Message:
    """Read a message and return it with camelCase names; raises InvalidRequest, which names every fault.

    `at` is the path of the message in Google's error texts, in snake_case.
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

    def _value(self, schema: Schema, value: Json, at: str) -> Json:
        match schema, value:
            case {"$ref": str(ref)}, _:
                return self.message(ref.rpartition("/")[2], value, at)
            case {"items": dict(inner)}, list():
                return [self._value(inner, item, f"{at}[{number}]") for number, item in enumerate(value)]
            case {"additionalProperties": dict(inner)}, dict():
                return {name: self._value(inner, item, f"{at}.{name}") for name, item in value.items()}
            case (({"items": _} | {"additionalProperties": _}), _):
                self._invalid(at, "TYPE_MESSAGE", value)
            case {"enum": list(names)}, _:
                if value not in names:
                    self._invalid(at, "TYPE_ENUM", value)
            case {"format": "google-datetime"}, _:
                self._check_timestamp(value, at)
            case {"type": str(kind)}, _:
                label, is_valid = _SCALARS[schema.get("format", kind)]
                if not is_valid(value):
                    self._invalid(at, label, value)
        return value

    def _check_timestamp(self, value: Json, at: str) -> None:
        if not _is_timestamp(value):
            where = f"Invalid value at '{at}' (type.googleapis.com/google.protobuf.Timestamp)"
            self.violations.append((at, f"{where}, Field '{at.rpartition('.')[2]}', {_TIMESTAMP_FAULT}"))

    def _invalid(self, at: str, kind: str, value: Json) -> None:
        self.violations.append((at, f"Invalid value at '{at}' ({kind}), {json.dumps(value)}"))


def _is_timestamp(value: Json) -> bool:
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        return False
    with suppress(ValueError):
        return bool(datetime.fromisoformat(value))
    return False


def _is_whole(value: Json, within: range) -> bool:
    """Return whether a value is an integer; protocol buffers also accept a string, or a float without a fraction."""
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


def _is_string(value: Json) -> bool:
    return isinstance(value, str)


_NUMBER: Final = ("TYPE_DOUBLE", _is_number)
_SCALARS: Final[Mapping[str, tuple[str, Callable[[Json], bool]]]] = {
    "boolean": ("TYPE_BOOL", lambda value: isinstance(value, bool)),
    "byte": ("TYPE_BYTES", _is_string),
    "double": _NUMBER,
    "float": _NUMBER,
    "google-duration": ("TYPE_DURATION", lambda value: _is_string(value) and _DURATION.fullmatch(value) is not None),
    "google-fieldmask": ("TYPE_FIELDMASK", _is_string),
    "int32": ("TYPE_INT32", lambda value: _is_whole(value, _INT32)),
    "int64": ("TYPE_INT64", lambda value: _is_whole(value, _INT64)),
    "string": ("TYPE_STRING", _is_string),
}
"""Scalars by OpenAPI's format, or by type where there is no format: the name in Google's error texts and the check."""
