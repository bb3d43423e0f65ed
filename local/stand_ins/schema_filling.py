"""The extraction model's answers: fill any JSON Schema from a call, deterministically.

Matching is by words only. A property takes the caller's answer to the question whose words are most similar to the
property's, and the part of that answer that fits its type and format. Where the schema allows null, it is null if no
question has one of its words, or if no part of the answer fits. Elsewhere a property has always a value. A text that a
function has answered in a field of the same name comes before the caller's words.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from local.stand_ins.answer_parsing import (
    Call,
    Exchange,
    clock,
    day,
    in_digits,
    is_yes,
    numbers,
    without_fillers,
    without_retractions,
)

Json = Any
Schema = dict[str, Json]
_Found = TypeVar("_Found")

_UNROLLED: Final = 3
"""Maximum depth to which optional parts of a recursive schema are expanded."""

_REFERENCES: Final = 50
"""Maximum number of nested references to follow."""

_STOP_WORDS: Final = """
    a an and any are as at be by can could did do does for from had has have i if in is it may me of on or our
    please so that the their them they this to user was we were what whether which will with would you your
"""
_ASKED_WITH: Final = """
    address: where live
    age: old
    amount: much
    budget: much spend
    city: where
    comment: else
    company: work where
    cost: much
    count: many
    date: day when
    day: when date
    duration: long
    email: mail
    feedback: else think
    guest: many people
    issue: problem help wrong matter
    item: order buy want
    location: where
    name: who called
    note: else
    number: many
    party: many people
    people: many
    phone: number reach
    place: where
    price: much
    problem: issue help wrong matter
    product: order buy want
    quantity: many order
    rating: scale satisfied
    reason: why help
    role: job work position
    satisfaction: happy rate
    score: rate scale
    size: many people large
    time: when clock hour
    topic: about help
    year: long many
"""
_EMAIL: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_PHONE: Final = re.compile(r"\+?\d[\d ()/-]{4,}\d")
_NAME: Final = re.compile(
    r"(?:name is|this is|i am|i'm|call me|it's|it is)\s+((?-i:[A-Z][\w'-]*)(?:\s+(?-i:[A-Z][\w'-]*))*)",
    re.IGNORECASE,
)
_LIST: Final = re.compile(r"[,;\n]|\band\b|\bor\b", re.IGNORECASE)
_UNDECIDED: Final = frozenset({"neutral", "none", "other", "unknown"})
_NOT_SAID: Final = "not said"
"""The text for what was not said, where the schema does not allow null."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A property: its schema, its name and its descriptions, and whether it may be null."""

    schema: Schema
    name: str
    about: str
    may_be_null: bool


def filled(schema: Schema, call: Call) -> Json:
    """Return a value that matches a schema, taken from a call."""
    return _Filling(schema, call).value(schema, "", "", 0)


