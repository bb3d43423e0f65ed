"""Deliveries to webhook endpoints in DynamoDB."""

import asyncio
import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.adapters.dynamodb.attributes import to_item
from pi_voice.adapters.dynamodb.webhook_deliveries import MAX_ROWS_READ
from pi_voice.domain.errors import InvalidCursor, UnreadableRow
from pi_voice.domain.ids import DeliveryId, EndpointId, EventId, SessionId
from pi_voice.domain.webhook_deliveries import DUE_SHARDS, RETENTION_SECONDS, Delivery, Outcome
from pi_voice.domain.webhook_delivery_api import ListWebhookDeliveriesQuery
from pi_voice.ports import DueDelivery
from tests.integration.samples import NOW, a_delivery, id_made_at
from tests.integration.store import Row, Store, never_sent, sent_twice

run = asyncio.run

DAY = 86_400
OTHER_ENDPOINT = EndpointId("019a0000-0000-7000-8000-0000000000e2")
OTHER_SESSION = SessionId("019a0000-0000-7000-8000-000000000009")
FAILED = Outcome("failed", 500, 34, "http_error", None)
RETRIED = Outcome("pending", None, 15_000, "timeout", None)
SUCCEEDED = Outcome("succeeded", 204, 12, None, "thanks")


def added(store: Store, delivery: Delivery) -> Delivery:
    assert run(store.webhook_deliveries.add(delivery))
    return delivery


def found(store: Store, delivery: Delivery) -> Delivery | None:
    return run(store.webhook_deliveries.find(delivery.endpoint_id, delivery.delivery_id))


def fill(store: Store, deliveries: Iterable[Delivery]) -> None:
    """Write many pending deliveries with few requests."""
    [row] = [row_of(store, added(store, a_delivery(endpoint_id=OTHER_ENDPOINT, due_at=None)))]
    own = {"endpoint_id", "delivery_id", "event_id", "due_at", "due_shard"}
    store.fill(
        store.names.webhook_deliveries,
        ({**row, **to_item({name: getattr(each, name) for name in own})} for each in deliveries),
    )


def row_of(store: Store, delivery: Delivery) -> Row:
    [row] = [
        row for row in store.rows(store.names.webhook_deliveries) if row["delivery_id"]["S"] == delivery.delivery_id
    ]
    return row


def due(store: Store, now: int = NOW) -> list[DueDelivery]:
    async def read() -> list[DueDelivery]:
        return [each async for page in store.webhook_deliveries.due(now) for each in page]

    return run(read())


def listed(delivery: Delivery) -> DueDelivery:
    assert delivery.due_at is not None
    return DueDelivery(delivery.endpoint_id, delivery.delivery_id, delivery.due_at)


def claimed(store: Store, delivery: Delivery, now: int = NOW) -> Delivery:
    claimed = run(store.webhook_deliveries.claim(delivery, now, now + 55))
    assert claimed is not None
    return claimed


# ---- Add and find -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "delivery",
    [
        a_delivery(),
        a_delivery(type="endpoint.test", session_id=None),
        a_delivery(
            status="succeeded",
            tries=3,
            due_at=None,
            tried_at=NOW,
            http_status=200,
            milliseconds=0,
            error="timeout",
            response="é 🏥",
            redeliveries=2,
            redelivered_at=NOW + 7,
        ),
    ],
)
def test_an_added_delivery_is_found_with_all_fields(store: Store, delivery: Delivery) -> None:
    added(store, delivery)

    assert found(store, delivery) == delivery


def test_a_delivery_is_added_once_and_stays_as_it_became(store: Store) -> None:
    delivery = added(store, a_delivery())
    tried = claimed(store, delivery)

    assert not run(store.webhook_deliveries.add(delivery))

    assert found(store, delivery) == tried


def test_a_delivery_stays_in_the_log_for_30_days(store: Store) -> None:
    delivery = added(store, a_delivery())

    assert row_of(store, delivery)["ttl"] == {"N": str(delivery.created_at + 30 * DAY)}


