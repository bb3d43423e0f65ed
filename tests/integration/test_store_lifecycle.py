"""Sessions in DynamoDB that are hung up, renewed, failed or scheduled."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.adapters.dynamodb.session_items import DUE_SHARDS
from pi_voice.domain.extractions import ErrorInfo
from pi_voice.domain.ids import SessionId, uuid7
from pi_voice.domain.livekit_webhooks import RoomEvent
from pi_voice.domain.sessions import Session, SessionCompletion
from tests.integration.samples import NOW, TURNS, UNPROVISIONED, a_call_end, a_session
from tests.integration.store import Request, Store, sent_twice

run = asyncio.run

EXPIRED = ErrorInfo(code="expired", message='Never completed: "ä".')
END: SessionCompletion = a_call_end()


def added(store: Store, **changes: Any) -> Session:
    session = a_session(**changes)
    run(store.sessions.add(session))
    return session


def found(store: Store, session: Session) -> Session:
    there = run(store.sessions.get(session.session_id))
    assert there is not None
    return there


def ended(store: Store) -> Session:
    done = run(store.sessions.complete(added(store).session_id, END))
    assert done is not None
    return done


def expired(session: Session) -> Session:
    return session.failed(EXPIRED, "expired", NOW + 5_000, due_at=NOW + 5_000)


def failed(store: Store) -> Session:
    session = a_session().failed(EXPIRED, "expired", NOW)
    run(store.sessions.add(session))
    return session


def due(store: Store, now: int) -> list[SessionId]:
    """Return the sessions that are due."""

    async def ask() -> list[SessionId]:
        return [session_id async for page in store.sessions.due(now) for session_id in page]

    return run(ask())


# ---- Failing ----------------------------------------------------------------------------------------


def test_an_abandoned_session_fails_with_the_reason_and_is_due_for_closing_its_room(store: Store) -> None:
    session = added(store)

    failed_session = run(store.sessions.fail(expired(session)))

    assert failed_session == found(store, session)
    assert failed_session == replace(
        session, status="failed", failed_at=NOW + 5_000, failure=EXPIRED, end_reason="expired", due_at=NOW + 5_000
    )
    assert due(store, NOW + 5_000) == [session.session_id]


def test_a_session_that_could_not_be_provisioned_is_never_due(store: Store) -> None:
    session = added(store)

    failed_session = run(store.sessions.fail(session.failed(UNPROVISIONED, "failed", NOW)))

    assert failed_session == found(store, session) == session.failed(UNPROVISIONED, "failed", NOW)
    assert due(store, session.abandoned_at) == []


def test_failing_a_hung_up_call_keeps_the_reason_of_the_hang_up(store: Store) -> None:
    session = added(store)
    run(store.sessions.hang_up(session.session_id, "stopped", NOW + 60))

    failed_session = run(store.sessions.fail(expired(session)))

    assert failed_session is not None
    assert failed_session.end_reason == "stopped"


def test_a_session_with_checkpoints_does_not_fail(store: Store) -> None:
    session = added(store)
    run(store.checkpoints.append(session, TURNS, 100))

    assert run(store.sessions.fail(expired(session))) is None
    assert found(store, session).status == "active"


def test_a_session_renewed_after_the_sweeper_read_it_does_not_end(store: Store) -> None:
    session = added(store)
    end = a_call_end(expires_at=session.expires_at)
    renewed = run(store.sessions.renew(session.session_id, session.expires_at + 60))

    assert run(store.sessions.fail(expired(session))) is None
    assert run(store.sessions.complete(session.session_id, end)) is None
    assert found(store, session) == renewed
    assert run(store.sessions.complete(session.session_id, replace(end, expires_at=session.expires_at + 60)))


@pytest.mark.parametrize("over", [ended, failed], ids=["completed", "failed"])
def test_a_session_that_has_ended_does_not_fail_again(store: Store, over: Callable[[Store], Session]) -> None:
    session = over(store)

    assert run(store.sessions.fail(expired(session))) is None
    assert found(store, session) == session


def test_a_failure_whose_first_response_was_lost_is_stored(store: Store) -> None:
    session = added(store)

    run(store.through(update_item=sent_twice).sessions.fail(expired(session)))

    assert (found(store, session).status, found(store, session).failed_at) == ("failed", NOW + 5_000)


# ---- Hanging up -------------------------------------------------------------------------------------


def test_a_hung_up_call_stays_active_and_is_due_at_once(store: Store) -> None:
    session = added(store)

    hung_up_session = run(store.sessions.hang_up(session.session_id, "stopped", NOW + 60))

    assert hung_up_session == found(store, session)
    assert hung_up_session == replace(session, hung_up_at=NOW + 60, end_reason="stopped", due_at=NOW + 60)
    assert due(store, NOW + 60) == [session.session_id]


def test_a_second_hang_up_keeps_the_first_time_and_reason_and_is_due_again(store: Store) -> None:
    session = added(store)
    first = run(store.sessions.hang_up(session.session_id, "cap", NOW + 75))
    assert first is not None
    run(store.sessions.schedule(first, session.duties.due_at))

    again = run(store.sessions.hang_up(session.session_id, "stopped", NOW + 90))

    assert again == replace(first, due_at=NOW + 90)


def test_a_hang_up_whose_first_response_was_lost_is_stored_once(store: Store) -> None:
    session = added(store)

    hung_up_session = run(
        store.through(update_item=sent_twice).sessions.hang_up(session.session_id, "stopped", NOW + 60)
    )

    assert (
        hung_up_session
        == found(store, session)
        == replace(session, hung_up_at=NOW + 60, end_reason="stopped", due_at=NOW + 60)
    )


@pytest.mark.parametrize("over", [ended, failed], ids=["completed", "failed"])
def test_a_session_that_has_ended_is_not_hung_up(store: Store, over: Callable[[Store], Session]) -> None:
    session = over(store)

    assert run(store.sessions.hang_up(session.session_id, "stopped", NOW + 300)) is None
    assert found(store, session) == session


# ---- Renewing ---------------------------------------------------------------------------------------


def test_a_renewal_moves_the_expiry_and_not_the_due_time(store: Store) -> None:
    session = added(store)

    renewed = run(store.sessions.renew(session.session_id, NOW + 1_100))

    assert renewed == found(store, session) == replace(session, expires_at=NOW + 1_100)


@pytest.mark.parametrize("expires_at", [NOW + 600, NOW + 900, NOW + 1_100])
def test_a_renewal_never_moves_the_expiry_back(store: Store, expires_at: int) -> None:
    session = added(store)
    further = run(store.sessions.renew(session.session_id, NOW + 1_100))

    assert run(store.sessions.renew(session.session_id, expires_at)) == further
    assert found(store, session).expires_at == NOW + 1_100


def test_a_renewal_whose_first_response_was_lost_is_stored(store: Store) -> None:
    session = added(store)

    renewed = run(store.through(update_item=sent_twice).sessions.renew(session.session_id, NOW + 1_100))

    assert renewed == found(store, session) == replace(session, expires_at=NOW + 1_100)


def hung_up(store: Store) -> Session:
    hung_up_session = run(store.sessions.hang_up(added(store).session_id, "stopped", NOW + 60))
    assert hung_up_session is not None
    return hung_up_session


@pytest.mark.parametrize("expires_at", [NOW + 600, NOW + 1_100])
@pytest.mark.parametrize("over", [ended, failed, hung_up], ids=["completed", "failed", "hung up"])
def test_an_ended_or_hung_up_call_is_not_renewed(
    store: Store, over: Callable[[Store], Session], expires_at: int
) -> None:
    session = over(store)

    assert run(store.sessions.renew(session.session_id, expires_at)) is None
    assert found(store, session) == session


def test_the_latest_expiry_of_concurrent_renewals_is_stored(store: Store) -> None:
    session = added(store)

    def renew(seconds: int) -> Session | None:
        return run(store.sessions.renew(session.session_id, NOW + 600 + seconds))

    with ThreadPoolExecutor(max_workers=8) as clients:
        outcomes = list(clients.map(renew, range(16)))

    assert None not in outcomes
    assert found(store, session).expires_at == NOW + 615


# ---- Unknown sessions -------------------------------------------------------------------------------

Change = Callable[[Store, Session], Coroutine[Any, Any, object]]
CHANGES: dict[str, Change] = {
    "complete": lambda store, session: store.sessions.complete(session.session_id, END),
    "fail": lambda store, session: store.sessions.fail(session.failed(EXPIRED, "expired", NOW, due_at=NOW)),
    "hang up": lambda store, session: store.sessions.hang_up(session.session_id, "stopped", NOW),
    "renew": lambda store, session: store.sessions.renew(session.session_id, NOW + 900),
    "schedule": lambda store, session: store.sessions.schedule(session, NOW),
    "schedule what was never due": lambda store, session: store.sessions.schedule(replace(session, due_at=None), NOW),
    "append": lambda store, session: store.checkpoints.append(session, TURNS, 100),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_write_after_the_deletion_does_not_restore_the_session(store: Store, change: Change) -> None:
    assert run(change(store, a_session())) is None
    assert store.rows(store.names.sessions) == []
    assert store.rows(store.names.transcripts) == []


# ---- Due times --------------------------------------------------------------------------------------


def test_a_session_is_due_at_the_scheduled_time(store: Store) -> None:
    session = added(store)

    run(store.sessions.schedule(session, NOW + 75))

    assert found(store, session) == replace(session, due_at=NOW + 75)
    assert due(store, NOW + 74) == []
    assert due(store, NOW + 75) == [session.session_id]


def test_a_session_without_a_due_time_is_not_in_the_index(store: Store) -> None:
    session = added(store)

    run(store.sessions.schedule(session, None))

    assert found(store, session).duties.due_at is None
    assert "due_shard" not in store.row_of(session)
    assert due(store, NOW + 10**6) == []


def test_a_session_without_a_due_time_can_be_scheduled(store: Store) -> None:
    session = added(store, due_at=None)
    assert "due_shard" not in store.row_of(session)

    run(store.sessions.schedule(session, NOW + 75))

    assert due(store, NOW + 75) == [session.session_id]


@pytest.mark.parametrize("read", [NOW + 4_201, None])
def test_a_schedule_based_on_another_due_time_changes_nothing(store: Store, read: int | None) -> None:
    session = added(store)

    now = run(store.sessions.schedule(replace(session, due_at=read), NOW + 75))

    assert found(store, session) == now == session


def test_a_schedule_after_the_due_time_was_removed_changes_nothing(store: Store) -> None:
    session = added(store)
    run(store.sessions.schedule(session, None))

    run(store.sessions.schedule(session, NOW + 75))

    assert found(store, session).duties.due_at is None


@pytest.mark.parametrize("due_at", [NOW + 75, None, NOW + 4_200])
def test_a_schedule_whose_first_response_was_lost_is_stored(store: Store, due_at: int | None) -> None:
    session = added(store)

    run(store.through(update_item=sent_twice).sessions.schedule(session, due_at))

    assert found(store, session).duties.due_at == due_at


def test_a_schedule_read_before_the_completion_does_not_change_the_new_due_time(store: Store) -> None:
    session = added(store)
    run(store.sessions.complete(session.session_id, a_call_end(due_at=NOW + 320)))

    run(store.sessions.schedule(session, NOW + 75))

    assert found(store, session).duties.due_at == NOW + 320


def test_a_room_event_does_not_change_the_due_time(store: Store) -> None:
    session = added(store)

    merged = run(store.sessions.merge_room_event(RoomEvent(session.session_id, "RM_ours", joined_at=NOW + 5)))

    assert merged is not None
    assert merged.duties.due_at == session.duties.due_at


def test_sessions_are_spread_evenly_over_all_shards(store: Store) -> None:
    sessions = [added(store, session_id=SessionId(f"{uuid7()[:-2]}{number:02x}")) for number in range(2 * DUE_SHARDS)]

    shards = Counter(int(store.row_of(session)["due_shard"]["N"]) for session in sessions)

    assert shards == dict.fromkeys(range(DUE_SHARDS), 2)
    assert sorted(due(store, NOW + 4_200)) == sorted(session.session_id for session in sessions)


def test_all_shards_are_read_in_a_random_order(store: Store) -> None:
    shards_read: list[int] = []

    def noting(query: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            shards_read.append(int(arguments["ExpressionAttributeValues"][":shard"]["N"]))
            return query(**arguments)

        return ask

    noted = store.through(query=noting)
    for _ in range(4):
        assert due(noted, NOW) == []

    orders = [tuple(shards_read[start : start + DUE_SHARDS]) for start in range(0, 4 * DUE_SHARDS, DUE_SHARDS)]
    assert all(sorted(order) == list(range(DUE_SHARDS)) for order in orders)
    assert len(set(orders)) > 1


def in_one_shard(store: Store, number: int) -> list[SessionId]:
    """Fill one shard with sessions, the oldest first."""
    row = store.row_of(added(store, due_at=None))
    ids = [SessionId(f"{uuid7()[:-2]}00") for _ in range(number)]
    shard = {"due_shard": {"N": "0"}}
    store.fill_sessions(
        {**row, **shard, "session_id": {"S": each}, "due_at": {"N": str(NOW - number + place)}}
        for place, each in enumerate(ids)
    )
    return ids


def test_due_sessions_are_read_page_by_page_oldest_first(store: Store) -> None:
    ids = in_one_shard(store, 250)
    limits: list[int] = []

    def counting(query: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            if arguments["ExpressionAttributeValues"][":shard"] == {"N": "0"}:
                limits.append(arguments["Limit"])
            return query(**arguments)

        return ask

    counted = store.through(query=counting).sessions

    async def read(number: int) -> list[SessionId]:
        read_ids: list[SessionId] = []
        async for page in counted.due(NOW):
            read_ids += page
            if len(read_ids) >= number:
                break
        return read_ids

    assert run(read(10)) == ids[:100]
    assert limits == [100]
    limits.clear()
    assert run(read(1_000)) == ids
    assert limits == [100, 100, 100]


def test_sessions_processed_while_paging_do_not_hide_the_others(store: Store) -> None:
    ids = in_one_shard(store, 130)

    async def read_and_do() -> list[SessionId]:
        read_ids: list[SessionId] = []
        async for page in store.sessions.due(NOW):
            read_ids += page
            for session_id in page:
                session = await store.sessions.get(session_id)
                assert session is not None
                await store.sessions.schedule(session, None)
        return read_ids

    assert run(read_and_do()) == ids
    assert due(store, NOW) == []


def test_the_index_of_due_sessions_has_only_keys(store: Store) -> None:
    added(store, session_id=SessionId(f"{uuid7()[:-2]}05"))

    answer = store.dynamodb.query(
        TableName=store.names.sessions,
        IndexName="by_due",
        KeyConditionExpression="due_shard = :shard",
        ExpressionAttributeValues={":shard": {"N": "5"}},
    )

    assert [set(item) for item in answer["Items"]] == [{"session_id", "due_shard", "due_at"}]
