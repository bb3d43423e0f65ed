"""The names by which things are known, and how new ones are made."""

import os
import time
import uuid
from collections.abc import Callable
from typing import NewType

WorkspaceId = NewType("WorkspaceId", str)
AgentId = NewType("AgentId", str)
SessionId = NewType("SessionId", str)
TranscriptId = NewType("TranscriptId", str)
KeyId = NewType("KeyId", str)
KeyHash = NewType("KeyHash", str)

Clock = Callable[[], float]
"""Tells the time in Unix seconds, as `time.time` does."""


def uuid7(clock: Clock = time.time) -> str:
    """Make a UUID of version 7 (RFC 9562, section 5.7), which sorts by the millisecond it was made in."""
    milliseconds = int(clock() * 1000)
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (2**48 - 1)) << 80 | random
    value = value & ~(0xF << 76) | 7 << 76  # version
    value = value & ~(0b11 << 62) | 0b10 << 62  # variant
    return str(uuid.UUID(int=value))


def is_uuid(text: str) -> bool:
    """Tell whether a text is a UUID in the form in which we hand ids out."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
