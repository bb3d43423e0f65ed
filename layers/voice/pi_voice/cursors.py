"""Opaque cursors: where the next page of a list starts.

A cursor holds nothing but the id of the last row that was read. The workspace always comes from the caller's
key, so a cursor that somebody makes up can skip rows of their own and show nothing of anybody else's.
"""

import base64
import binascii
import uuid

from pi_voice.errors import InvalidCursor


def encode(last_id: str) -> str:
    """Make the cursor that goes on after a row."""
    return base64.urlsafe_b64encode(uuid.UUID(last_id).bytes).decode().rstrip("=")


def decode(cursor: str) -> str:
    """Read the id after which to go on; raises InvalidCursor for anything that `encode` did not make."""
    try:
        last_id = str(uuid.UUID(bytes=base64.urlsafe_b64decode(cursor + "==")))
    except (ValueError, binascii.Error) as fault:
        raise InvalidCursor from fault
    if encode(last_id) != cursor:
        raise InvalidCursor
    return last_id
