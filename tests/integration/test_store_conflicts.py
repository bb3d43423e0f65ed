"""Pauses before a write is repeated that conflicts with a transaction."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pi_voice.domain.errors import StorageError
from pi_voice.domain.livekit_webhooks import RoomEvent
from tests.integration.samples import ACME, NOW, a_session, an_agent
from tests.integration.store import Request, Store, canceled

Write = Callable[[Store], Coroutine[Any, Any, object]]

EVENT = RoomEvent(a_session().session_id, "RM", finished_at=NOW)


class PauseRecorder(asyncio.SelectorEventLoop):
    """An event loop that records pauses and does not wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def call_later(self, delay: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        self.pauses.append(delay)
        return super().call_later(0, *args, **kwargs)


def refusing(error: ClientError) -> Callable[[Request], Request]:
    def refuse(**_: Any) -> Any:
        raise error

    return lambda _: refuse


@pytest.mark.parametrize(
    ("write", "operation", "error"),
    [
        (
            lambda store: store.sessions.merge_room_event(EVENT),
            "update_item",
            ClientError({"Error": {"Code": "TransactionConflictException"}}, "UpdateItem"),
        ),
        (
            lambda store: store.agents.save(ACME, an_agent()),
            "transact_write_items",
            canceled("TransactionConflict", "None"),
        ),
    ],
    ids=["a write of one row", "a transaction"],
)
def test_the_pauses_start_at_10_to_20_milliseconds_and_double(
    store: Store, write: Write, operation: str, error: ClientError
) -> None:
    loop = PauseRecorder()
    with asyncio.Runner(loop_factory=lambda: loop) as runner, pytest.raises(StorageError):
        runner.run(write(store.through(**{operation: refusing(error)})))

    assert len(loop.pauses) == 5
    assert all(0.01 * 2**number <= pause <= 0.02 * 2**number for number, pause in enumerate(loop.pauses))
