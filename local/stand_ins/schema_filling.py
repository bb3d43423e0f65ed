"""The extraction model's answers: fill any JSON Schema from a call, deterministically.

Matching is by words only. A property takes the caller's answer to the question whose words are most similar to the
property's, and the part of that answer that fits its type and format. No requested value is null or missing.
"""

import math
import re
from collections.abc import Callable, Iterable
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
    quantity: many
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
_NOTHING_SAID: Final = Exchange("", "not said")


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
        schema, unrolled = self._resolved(schema, unrolled)
        about = f"{about} {schema.get('title', '')} {schema.get('description', '')}"
        match _kind(schema):
            case "object":
                return self._object(schema, name, about, unrolled)
            case "array":
                return self._array(schema, name, about, unrolled)
            case kind:
                return self._scalar(kind, schema, name, about)

    # ---- Schemas ----

    def _resolved(self, schema: Json, unrolled: int) -> tuple[Schema, int]:
        """Follow references and choose among alternatives until a schema without either is found."""
        while isinstance(schema, dict) and unrolled < _REFERENCES:
            if "$ref" in schema:
                schema, unrolled = self._target(schema["$ref"]), unrolled + 1
            elif options := schema.get("anyOf") or schema.get("oneOf"):
                described = {key: schema[key] for key in ("title", "description") if key in schema}
                schema = {**described, **self._chosen(options)}
            else:
                return schema, unrolled
        return {}, unrolled

    def _target(self, reference: str) -> Json:
        target: Json = self._root
        for step in unquote(reference).removeprefix("#").split("/")[1:]:
            target = target.get(step.replace("~1", "/").replace("~0", "~"), {})
        return target

    def _chosen(self, options: list[Json]) -> Schema:
        schemas = [option for option in options if isinstance(option, dict)]
        return next((schema for schema in schemas if _kind(schema) != "null"), {})

    def _object(self, schema: Schema, name: str, about: str, unrolled: int) -> Json:
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties")
        if not properties and isinstance(others, dict):
            return {"answer": self.value(others, name, about, unrolled)}
        wanted = properties if unrolled <= _UNROLLED else schema.get("required", ())
        return {key: self.value(inner, key, name, unrolled) for key, inner in properties.items() if key in wanted}

    def _array(self, schema: Schema, name: str, about: str, unrolled: int) -> list[Json]:
        if unrolled > _UNROLLED:
            return []
        if "prefixItems" in schema:
            return [self.value(inner, name, about, unrolled) for inner in schema["prefixItems"]]
        least, most = int(schema.get("minItems", 0)), int(schema.get("maxItems", 1_000))
        inner, _ = self._resolved(schema.get("items", {}), unrolled)
        items = self._several(inner, name, about) or [self.value(inner, name, about, unrolled + 1)]
        return (items + [items[-1]] * least)[: min(max(len(items), least), most)]

    def _several(self, inner: Schema, name: str, about: str) -> list[Json]:
        """Return all values that an answer lists, for types of which one answer can hold several."""
        match _kind(inner):
            case _ if members := inner.get("enum"):
                return _mentioned(members, self._answer(name, about, lambda text: bool(_mentioned(members, text))))
            case "integer" | "number":
                answer = self._answer(name, about, lambda text: bool(numbers(text)))
                return [_within(number, inner) for number in numbers(answer)]
            case "string" if "format" not in inner:
                parts = _LIST.split(without_fillers(self._answer(name, about)))
                return [without_fillers(part) for part in parts if part.strip(" .")]
        return []

    # ---- Values ----

    def _scalar(self, kind: str, schema: Schema, name: str, about: str) -> Json:
        if "enum" in schema:
            return self._member(schema["enum"], name, about)
        match kind:
            case "boolean":
                return self._boolean(name, about)
            case "integer" | "number":
                return self._number(schema, name, about)
            case "null":
                return None
        return self._string(schema.get("format"), name, about)

    def _member(self, members: Iterable[Json], name: str, about: str) -> Json:
        possible = [member for member in members if member is not None]
        answer = self._answer(name, about, lambda text: bool(_mentioned(possible, text)))
        said = [answer, *(exchange.answer for exchange in reversed(self._call.exchanges))]
        mentioned = [member for text in said for member in _mentioned(possible, text)]
        agreed = "no" if is_yes(answer) is False else "yes"
        undecided = [member for member in possible if member == agreed or member in _UNDECIDED]
        return [*mentioned, *undecided, *possible, None][0]

    def _boolean(self, name: str, about: str) -> bool:
        answer = self._answer(name, about, lambda text: is_yes(text) is not None)
        return is_yes(without_retractions(answer)) is not False

    def _number(self, schema: Schema, name: str, about: str) -> float:
        answer = self._answer(name, about, lambda text: bool(numbers(text)))
        anywhere = self._first(lambda text: numbers(text) or None)
        found = numbers(without_retractions(answer)) or anywhere or [len(self._call.exchanges)]
        return _within(found[0], schema)

    def _string(self, form: str | None, name: str, about: str) -> str:
        words = _words(name)
        if form in {"date", "time", "date-time"}:
            return self._moment(form, name, about)
        if words & _words("email mail") and (found := self._first(_EMAIL.search)):
            return found[0]
        if words & _words("phone telephone mobile") and (
            found := self._first(lambda text: _PHONE.search(in_digits(text)))
        ):
            return found[0]
        if words & _words("summary overview notes"):
            return "; ".join(without_fillers(exchange.answer) for exchange in self._call.exchanges) or "not said"
        answer = without_retractions(self._answer(name, about))
        if words & _words("name caller customer") and (found := _NAME.search(answer)):
            return found[1]
        return without_fillers(answer)

    def _moment(self, form: str, name: str, about: str) -> str:
        today = self._call.day
        answer = without_retractions(self._answer(name, about))
        on = day(answer, today) or self._first(lambda text: day(text, today)) or today
        at = clock(answer) or self._first(clock) or time(9)
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

    def _answer(self, name: str, about: str, fits: Callable[[str], bool] = lambda _: False) -> str:
        """Return the answer to the question that is most similar to a property."""
        words, described = _words(name), _words(about)
        hints = {hint for word in words for hint in _HINTS.get(word, ())}

        def similarity(exchange: Exchange) -> int:
            asked = _words(exchange.question)
            return 4 * len(words & asked) + 2 * len(hints & asked) + len(described & asked)

        def preference(exchange: Exchange) -> tuple[int, bool, bool]:
            is_fresh, is_question = exchange not in self._taken, "?" in exchange.question
            return similarity(exchange) + fits(exchange.answer), is_fresh, is_question

        exchange = max(self._call.exchanges, key=preference, default=_NOTHING_SAID)
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