@pytest.mark.parametrize(
    ("endpoint_id", "delivery_id"),
    [
        ("", ""),
        ("x", "y"),
        (OTHER_ENDPOINT, "x"),
        (OTHER_ENDPOINT, f"x.{OTHER_ENDPOINT}"),
        (OTHER_ENDPOINT, "019a0000-0000-7000-8000-0000000000f1.019a0000-0000-7000-8000-0000000000e1"),
        (OTHER_ENDPOINT, "x" * 2_000),
    ],
)
def test_an_id_that_is_no_id_of_a_delivery_sends_no_request(store: Store, endpoint_id: str, delivery_id: str) -> None:
    unsent = store.through(get_item=never_sent)

    assert run(unsent.webhook_deliveries.find(EndpointId(endpoint_id), DeliveryId(delivery_id))) is None


def test_an_unknown_delivery_is_not_found(store: Store) -> None:
    assert found(store, a_delivery()) is None


def test_an_attribute_of_another_version_is_ignored_and_missing_ones_have_defaults(store: Store) -> None:
    delivery = added(store, a_delivery())
    row = row_of(store, delivery)
    for name in ("redeliveries", "tries", "status"):
        del row[name]
    store.dynamodb.put_item(TableName=store.names.webhook_deliveries, Item={**row, **to_item({"future": {"a": [1]}})})

    assert found(store, delivery) == delivery


def test_a_broken_row_is_logged_by_its_key_and_left_out_of_lists(store: Store, logged: io.StringIO) -> None:
    delivery = added(store, a_delivery())
    row = row_of(store, delivery)
    del row["event_at"]
    store.dynamodb.put_item(TableName=store.names.webhook_deliveries, Item=row)

    with pytest.raises(UnreadableRow):
        found(store, delivery)
    page = run(store.webhook_deliveries.page(delivery.endpoint_id, ListWebhookDeliveriesQuery()))
    with pytest.raises(UnreadableRow):
        run(store.webhook_deliveries.put_off(listed(delivery), NOW + 60))

    assert page.data == []
    assert delivery.delivery_id in logged.getvalue()
    assert "row_unreadable" in logged.getvalue()


# ---- Lists ------------------------------------------------------------------------------------------


def newest_first(store: Store, count: int, **changes: Any) -> list[Delivery]:
    made = [added(store, a_delivery(event_id=id_made_at(NOW + second), **changes)) for second in range(count)]
    return made[::-1]


def pages(store: Store, endpoint_id: EndpointId, **query: Any) -> Iterator[list[Delivery]]:
    cursor = None
    while True:
        page = run(store.webhook_deliveries.page(endpoint_id, ListWebhookDeliveriesQuery(**query, cursor=cursor)))
        yield page.data
        if (cursor := page.next_cursor) is None:
            return


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (100, [5])])
def test_a_list_has_pages_newest_first_and_only_of_its_endpoint(store: Store, limit: int, sizes: list[int]) -> None:
    deliveries = newest_first(store, 5)
    newest_first(store, 3, endpoint_id=OTHER_ENDPOINT)

    found = list(pages(store, deliveries[0].endpoint_id, limit=limit))

    assert [len(page) for page in found] == sizes
    assert [each for page in found for each in page] == deliveries


def test_an_endpoint_without_deliveries_has_an_empty_list(store: Store) -> None:
    assert list(pages(store, OTHER_ENDPOINT)) == [[]]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_list_may_be_that_of_one_session(store: Store, limit: int) -> None:
    wanted: list[Delivery] = []
    for second in range(9):
        session_id = OTHER_SESSION if second % 3 == 0 else SessionId("019a0000-0000-7000-8000-000000000002")
        made = added(store, a_delivery(event_id=id_made_at(NOW + second), session_id=session_id))
        wanted = [made, *wanted] if session_id == OTHER_SESSION else wanted

    found = list(pages(store, wanted[0].endpoint_id, limit=limit, session_id=OTHER_SESSION))

    assert [each for page in found for each in page] == wanted
    assert all(len(page) <= limit for page in found)


def test_a_list_of_one_session_reads_a_bounded_number_of_rows_a_page(store: Store) -> None:
    oldest = added(store, a_delivery(event_id=id_made_at(NOW - 1), session_id=OTHER_SESSION))
    fill(store, (a_delivery(event_id=id_made_at(NOW + second)) for second in range(MAX_ROWS_READ + 50)))

    found = list(pages(store, oldest.endpoint_id, session_id=OTHER_SESSION))

    assert found == [[], [oldest]]


