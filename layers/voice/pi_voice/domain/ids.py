"""Types of ids, and UUIDs."""

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
EndpointId = NewType("EndpointId", str)
EventId = NewType("EventId", str)
DeliveryId = NewType("DeliveryId", str)

Clock = Callable[[], float]
"""Function that returns the time in Unix seconds, such as `time.time`."""


def uuid7(clock: Clock = time.time) -> str:
    """Return a new UUID of version 7 (RFC 9562, section 5.7), which sorts by its creation time in milliseconds."""
    milliseconds = int(clock() * 1000)
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (2**48 - 1)) << 80 | random
    value = value & ~(0xF << 76) | 7 << 76  # version
    value = value & ~(0b11 << 62) | 0b10 << 62  # variant
    return str(uuid.UUID(int=value))


def lowest_uuid7(seconds: int) -> int:
    """Return the number that no UUID of version 7 made from a time on is below, and every earlier one is."""
    return seconds * 1000 << 80


def is_uuid(text: str) -> bool:
    """Return whether a text is a UUID in lowercase with hyphens, as all our ids are."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
