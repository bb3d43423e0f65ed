"""Variables: values that each session brings for the texts of its agent, which name them as `{{name}}`.

A value is data from outside. It enters a text on one line and between two marks, and the instruction says what the
marks mean (docs/adr/0033).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import to_json
from typing_extensions import TypeAliasType

from pi_voice.domain.base import Document, VariableValue, dotted_path
from pi_voice.domain.errors import ErrorDetail, InvalidVariables

BUILT_IN: Final = ("date", "time_zone", "participant.name")
"""Names that every session has a value for."""

OPEN: Final = "\u27e6"
CLOSE: Final = "\u27e7"
"""Marks around a text from outside, which no such text holds: white square brackets."""

MAX_VARIABLES: Final = 50

MAX_VALUES_BYTES: Final = 20_000
"""Maximum size of the values of a session as JSON."""

MAX_PLACES: Final = 200
"""Maximum number of places for values in the texts of an agent."""

MAX_FILLED_CHARACTERS: Final = 20_000
"""Maximum number of characters that values take in all places together."""

DEFAULT_MAX_LENGTH: Final = 1_000

_MAX_NUMBER: Final = 2**53 - 1
"""Largest number that every JSON parser reads exactly."""

_MAX_PHRASE_CHARACTERS: Final = 60

# The patterns are compiled at their first use, because most sessions have no variables.
_PLACE: Final = r"\\\{\{|\{\{(?: *([A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)?) *\}\})?"
"""An escaped `{{`, a place for a value with its name, or a `{{` that begins no place."""

_ESCAPED: Final = r"\{{"
_CONTROL: Final = "[\x00-\x1f\x7f-\x9f]+"
_INVISIBLE: Final = (
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]+"
)
"""Characters that hide text or change its direction; not the joiners, which some languages need."""

_LONE_SURROGATE: Final = "[\ud800-\udfff]"
_MARKS: Final = str.maketrans({OPEN: "[", CLOSE: "]"})


def _require_few(variables: JsonValue) -> JsonValue:
    """Refuse too many at once: pydantic would keep the faults of each one."""
    if isinstance(variables, dict) and len(variables) > MAX_VARIABLES:
        message = f"should be at most {MAX_VARIABLES}, not {len(variables):,}"
        raise ValueError(message)
    return variables


def _check_name(name: str) -> str:
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,63}", name):
        message = "should be a letter, then letters, digits and underscores, up to 64 characters"
        raise ValueError(message)
    if name in BUILT_IN:
        message = "is the name of a built-in value; choose another one"
        raise ValueError(message)
    return name


class Variable(Document):
    """A value that each session brings for the agent's texts, which name it as `{{name}}`."""

    type: Literal["string", "number", "boolean"]
    """`string`, `number` or `boolean`."""
    description: Annotated[str, StringConstraints(max_length=200)] | None = None
    """What the value is, up to 200 characters; not part of the call."""
    max_length: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Maximum length of a string in characters, 1 to 10,000; null: 1,000."""
    default: VariableValue | None = None
    """Value for sessions that do not bring one; null: each session must bring one."""

    @field_validator("max_length")
    @classmethod
    def _require_string(cls, length: int | None, info: ValidationInfo) -> int | None:
        if length is not None and info.data.get("type", "string") != "string":
            message = "is for strings only"
            raise ValueError(message)
        return length

    @field_validator("default")
    @classmethod
    def _require_value(cls, default: JsonValue, info: ValidationInfo) -> JsonValue:
        if default is not None and info.data.keys() >= {"type", "max_length"}:
            fault = cls.model_construct(**info.data).fault_of(default)
            if fault is not None:
                raise ValueError(fault)
        return default

    def fault_of(self, value: JsonValue) -> str | None:
        """Return what is wrong with a value for this variable; None if nothing is."""
        match value:
            case str() if self.type == "string":
                longest = self.max_length or DEFAULT_MAX_LENGTH
                return None if len(value) <= longest else f"should have at most {longest:,} characters"
            case bool() if self.type == "boolean":
                return None
            case int() | float() if self.type == "number" and not isinstance(value, bool):
                return None if abs(value) <= _MAX_NUMBER else f"should be from -{_MAX_NUMBER} to {_MAX_NUMBER}"
        return f"should be a {self.type}"


# Not by a pattern: pydantic would write `patternProperties` into the reference, which client generators do not know.
VariableName = Annotated[str, AfterValidator(_check_name)]
"""Name of a variable: a letter, then letters, digits and underscores; up to 64 characters."""

Variables = TypeAliasType(
    "Variables",
    Annotated[dict[VariableName, Variable], Field(max_length=MAX_VARIABLES), BeforeValidator(_require_few)],
)
"""Variables of an agent by name, up to 50. A name is a letter, then letters, digits and underscores, up to 64."""

Values = Mapping[str, str]
"""What takes the place of each name."""


# ---- Values of a session ----


def resolved(variables: Mapping[str, Variable], given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the value of each variable, given or by default; raises InvalidVariables."""
    faults = {name: "Is not a variable of this agent. Check its spelling." for name in given if name not in variables}
    values: dict[str, JsonValue] = {}
    for name, variable in variables.items():
        if name not in given and variable.default is None:
            faults[name] = "Is required."
        elif name not in given:
            values[name] = variable.default
        elif fault := variable.fault_of(given[name]):
            faults[name] = f"{fault[0].upper()}{fault[1:]}."
        else:
            values[name] = given[name]
    if faults:
        raise InvalidVariables(
            details=(ErrorDetail(dotted_path(("variables", name)), fault) for name, fault in faults.items())
        )
    check_size_of(values)
    return values


