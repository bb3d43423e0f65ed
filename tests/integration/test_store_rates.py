"""How often a workspace may do what costs money: a counter for each minute in DynamoDB."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pi_voice.domain.errors import RateLimited, StorageError
from pi_voice.domain.ids import WorkspaceId
from tests.integration.samples import ACME, GLOBEX, NOW
from tests.integration.store import Request, Store, asked_twice


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def taken(store: Store, clock: Callable[[], float], times: int, limit: int = 3, workspace: WorkspaceId = ACME) -> int:
    """Ask so often, and return how often it was granted."""
    granted = 0
    for _ in range(times):
        try:
            asyncio.run(store.rates(limit, clock).acquire(workspace))
        except RateLimited:
            continue
        granted += 1
    return granted


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_so_many_a_minute_are_granted_and_not_one_more(store: Store, limit: int) -> None:
    assert taken(store, Clock(), limit + 3, limit) == limit


@pytest.mark.parametrize(("into_it", "left"), [(0, 60.0), (0.5, 59.5), (17, 43.0), (59.75, 0.25)])
def test_who_is_refused_learns_when_the_minute_is_over(store: Store, into_it: float, left: float) -> None:
    clock = Clock(NOW + into_it)
    taken(store, clock, 3)

    with pytest.raises(RateLimited) as refusal:
        asyncio.run(store.rates(3, clock).acquire(ACME))

    assert refusal.value.retry_after_seconds == left


def test_after_the_pause_that_was_asked_for_the_next_minute_is_free(store: Store) -> None:
    clock = Clock(NOW + 59)
    assert taken(store, clock, 5) == 3

    clock.now += 1

    assert taken(store, clock, 5) == 3


def test_another_workspace_has_a_minute_of_its_own(store: Store) -> None:
    assert taken(store, Clock(), 5) == 3

    assert taken(store, Clock(), 5, workspace=GLOBEX) == 3


def test_a_limit_that_was_changed_holds_at_once(store: Store) -> None:
    taken(store, Clock(), 5, limit=3)

    assert taken(store, Clock(), 5, limit=2) == 0
    assert taken(store, Clock(), 5, limit=4) == 1


def test_of_many_at_once_never_more_than_the_limit_are_granted(store: Store) -> None:
    assert store.names.idempotency
    clock = Clock()

    with ThreadPoolExecutor(max_workers=20) as threads:
        granted = sum(threads.map(lambda _: taken(store, clock, 2, limit=7), range(20)))

    assert granted == 7


def test_a_counter_is_one_row_that_disappears_by_itself_and_is_nobody_s_idempotency_key(store: Store) -> None:
    taken(store, Clock(NOW + 5), 5)

    [row] = store.rows(store.names.idempotency)
    assert row == {
        "id": {"S": f"rate#acme#{NOW // 60}"},
        "taken": {"N": "3"},
        "expiration": {"N": str(NOW + 5 + 3_600)},
    }


def test_a_count_whose_first_answer_got_lost_is_never_one_too_few(store: Store) -> None:
    wrapped = store.through(update_item=asked_twice)

    assert 1 <= taken(wrapped, Clock(), 10, limit=4) <= 4


def test_a_table_that_cannot_be_written_is_a_storage_error_and_grants_nothing(store: Store) -> None:
    def refuse(_: Request) -> Request:
        def refused(**arguments: Any) -> Any:
            return store.service.ask("UpdateItem", {**arguments, "TableName": "nowhere"})

        return refused

    with pytest.raises(StorageError):
        asyncio.run(store.through(update_item=refuse).rates(3, Clock()).acquire(ACME))
