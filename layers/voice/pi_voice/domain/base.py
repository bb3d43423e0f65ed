"""Base class and shared types of the API's JSON documents."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails
from typing_extensions import TypeAliasType

from pi_voice.domain.errors import MAX_DETAILS, ErrorDetail, InvalidRequest

MAX_FAULTS: Final = 1_000
"""Maximum number of faults of a request that are listed; a list of more would take too much memory."""
BACKEND_FIELDS: Final = {"metadata", "overrides", "variables"}
"""Fields of responses that a client token does not see."""

UNKNOWN_FIELD: Final = "Is not a field of this request. Remove it, or check its spelling."
_MESSAGES: Final = {
    "extra_forbidden": UNKNOWN_FIELD,
    "missing": "Is required.",
}

Parsed = TypeVar("Parsed")


class Document(BaseModel):
    """A JSON document of the API: unknown fields are errors, instances are frozen, types are not coerced.

    Validators are built at first use, because a function imports all documents and uses a few of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


def _require_finite(value: JsonValue) -> JsonValue:
    """Reject NaN and infinity inside free JSON; pydantic's `allow_inf_nan` covers typed numbers only."""
    match value:
        case float() if not math.isfinite(value):
            message = "must hold finite numbers only"
            raise ValueError(message)
        case dict():
            for inner in value.values():
                _require_finite(inner)
        case list():
            for inner in value:
                _require_finite(inner)
    return value


JsonSchema = dict[str, JsonValue]
"""A JSON Schema, or a part of one, that is an object."""

AnyJson = Annotated[JsonValue, AfterValidator(_require_finite)]
"""Any JSON value with finite numbers."""

JsonObject = TypeAliasType("JsonObject", Annotated[dict[str, JsonValue], AfterValidator(_require_finite)])
"""Any JSON object with finite numbers."""

Metadata = TypeAliasType(
    "Metadata",
    Annotated[
        dict[
            Annotated[str, StringConstraints(min_length=1, max_length=40)],
            Annotated[str, StringConstraints(max_length=500)],
        ],
        Field(max_length=16),
    ],
)
"""Key-value pairs for your own use: up to 16, keys of 1 to 40 characters, values of up to 500."""

VariableValue = Annotated[
    JsonValue, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]})
]
"""Value of a variable. Its type is checked against the agent's declaration."""


def digits_to_int(text: object) -> object:
    """Convert a number in a query string, where every value is text."""
    return int(text) if isinstance(text, str) and re.fullmatch("[0-9]{1,15}", text) else text


def dotted_path(steps: Iterable[str | int]) -> str:
    r"""Join keys and positions with dots; a dot or a backslash in a key gets a backslash before it.

    So the key `a.b` has the path `a\.b`, and the key `b` in `a` has `a.b`.
    """
    return ".".join(re.sub(r"[.\\]", r"\\\g<0>", str(step)) for step in steps)


def parse_request(parse: Callable[[], Parsed]) -> Parsed:
    """Run a pydantic parser on a request; raises InvalidRequest with up to 50 details."""
    try:
        return parse()
    except ValidationError as error:
        check_fault_count(error)
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequest(details=map(_detail, errors[:MAX_DETAILS])) from None


def check_fault_count(error: ValidationError) -> None:
    """Raise InvalidRequest without a list if there are more than MAX_FAULTS: pydantic lists all or none."""
    if (count := error.error_count()) > MAX_FAULTS:
        raise InvalidRequest(details=[ErrorDetail("", f"Has {count:,} faults, too many to list.")]) from None


def _detail(error: ErrorDetails) -> ErrorDetail:
    path = dotted_path(step for step in error["loc"] if step != "[key]")
    return ErrorDetail(path, _MESSAGES.get(error["type"], f"{error['msg'].removeprefix('Value error, ')}."))
