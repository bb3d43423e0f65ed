"""The rate limit of a workspace: a counter per minute in DynamoDB."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pi_voice.adapters.dynamodb.rates import DynamoRateLimiter
from pi_voice.domain.errors import RateLimited, StorageError
from pi_voice.domain.ids import WorkspaceId
from tests.integration.samples import ACME, GLOBEX, NOW
from tests.integration.store import Request, Store, sent_twice


class Clock:
    """A clock that moves only when a test sets it."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def granted_of(
    store: Store,
    clock: Callable[[], float],
    times: int,
    limit: int = 3,
    workspace: WorkspaceId = ACME,
    operation: str = "creates",
) -> int:
    """Request `times` times, and return how many requests were granted."""
    granted = 0
    for _ in range(times):
        try:
            asyncio.run(store.rates(limit, clock, operation).acquire(workspace))
        except RateLimited:
            continue
        granted += 1
    return granted


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_exactly_the_limit_is_granted_per_minute(store: Store, limit: int) -> None:
    assert granted_of(store, Clock(), limit + 3, limit) == limit


@pytest.mark.parametrize(("into_it", "left"), [(0, 60.0), (0.5, 59.5), (17, 43.0), (59.75, 0.25)])
def test_a_refusal_has_the_time_until_the_next_minute(store: Store, into_it: float, left: float) -> None:
    clock = Clock(NOW + into_it)
    granted_of(store, clock, 3)

    with pytest.raises(RateLimited) as raised:
        asyncio.run(store.rates(3, clock).acquire(ACME))

    assert raised.value.retry_after_seconds == left


def test_requests_are_granted_again_in_the_next_minute(store: Store) -> None:
    clock = Clock(NOW + 59)
    assert granted_of(store, clock, 5) == 3

    clock.now += 1

    assert granted_of(store, clock, 5) == 3


def test_each_workspace_has_its_own_limit(store: Store) -> None:
    assert granted_of(store, Clock(), 5) == 3

    assert granted_of(store, Clock(), 5, workspace=GLOBEX) == 3


def test_each_operation_has_its_own_limit(store: Store) -> None:
    assert granted_of(store, Clock(), 5) == 3

    assert granted_of(store, Clock(), 5, operation="completes") == 3


def test_a_changed_limit_applies_at_once(store: Store) -> None:
    granted_of(store, Clock(), 5, limit=3)

    assert granted_of(store, Clock(), 5, limit=2) == 0
    assert granted_of(store, Clock(), 5, limit=4) == 1


def test_concurrent_requests_are_granted_up_to_the_limit(store: Store) -> None:
    assert store.names.idempotency
    clock = Clock()

    with ThreadPoolExecutor(max_workers=20) as threads:
        granted = sum(threads.map(lambda _: granted_of(store, clock, 2, limit=7), range(20)))

    assert granted == 7


def acquired(limiter: DynamoRateLimiter, times: int) -> int:
    """Request `times` times of one container, and return how many requests were granted."""
    granted = 0
    for _ in range(times):
        try:
            asyncio.run(limiter.acquire(ACME))
        except RateLimited:
            continue
        granted += 1
    return granted


@pytest.mark.parametrize("limit", [1, 2, 45, 200])
def test_one_container_is_granted_exactly_the_limit(store: Store, limit: int) -> None:
    assert acquired(store.rates(limit, Clock()), limit + 5) == limit


def test_one_container_writes_less_often_than_it_has_requests(store: Store) -> None:
    writes: list[int] = []

    def recorded(update: Any) -> Any:
        def ask(**arguments: Any) -> Any:
            writes.append(int(arguments["ExpressionAttributeValues"][":number"]["N"]))
            return update(**arguments)

        return ask

    assert acquired(store.through(update_item=recorded).rates(600, Clock()), 100) == 100
    assert writes == [1, 1, 2, 4, 8, 16, 30, 30, 30]


def test_what_a_container_took_ends_with_the_minute(store: Store) -> None:
    clock = Clock(NOW)
    limiter = store.rates(100, clock)
    acquired(limiter, 9)

    clock.now += 60

    assert acquired(limiter, 105) == 100


def test_a_counter_is_one_row_with_a_ttl_and_a_key_of_its_own(store: Store) -> None:
    granted_of(store, Clock(NOW + 5), 5)

    [row] = store.rows(store.names.idempotency)
    assert row == {
        "id": {"S": f"rate#creates#acme#{NOW // 60}"},
        "taken": {"N": "3"},
        "expiration": {"N": str(NOW + 5 + 3_600)},
    }


def test_a_count_whose_first_response_was_lost_is_counted_at_least_once(store: Store) -> None:
    wrapped = store.through(update_item=sent_twice)

    assert 1 <= granted_of(wrapped, Clock(), 10, limit=4) <= 4


def test_a_table_that_cannot_be_written_is_a_storage_error(store: Store) -> None:
    def refuse(_: Request) -> Request:
        def refused(**arguments: Any) -> Any:
            return store.dynamodb.update_item(**{**arguments, "TableName": "nowhere"})

        return refused

    with pytest.raises(StorageError):
        asyncio.run(store.through(update_item=refuse).rates(3, Clock()).acquire(ACME))