@pytest.mark.parametrize("cursor", ["x", "", "AZoAAAAAcACAAAAAAAAA8Q==", "é"])
def test_a_cursor_that_no_list_returned_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        run(store.webhook_deliveries.page(OTHER_ENDPOINT, ListWebhookDeliveriesQuery(cursor=cursor)))


# ---- What is due ------------------------------------------------------------------------------------


def test_deliveries_are_due_at_their_time(store: Store) -> None:
    now, past, future = (added(store, a_delivery(due_at=at)) for at in (NOW, NOW - DAY, NOW + 1))
    added(store, a_delivery(due_at=None, status="succeeded"))

    assert sorted(due(store)) == sorted([listed(now), listed(past)])
    assert sorted(due(store, NOW + 1)) == sorted([listed(now), listed(past), listed(future)])


def test_due_deliveries_of_one_endpoint_spread_over_all_partitions(store: Store) -> None:
    ids = [EventId(f"019a0000-0000-7000-8000-{number:012x}") for number in range(40)]
    deliveries = [added(store, a_delivery(event_id=each)) for each in ids]

    assert {int(row_of(store, each)["due_shard"]["N"]) for each in deliveries} == set(range(DUE_SHARDS))
    assert sorted(due(store)) == sorted(map(listed, deliveries))


def test_due_deliveries_of_one_partition_are_read_in_pages_the_oldest_first(store: Store) -> None:
    ids = [EventId(f"019a0000-0000-7000-8000-{number:010x}00") for number in range(250)]
    deliveries = [a_delivery(event_id=each, due_at=NOW - number) for number, each in enumerate(ids)]
    fill(store, deliveries)

    assert due(store) == [listed(each) for each in reversed(deliveries)]


def test_a_due_delivery_is_put_off_once(store: Store) -> None:
    delivery = added(store, a_delivery())

    moved = run(store.webhook_deliveries.put_off(listed(delivery), NOW + 60))
    again = run(store.webhook_deliveries.put_off(listed(delivery), NOW + 90))

    assert moved == replace(delivery, due_at=NOW + 60)
    assert again is None
    assert due(store) == []
    assert found(store, delivery) == moved


def test_a_delivery_that_has_ended_or_expired_is_not_put_off(store: Store) -> None:
    delivery = added(store, a_delivery())
    run(store.webhook_deliveries.cancel(delivery))

    assert run(store.webhook_deliveries.put_off(listed(delivery), NOW + 60)) is None
    assert run(store.webhook_deliveries.put_off(listed(a_delivery()), NOW + 60)) is None
    assert len(store.rows(store.names.webhook_deliveries)) == 1


# ---- Tries ------------------------------------------------------------------------------------------


def test_a_claim_counts_a_try_and_sets_the_time_of_the_next(store: Store) -> None:
    delivery = added(store, a_delivery())

    tried = claimed(store, delivery, NOW + 2)

    assert tried == replace(delivery, tries=1, tried_at=NOW + 2, due_at=NOW + 57)
    assert found(store, delivery) == tried


def test_a_try_is_claimed_once(store: Store) -> None:
    delivery = added(store, a_delivery())
    claimed(store, delivery)

    assert run(store.webhook_deliveries.claim(delivery, NOW + 1, NOW + 60)) is None


def test_of_many_workers_one_claims_a_try(store: Store) -> None:
    delivery = added(store, a_delivery())

    async def race() -> list[Delivery | None]:
        claims = [store.webhook_deliveries.claim(delivery, NOW, NOW + 50 + number) for number in range(6)]
        return list(await asyncio.gather(*claims))

    assert sum(claim is not None for claim in run(race())) == 1


