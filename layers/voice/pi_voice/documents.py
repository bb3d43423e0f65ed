"""What every document that crosses our edge has in common."""

import math
import re
from collections.abc import Callable
from typing import Annotated, Final, Generic, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
)
from pydantic_core import ErrorDetails

from pi_voice.errors import Fault, InvalidRequest

_MAX_FAULTS: Final = 50
UNKNOWN_FIELD: Final = "Is not a field of this request. Remove it, or check its spelling."
_TOLD: Final = {
    "extra_forbidden": UNKNOWN_FIELD,
    "missing": "Is required.",
}

Parsed = TypeVar("Parsed")


class Document(BaseModel):
    """A JSON document of the API: closed (a typo is an error), frozen, and without silent conversions.

    Its validator is built when it is first used, because a function uses a few of them and imports them all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


class Detail(Document):
    """One thing that is wrong, or worth a look: where, and what."""

    path: str
    message: str


def _finite(value: JsonValue) -> JsonValue:
    """Refuse NaN and what no double can hold: pydantic holds typed numbers to that, but not those in any JSON."""
    match value:
        case float() if not math.isfinite(value):
            message = "must hold finite numbers only"
            raise ValueError(message)
        case dict():
            for inner in value.values():
                _finite(inner)
        case list():
            for inner in value:
                _finite(inner)
    return value


AnyJson = Annotated[JsonValue, AfterValidator(_finite)]
"""Any JSON, its numbers finite."""

JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_finite)]
"""Any JSON object, its numbers finite."""

Item = TypeVar("Item")


class Page(Document, Generic[Item]):
    """One page of a list, newest first; `next_cursor` is None at the end only."""

    data: list[Item]
    """The rows, newest first."""
    next_cursor: str | None = None
    """Where the next page starts; null at the end."""


def _digits(text: object) -> object:
    """Read a number of a query, which has only texts."""
    return int(text) if isinstance(text, str) and re.fullmatch("[0-9]{1,9}", text) else text


class Paging(Document):
    """How much of a list is asked for, and from where on."""

    limit: Annotated[int, BeforeValidator(_digits), Field(ge=1, le=100)] = 20
    """How many rows a page holds at most."""
    cursor: str | None = None
    """The `next_cursor` of the page before."""


Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=40)],
        Annotated[str, StringConstraints(max_length=500)],
    ],
    Field(max_length=16),
]
"""A caller's own notes: up to 16 pairs."""


def read(parse: Callable[[], Parsed]) -> Parsed:
    """Parse what a caller sent; raises InvalidRequest, with every fault by its path."""
    try:
        return parse()
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequest(faults=map(_fault, details[:_MAX_FAULTS])) from None


def _fault(detail: ErrorDetails) -> Fault:
    path = ".".join(str(step) for step in detail["loc"] if step != "[key]")
    return Fault(path, _TOLD.get(detail["type"], f"{detail['msg'].removeprefix('Value error, ')}."))
