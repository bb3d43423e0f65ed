"""What every document that crosses our edge has in common."""

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Document(BaseModel):
    """A JSON document of the API: closed (a typo is an error), frozen, and without silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Item = TypeVar("Item")


class Page(Document, Generic[Item]):
    """One page of a list, newest first; `next_cursor` is None at the end only."""

    data: list[Item]
    next_cursor: str | None = None


class Paging(Document):
    """How much of a list is asked for, and from where on."""

    limit: Annotated[int, Field(ge=1, le=100, strict=False)] = 20
    cursor: str | None = None


Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=40)],
        Annotated[str, StringConstraints(max_length=500)],
    ],
    Field(max_length=16),
]
"""A caller's own notes: up to 16 pairs."""