def check_size_of(values: Mapping[str, JsonValue]) -> None:
    """Raise InvalidVariables if values take too much together."""
    if (size := len(to_json(values))) > MAX_VALUES_BYTES:
        message = f"Take {size:,} bytes as JSON together; at most {MAX_VALUES_BYTES:,} are taken."
        raise InvalidVariables(details=[ErrorDetail("variables", message)])


def phrases(values: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Return the short texts among values, as words that the caller may say: names, places, products."""
    texts = (_plain(value) for value in values.values() if isinstance(value, str))
    return tuple(dict.fromkeys(text for text in texts if 0 < len(text) <= _MAX_PHRASE_CHARACTERS))


# ---- Texts ----


def fill(text: str, values: Values) -> str:
    r"""Return a text with its values, which are not read again, and with `{{` for `\{{`; unknown names stay."""

    def replacement(place: re.Match[str]) -> str:
        return "{{" if place[0] == _ESCAPED else values.get(place[1] or "", place[0])

    return re.sub(_PLACE, replacement, text)


def written(value: JsonValue) -> str:
    """Return a value as it enters a text: a string on one line between marks, without control characters."""
    match value:
        case None:  # stored by a version that knew no variables
            return ""
        case str():
            text = _plain(value)
            return f"{OPEN}{text}{CLOSE}" if text else ""
        case float() if value.is_integer():
            return str(int(value))
    return to_json(value).decode()


def _plain(text: str) -> str:
    """Return a text on one line, without characters that control, hide or imitate."""
    visible = re.sub(_INVISIBLE, "", re.sub(_CONTROL, " ", text))
    return " ".join(re.sub(_LONE_SURROGATE, "\ufffd", visible).translate(_MARKS).split())


def names_in(text: str) -> Iterator[str]:
    """Yield the name of each place for a value in a text."""
    return (place[1] for place in re.finditer(_PLACE, text) if place[1])


def faults_in(text: str, is_known: Callable[[str], bool]) -> Iterator[str]:
    """Yield what is wrong with the places of a text, each fault once: unknown names, and a `{{` without an end."""
    places = dict.fromkeys(place[1] or "" for place in re.finditer(_PLACE, text) if place[0] != _ESCAPED)
    for name in places:
        if not name:
            yield r"Has {{ without a name and }}. Write {{name}}, or \{{ for the characters themselves."
        elif not is_known(name):
            yield f"Has {{{{{name}}}}}, which is no variable of this agent. Declare it, or check its spelling."


def has_places(text: str) -> bool:
    """Return whether a text has anything that looks like a place for a value."""
    return "{{" in text