class _Filling:
    """Fills one schema from one call, and prefers answers that were not used yet."""

    def __init__(self, root: Schema, call: Call) -> None:
        self._root = root
        self._call = call
        self._taken: set[Exchange] = set()

    def value(self, schema: Json, name: str, about: str, unrolled: int) -> Json:
        """Fill one schema; its name and its descriptions (`about`) select the answer."""
        schema, unrolled, may_be_null = self._resolved(schema, unrolled)
        about = f"{about} {schema.get('title', '')} {schema.get('description', '')}"
        wanted = _Wanted(schema, name, about, may_be_null)
        match _kind(schema):
            case "object":
                return self._object(wanted, unrolled)
            case "array":
                return self._array(wanted, unrolled)
            case kind:
                return self._scalar(kind, wanted)

    # ---- Schemas ----

    def _resolved(self, schema: Json, unrolled: int) -> tuple[Schema, int, bool]:
        """Follow references and choose among alternatives until a schema without either is found.

        Also return whether null is allowed on the way.
        """
        may_be_null = False
        while isinstance(schema, dict) and unrolled < _REFERENCES:
            if "$ref" in schema:
                schema, unrolled = self._target(schema["$ref"]), unrolled + 1
            elif options := schema.get("anyOf") or schema.get("oneOf"):
                described = {key: schema[key] for key in ("title", "description") if key in schema}
                may_be_null |= any(isinstance(option, dict) and _kind(option) == "null" for option in options)
                schema = {**described, **self._chosen(options)}
            else:
                return schema, unrolled, may_be_null or _is_nullable(schema)
        return {}, unrolled, may_be_null

    def _target(self, reference: str) -> Json:
        target: Json = self._root
        for step in unquote(reference).removeprefix("#").split("/")[1:]:
            target = target.get(step.replace("~1", "/").replace("~0", "~"), {})
        return target

    def _chosen(self, options: list[Json]) -> Schema:
        schemas = [option for option in options if isinstance(option, dict)]
        return next((schema for schema in schemas if _kind(schema) != "null"), {})

    def _object(self, wanted: _Wanted, unrolled: int) -> Json:
        schema, name = wanted.schema, wanted.name
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties")
        if not properties and isinstance(others, dict):
            filled_object = {"answer": self.value(others, name, wanted.about, unrolled)}
        else:
            kept = properties if unrolled <= _UNROLLED else schema.get("required", ())
            filled_object = {
                key: self.value(inner, key, name, unrolled) for key, inner in properties.items() if key in kept
            }
        if wanted.may_be_null and all(value is None for value in filled_object.values()):
            return None
        return filled_object

    def _array(self, wanted: _Wanted, unrolled: int) -> Json:
        schema, name, about = wanted.schema, wanted.name, wanted.about
        if unrolled > _UNROLLED:
            return []
        if "prefixItems" in schema:
            return [self.value(inner, name, about, unrolled) for inner in schema["prefixItems"]]
        least, most = int(schema.get("minItems", 0)), int(schema.get("maxItems", 1_000))
        inner, _, _ = self._resolved(schema.get("items", {}), unrolled)
        items = self._several(_Wanted(inner, name, about, wanted.may_be_null))
        if not items and wanted.may_be_null:
            return None
        items = items or [self.value(inner, name, about, unrolled + 1)]
        return (items + [items[-1]] * least)[: min(max(len(items), least), most)]

    def _several(self, wanted: _Wanted) -> list[Json]:
        """Return all values that an answer lists, for types of which one answer can hold several."""
        match _kind(wanted.schema):
            case _ if members := wanted.schema.get("enum"):
                return _mentioned(members, self._answer(wanted, lambda text: bool(_mentioned(members, text))))
            case "integer" | "number":
                answer = self._answer(wanted, lambda text: bool(numbers(text)))
                return [_within(number, wanted.schema) for number in numbers(answer)]
            case "string" if "format" not in wanted.schema:
                parts = _LIST.split(without_fillers(self._answer(wanted)))
                return [without_fillers(part) for part in parts if part.strip(" .")]
        return []

    # ---- Values ----

    def _scalar(self, kind: str, wanted: _Wanted) -> Json:
        if "enum" in wanted.schema:
            return self._member(wanted)
        match kind:
            case "boolean":
                return self._boolean(wanted)
            case "integer" | "number":
                return self._number(wanted)
            case "null":
                return None
        return self._string(wanted)

    def _member(self, wanted: _Wanted) -> Json:
        possible = [member for member in wanted.schema["enum"] if member is not None]
        answer = self._answer(wanted, lambda text: bool(_mentioned(possible, text)))
        said = [answer, *(exchange.answer for exchange in reversed(self._call.exchanges))]
        mentioned = [member for text in said for member in _mentioned(possible, text)]
        verdict = is_yes(answer)
        agreed = None if verdict is None else "yes" if verdict else "no"
        decided = [*mentioned, *(member for member in possible if member == agreed)]
        if wanted.may_be_null:
            return next(iter(decided), None)
        undecided = [member for member in possible if member == (agreed or "yes") or member in _UNDECIDED]
        return [*decided, *undecided, *possible, None][0]

    def _boolean(self, wanted: _Wanted) -> bool | None:
        answer = is_yes(without_retractions(self._answer(wanted, lambda text: is_yes(text) is not None)))
        return answer if wanted.may_be_null else answer is not False

    def _number(self, wanted: _Wanted) -> float | None:
        found = numbers(without_retractions(self._answer(wanted, lambda text: bool(numbers(text)))))
        if not found and wanted.may_be_null:
            return None
        anywhere = self._first(lambda text: numbers(text) or None)
        return _within((found or anywhere or [len(self._call.exchanges)])[0], wanted.schema)

    def _string(self, wanted: _Wanted) -> str | None:
        words = _words(wanted.name)
        if wanted.schema.get("format") in {"date", "time", "date-time"}:
            return self._moment(wanted)
        if answered := self._call.answered.get(wanted.name):
            return answered
        if words & _words("email mail") and (found := self._first(_EMAIL.search)):
            return found[0]
        if words & _words("phone telephone mobile") and (
            found := self._first(lambda text: _PHONE.search(in_digits(text)))
        ):
            return found[0]
        if words & _words("summary overview notes"):
            said = "; ".join(without_fillers(exchange.answer) for exchange in self._call.exchanges)
        else:
            said = without_retractions(self._answer(wanted))
            if words & _words("name caller customer") and (found := _NAME.search(said) or self._first_name(said)):
                return found[1]
            said = without_fillers(said)
        return said or (None if wanted.may_be_null else _NOT_SAID)

    def _first_name(self, said: str) -> re.Match[str] | None:
        """Find a name anywhere, if nobody asked for it."""
        return None if said else self._first(_NAME.search)

    def _moment(self, wanted: _Wanted) -> str | None:
        form, today = wanted.schema["format"], self._call.day
        answer = without_retractions(self._answer(wanted))
        on, at = day(answer, today), clock(answer)
        if wanted.may_be_null and (at if form == "time" else on) is None:
            return None
        on = on or self._first(lambda text: day(text, today)) or today
        at = at or self._first(clock) or time(9)
        moments = {
            "date": on.isoformat(),
            "time": f"{at.isoformat()}Z",
            "date-time": f"{datetime.combine(on, at).isoformat()}Z",
        }
        return moments[form]

    # ---- Answers ----

    def _first(self, find: Callable[[str], _Found | None]) -> _Found | None:
        """Return the first match in the caller's answers."""
        return next((found for exchange in self._call.exchanges if (found := find(exchange.answer))), None)

    def _answer(self, wanted: _Wanted, fits: Callable[[str], bool] = lambda _: False) -> str:
        """Return the answer to the question that is most similar to a property.

        Empty if the property may be null and no question is similar, or if the caller has said nothing.
        """
        words, described = _words(wanted.name), _words(wanted.about)
        hints = {hint for word in words for hint in _HINTS.get(word, ())}

        def similarity(exchange: Exchange) -> int:
            asked = _words(exchange.question)
            return 4 * len(words & asked) + 2 * len(hints & asked) + len(described & asked)

        def preference(exchange: Exchange) -> tuple[int, bool, bool]:
            is_fresh, is_question = exchange not in self._taken, "?" in exchange.question
            return similarity(exchange) + fits(exchange.answer), is_fresh, is_question

        exchange = max(self._call.exchanges, key=preference, default=None)
        if exchange is None or (wanted.may_be_null and not similarity(exchange)):
            return ""
        self._taken.add(exchange)
        return exchange.answer