def test_a_claim_whose_response_was_lost_is_one_claim(store: Store) -> None:
    delivery = added(store, a_delivery())

    tried = run(store.through(update_item=sent_twice).webhook_deliveries.claim(delivery, NOW, NOW + 55))

    assert tried == replace(delivery, tries=1, tried_at=NOW, due_at=NOW + 55)


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED])
def test_an_outcome_that_ends_a_delivery_takes_it_out_of_the_index(store: Store, outcome: Outcome) -> None:
    tried = claimed(store, added(store, a_delivery()))

    done = run(store.webhook_deliveries.record(tried, outcome))

    assert done == replace(tried, **outcome._asdict(), due_at=None)
    assert found(store, tried) == done
    assert due(store, NOW + DAY) == []
    assert row_of(store, tried).keys().isdisjoint({"due_at", "due_shard"})


def test_a_pending_delivery_stays_due_when_its_claim_said(store: Store) -> None:
    tried = claimed(store, added(store, a_delivery()))

    again = run(store.webhook_deliveries.record(tried, RETRIED))

    assert again == replace(tried, milliseconds=15_000, error="timeout")
    assert due(store, NOW + 55) == [listed(tried)]


def test_a_later_outcome_replaces_all_of_an_earlier_one(store: Store) -> None:
    first = claimed(store, added(store, a_delivery()))
    failed = run(store.webhook_deliveries.record(first, Outcome("pending", 500, 1, "http_error", "no")))
    assert failed is not None
    second = claimed(store, failed)

    again = run(store.webhook_deliveries.record(second, RETRIED))

    assert again == replace(second, http_status=None, milliseconds=15_000, error="timeout", response=None)


def test_the_outcome_of_an_earlier_try_changes_nothing(store: Store) -> None:
    first = claimed(store, added(store, a_delivery()))
    second = claimed(store, first, NOW + 60)

    assert run(store.webhook_deliveries.record(first, SUCCEEDED)) is None

    assert found(store, first) == second


def test_a_cancelled_delivery_is_not_due_any_more(store: Store) -> None:
    delivery = added(store, a_delivery())

    done = run(store.webhook_deliveries.cancel(delivery))

    assert done == replace(delivery, status="cancelled", due_at=None)
    assert due(store) == []
    assert run(store.webhook_deliveries.cancel(delivery)) is None


def test_no_transition_makes_a_row_that_is_not_there(store: Store) -> None:
    delivery, deliveries = a_delivery(), store.webhook_deliveries

    for change in (
        deliveries.claim(delivery, NOW, NOW + 60),
        deliveries.record(delivery, SUCCEEDED),
        deliveries.cancel(delivery),
        deliveries.redeliver(delivery, NOW),
    ):
        assert run(change) is None

    assert store.rows(store.names.webhook_deliveries) == []


# ---- Deliver again ----------------------------------------------------------------------------------


@pytest.mark.parametrize("redeliveries", [0, 1, 12])
def test_a_delivery_that_is_delivered_again_is_due_with_all_its_tries(store: Store, redeliveries: int) -> None:
    ended = added(
        store,
        a_delivery(status="failed", tries=8, due_at=None, http_status=500, error="x", redeliveries=redeliveries),
    )

    again = run(store.webhook_deliveries.redeliver(ended, NOW + DAY))

    assert again == replace(
        ended,
        status="pending",
        tries=0,
        redeliveries=redeliveries + 1,
        redelivered_at=NOW + DAY,
        due_at=NOW + DAY,
    )
    assert due(store, NOW + DAY) == [listed(again)]
    assert row_of(store, ended)["ttl"] == {"N": str(NOW + DAY + RETENTION_SECONDS)}


def test_a_delivery_is_delivered_again_once_for_requests_at_the_same_time(store: Store) -> None:
    ended = added(store, a_delivery(status="failed", tries=8, due_at=None))

    async def race() -> list[Delivery | None]:
        return list(await asyncio.gather(*(store.webhook_deliveries.redeliver(ended, NOW) for _ in range(4))))

    assert sum(each is not None for each in run(race())) == 1


def test_a_message_from_before_is_out_of_date_after_a_redelivery(store: Store) -> None:
    before = added(store, a_delivery(status="failed", tries=0, due_at=None))
    again = run(store.webhook_deliveries.redeliver(before, NOW))
    assert again is not None

    assert run(store.webhook_deliveries.claim(replace(again, redeliveries=0), NOW, NOW + 60)) is None
    assert again.next_try != before.next_try
