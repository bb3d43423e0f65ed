"""The webhooks of a real LiveKit server are still as recorded for the ordinary tests."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.real import capture_webhooks

pytestmark = pytest.mark.real

RECORDED: Final = json.loads(capture_webhooks.FILE.read_text(encoding="utf-8"))["webhooks"]
COUNTED_NOW_AND_THEN: Final = {".room.numParticipants: int", ".room.numPublishers: int"}
"""Updated every five seconds, and absent at 0, so a short call may lack them."""


def test_a_server_sends_what_was_recorded() -> None:
    """Compare the events, their order, headers, claims and fields; ids and times differ each time."""
    sent = asyncio.run(capture_webhooks.record())

    assert [shape_of(webhook) for webhook in sent] == [shape_of(webhook) for webhook in RECORDED]


def shape_of(webhook: dict[str, Any]) -> dict[str, Any]:
    return {
        "event": webhook["event"],
        "headers": webhook["headers"],
        "token": (webhook["token"]["header"], set(webhook["token"]["claims"])),
        "fields": set(fields_of(json.loads(webhook["body"]))) - COUNTED_NOW_AND_THEN,
    }


def fields_of(value: object, path: str = "") -> Iterator[str]:
    """Yield the paths of all fields of a JSON value, with their types."""
    match value:
        case dict():
            for name, inner in value.items():
                yield from fields_of(inner, f"{path}.{name}")
        case list():
            for inner in value:
                yield from fields_of(inner, f"{path}[]")
        case _:
            yield f"{path}: {type(value).__name__}"