def _kind(schema: Schema) -> str:
    """Return a schema's type in lower case: the first that is not null, or the implied one."""
    kinds = schema.get("type")
    if isinstance(kinds, str):
        return kinds.lower()
    if kinds:
        return str(next((kind for kind in kinds if kind != "null"), "null"))
    implied = {"properties": "object", "items": "array", "prefixItems": "array"}
    return next((kind for keyword, kind in implied.items() if keyword in schema), "string")


def _is_nullable(schema: Schema) -> bool:
    """Return whether a schema without alternatives allows null."""
    kinds = schema.get("type")
    return (
        (kinds in {"null", "NULL"} if isinstance(kinds, str) else "null" in (kinds or ()))
        or schema.get("nullable") is True
        or None in schema.get("enum", ())
    )


def _within(number: float, schema: Schema) -> float:
    """Clamp a number to a schema's bounds."""
    least, most = float(schema.get("minimum", -math.inf)), float(schema.get("maximum", math.inf))
    if _kind(schema) == "integer":
        least = math.ceil(least) if math.isfinite(least) else least
        most = math.floor(most) if math.isfinite(most) else most
        number = round(number)
    number = max(least, min(most, number))
    return int(number) if float(number).is_integer() else number


def _mentioned(members: Iterable[Json], text: str) -> list[Json]:
    """Return the enum members that a text names, in the order of the text."""
    places = {}
    for member in members:
        word = str(member).replace("_", " ").replace("-", " ")
        pattern = re.compile(rf"\b{re.escape(word)}", re.IGNORECASE)
        if member is not None and (found := pattern.search(text) or pattern.search(in_digits(text))):
            places[found.start(), -len(word)] = member
    return [member for _, member in sorted(places.items())]


def _words(text: str) -> set[str]:
    """Return the stems of a text's words, without stop words."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", text)
    return {_stem(word) for word in re.findall(r"[^\W_]+", apart.lower()) if word not in _STOPPED}


def _stem(word: str) -> str:
    return re.sub(r"(?<=\w{3})(?:ing|ed|s)$", "", word).removesuffix("e")


_STOPPED: Final = frozenset(_STOP_WORDS.split())
_HINTS: Final = {
    _stem(word): _words(hints)
    for word, _, hints in (line.strip().partition(": ") for line in _ASKED_WITH.strip().splitlines())
}
