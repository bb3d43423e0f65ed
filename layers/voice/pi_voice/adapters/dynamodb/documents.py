"""Stored JSON documents, which a newer or an older version of the code may have written.

Unknown fields are ignored, and missing ones have their defaults. A value that exceeds a limit of this version is kept,
such as an enum member that only a newer version knows. Everything else raises ValueError. Requests are read strictly.
"""

import json
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pi_voice.domain.transcripts import TURNS, TranscriptTurn

_LIMITS: Final = {
    "greater_than_equal",
    "less_than_equal",
    "literal_error",
    "string_pattern_mismatch",
    "string_too_long",
    "string_too_short",
    "too_long",
    "too_short",
    "union_tag_invalid",
}
"""Errors of values that have the right type."""

Model = TypeVar("Model", bound=BaseModel)


def read_document(model: type[Model], text: str | bytes) -> Model:
    """Read a stored document; raises ValueError."""
    try:
        return model.model_validate_json(text, extra="ignore")
    except ValidationError as error:
        _require_known_types(error)
    document: Model = _construct(model, json.loads(text))
    return document


def read_turns(text: str | bytes) -> list[TranscriptTurn]:
    """Read stored turns; raises ValueError."""
    try:
        return TURNS.validate_json(text, extra="ignore")
    except ValidationError as error:
        _require_known_types(error)
    known = TranscriptTurn.__annotations__
    turns: list[Any] = [{name: turn[name] for name in known if name in turn} for turn in json.loads(text)]
    return turns


def _require_known_types(error: ValidationError) -> None:
    for each in error.errors(include_url=False, include_context=False):
        is_enum = each["type"] == "literal_error"
        if each["type"] not in _LIMITS or (is_enum and not isinstance(each["input"], str)):
            raise error


def _construct(kind: Any, value: Any) -> Any:
    """Build documents from JSON of the right types, without checks."""
    kind = getattr(kind, "__value__", kind)  # of a named type
    if get_origin(kind) is Annotated:
        return _construct(get_args(kind)[0], value)
    if get_origin(kind) is tuple:
        return tuple(_construct(get_args(kind)[0], each) for each in value)
    if get_origin(kind) is dict:
        return {name: _construct(get_args(kind)[1], each) for name, each in value.items()}
    if get_origin(kind) in (Union, UnionType) and value is not None:
        return _construct(_member(get_args(kind), value), value)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = {name: field.annotation for name, field in kind.model_fields.items() if name in value}
        return kind.model_construct(**{name: _construct(fields[name], value[name]) for name in fields})
    return value


def _member(kinds: tuple[Any, ...], value: Any) -> Any:
    """Return the type of a union that fits a value: of several documents, the one that has most of its fields."""
    kinds = tuple(kind for kind in kinds if kind is not NoneType)
    if len(kinds) == 1:
        return kinds[0]
    documents = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    if isinstance(value, dict) and documents:
        return max(documents, key=lambda kind: len(kind.model_fields.keys() & value.keys()))
    return object  # as it is
