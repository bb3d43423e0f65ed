"""Pages of a list, and the opaque cursors between them.

A cursor contains only the id of the last row. The workspace always comes from the caller's API key, so a forged cursor
can skip rows of the caller's own workspace and reveals no others.
"""

import base64
import binascii
import uuid
from typing import Annotated, Generic, TypeVar

from pydantic import BeforeValidator, Field

from pi_voice.domain.base import Document, digits_to_int
from pi_voice.domain.errors import InvalidCursor

Item = TypeVar("Item")


class Page(Document, Generic[Item]):
    """One page of a list."""

    data: list[Item]
    """Items of this page."""
    next_cursor: str | None = None
    """Cursor of the next page; null on the last page."""


class PageQuery(Document):
    """Query parameters of a list."""

    limit: Annotated[int, BeforeValidator(digits_to_int), Field(ge=1, le=100)] = 20
    """Maximum number of items on the page, 1 to 100."""
    cursor: str | None = None
    """`next_cursor` of the previous page."""


def encode_cursor(last_id: str) -> str:
    """Encode the id of the last row of a page."""
    return base64.urlsafe_b64encode(uuid.UUID(last_id).bytes).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """Return the id in a cursor; raises InvalidCursor for anything `encode_cursor` did not return."""
    try:
        last_id = str(uuid.UUID(bytes=base64.urlsafe_b64decode(cursor + "==")))
    except (ValueError, binascii.Error) as error:
        raise InvalidCursor from error
    if encode_cursor(last_id) != cursor:
        raise InvalidCursor
    return last_id
