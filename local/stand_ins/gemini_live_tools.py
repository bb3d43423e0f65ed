"""The tools of a setup: which functions the agent calls for the caller's words, and with which arguments.

For a line of an example, its script says which. For any other words, the agent calls each function of which they name
a value of an enum. Its other required arguments are filled from the call so far, as results are. Parameters are read
from `parameters` only, not from `parametersJsonSchema`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from local.stand_ins.answer_parsing import Call, in_digits, without_retractions
from local.stand_ins.example_scripts import CallScript, plain
from local.stand_ins.gemini_messages import Message
from local.stand_ins.gemini_models import waits_for_function
from local.stand_ins.schema_filling import filled

HANG_UP: Final = "hang_up"
"""Pi Voice's function with which the agent ends the call."""

_REASON: Final = "Everything was said."
_LONGEST_FILLED: Final = 1_000

_APART: Final = str.maketrans("_-", "  ")

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WantedCall:
    """A function that the agent wants to call, and whether it waits for the answer."""

    name: str
    args: Message
    waits: bool


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions of a setup by name, with their parameters, and what the agent knows about them.

    `script` has the lines of an example. `done` are the calls of earlier connections that the instruction lists; the
    agent does not repeat them.
    """

    parameters: Mapping[str, Schema]
    waiting: frozenset[str]
    script: CallScript = field(default_factory=dict)
    done: tuple[tuple[str, Message], ...] = ()

    @classmethod
    def of(cls, setup: Message, script: CallScript, done: Iterable[tuple[str, Message]]) -> Self:
        """Read the function declarations of a setup."""
        declared = [each for tool in setup.get("tools", []) for each in tool.get("functionDeclarations", [])]
        parameters = {each.get("name", ""): each.get("parameters", {}) for each in declared}
        waiting = frozenset(each.get("name", "") for each in declared if waits_for_function(setup, each))
        return cls(parameters, waiting, script, tuple(done))

    def calls_for(self, words: str, call: Call) -> list[WantedCall]:
        """Return the calls for what the caller has just said, at most one of each function."""
        if (scripted := self.script.get(plain(words))) is not None:
            wanted = {name: args for name, args in scripted if name in self.parameters}
        else:
            wanted = {
                name: _arguments(parameters, named, call)
                for name, parameters in self.parameters.items()
                if name != HANG_UP and (named := _named_values(parameters, words))
            }
        return [self._wanted(name, args) for name, args in wanted.items() if (name, args) not in self.done]

    def hang_up(self, call: Call) -> WantedCall | None:
        """Return the call with which the agent ends the conversation; None if it may not."""
        if HANG_UP not in self.parameters:
            return None
        parameters = self.parameters[HANG_UP]
        reason = {"reason": _REASON} if "reason" in parameters.get("properties", {}) else {}
        return self._wanted(HANG_UP, _arguments(parameters, reason, call))

    def _wanted(self, name: str, args: Message) -> WantedCall:
        return WantedCall(name, args, name in self.waiting)


def _named_values(parameters: Schema, words: str) -> Message:
    """Return the properties of which the words name an enum member."""
    named: Message = {}
    for name, schema in parameters.get("properties", {}).items():
        if found := _named(schema.get("enum", ()), without_retractions(words)) or _named(schema.get("enum", ()), words):
            named[name] = found[0]
        elif several := _named(schema.get("items", {}).get("enum", ()), words):
            named[name] = several
    return named


def _named(members: Iterable[Any], words: str) -> list[str]:
    """Return the members that a text names as whole words, in its order."""
    text, places = words.translate(_APART), {}
    for member in members:
        if isinstance(member, str) and re.search(r"\w", member):
            pattern = re.compile(rf"(?<!\w){re.escape(member.translate(_APART))}(?!\w)", re.IGNORECASE)
            if found := pattern.search(text) or pattern.search(in_digits(text)):
                places[found.start(), -len(member)] = member
    return [member for _, member in sorted(places.items())]


def _arguments(parameters: Schema, named: Message, call: Call) -> Message:
    """Return arguments with what was named, and a value for each other required property."""
    properties = parameters.get("properties", {})
    others = {
        name: properties[name] for name in parameters.get("required", ()) if name in properties and name not in named
    }
    values = filled({"type": "object", "properties": others}, call) if others else {}
    arguments = {**named, **{name: _fitted(value, others[name]) for name, value in values.items()}}
    return {name: arguments[name] for name in properties if name in arguments}


def _fitted(value: Any, schema: Schema) -> Any:
    """Return a value with the length that its schema demands of a text."""
    if not isinstance(value, str) or "enum" in schema:
        return value
    longest, shortest = int(schema.get("maxLength", len(value))), int(schema.get("minLength", 0))
    return value[:longest].ljust(min(shortest, _LONGEST_FILLED), ".")
