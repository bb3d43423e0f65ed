"""What happens to sessions in DynamoDB that nobody completed, or that go on: hung up, renewed, given up, and when."""

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
from tests.integration.store import Request, Store, asked_twice

run = asyncio.run

EXPIRED = ErrorInfo(code="expired", message='Nobody came: "ä".')
END: SessionCompletion = a_call_end()


def kept(store: Store, **changes: Any) -> Session:
    session = a_session(**changes)
    run(store.sessions.add(session))
    return session


def found(store: Store, session: Session) -> Session:
    there = run(store.sessions.get(session.session_id))
    assert there is not None
    return there


def ended(store: Store) -> Session:
    done = run(store.sessions.complete(kept(store).session_id, END))
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
        return [session_id async for session_id in store.sessions.due(now)]

    return run(ask())


# ---- Failing ----------------------------------------------------------------------------------------


def test_a_session_that_nobody_completed_fails_with_the_reason_and_its_room_has_to_go(store: Store) -> None:
    session = kept(store)

    gone = run(store.sessions.fail(expired(session)))

    assert gone == found(store, session)
    assert gone == replace(
        session, status="failed", failed_at=NOW + 5_000, failure=EXPIRED, end_reason="expired", due_at=NOW + 5_000
    )
    assert due(store, NOW + 5_000) == [session.session_id]


def test_a_session_that_could_not_be_provisioned_is_never_due(store: Store) -> None:
    session = kept(store)

    gone = run(store.sessions.fail(session.failed(UNPROVISIONED, "failed", NOW)))

    assert gone == found(store, session) == session.failed(UNPROVISIONED, "failed", NOW)
    assert due(store, session.abandoned_at) == []


def test_what_a_call_was_hung_up_for_stays_its_reason_when_it_fails(store: Store) -> None:
    session = kept(store)
    run(store.sessions.hang_up(session.session_id, "stopped", NOW + 60))

    gone = run(store.sessions.fail(expired(session)))

    assert gone is not None
    assert gone.end_reason == "stopped"


def test_a_session_of_which_turns_were_kept_does_not_fail(store: Store) -> None:
    session = kept(store)
    run(store.checkpoints.append(session, TURNS, 100))

    assert run(store.sessions.fail(expired(session))) is None
    assert found(store, session).status == "active"


def test_a_session_that_was_renewed_since_it_was_given_up_does_not_end(store: Store) -> None:
    session = kept(store)
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


def test_a_failure_whose_first_answer_got_lost_has_happened(store: Store) -> None:
    session = kept(store)

    run(store.through(update_item=asked_twice).sessions.fail(expired(session)))

    assert (found(store, session).status, found(store, session).failed_at) == ("failed", NOW + 5_000)


# ---- Hanging up -------------------------------------------------------------------------------------


def test_a_call_that_is_hung_up_stays_active_and_is_due_at_once(store: Store) -> None:
    session = kept(store)

    noted = run(store.sessions.hang_up(session.session_id, "stopped", NOW + 60))

    assert noted == found(store, session)
    assert noted == replace(session, hung_up_at=NOW + 60, end_reason="stopped", due_at=NOW + 60)
    assert due(store, NOW + 60) == [session.session_id]


def test_the_first_time_and_its_reason_stand_and_it_is_due_again(store: Store) -> None:
    session = kept(store)
    first = run(store.sessions.hang_up(session.session_id, "cap", NOW + 75))
    assert first is not None
    run(store.sessions.schedule(first, session.due_at))

    again = run(store.sessions.hang_up(session.session_id, "stopped", NOW + 90))

    assert again == replace(first, due_at=NOW + 90)


def test_a_hang_up_whose_first_answer_got_lost_has_happened_once(store: Store) -> None:
    session = kept(store)

    noted = run(store.through(update_item=asked_twice).sessions.hang_up(session.session_id, "stopped", NOW + 60))

    assert (
        noted == found(store, session) == replace(session, hung_up_at=NOW + 60, end_reason="stopped", due_at=NOW + 60)
    )


@pytest.mark.parametrize("over", [ended, failed], ids=["completed", "failed"])
def test_a_session_that_has_ended_is_not_hung_up(store: Store, over: Callable[[Store], Session]) -> None:
    session = over(store)

    assert run(store.sessions.hang_up(session.session_id, "stopped", NOW + 300)) is None
    assert found(store, session) == session


# ---- Renewing ---------------------------------------------------------------------------------------


def test_a_call_that_is_renewed_has_more_time_and_is_due_as_it_was(store: Store) -> None:
    session = kept(store)

    renewed = run(store.sessions.renew(session.session_id, NOW + 1_100))

    assert renewed == found(store, session) == replace(session, expires_at=NOW + 1_100)


@pytest.mark.parametrize("expires_at", [NOW + 600, NOW + 900, NOW + 1_100])
def test_a_renewal_takes_no_time_away_that_another_gave(store: Store, expires_at: int) -> None:
    session = kept(store)
    further = run(store.sessions.renew(session.session_id, NOW + 1_100))

    assert run(store.sessions.renew(session.session_id, expires_at)) == further
    assert found(store, session).expires_at == NOW + 1_100


def test_a_renewal_whose_first_answer_got_lost_has_happened(store: Store) -> None:
    session = kept(store)

    renewed = run(store.through(update_item=asked_twice).sessions.renew(session.session_id, NOW + 1_100))

    assert renewed == found(store, session) == replace(session, expires_at=NOW + 1_100)


def hung_up(store: Store) -> Session:
    noted = run(store.sessions.hang_up(kept(store).session_id, "stopped", NOW + 60))
    assert noted is not None
    return noted


@pytest.mark.parametrize("expires_at", [NOW + 600, NOW + 1_100])
@pytest.mark.parametrize("over", [ended, failed, hung_up], ids=["completed", "failed", "hung up"])
def test_a_call_that_is_over_is_not_renewed(store: Store, over: Callable[[Store], Session], expires_at: int) -> None:
    session = over(store)

    assert run(store.sessions.renew(session.session_id, expires_at)) is None
    assert found(store, session) == session


def test_of_renewals_at_once_the_furthest_stands(store: Store) -> None:
    session = kept(store)

    def renew(seconds: int) -> Session | None:
        return run(store.sessions.renew(session.session_id, NOW + 600 + seconds))

    with ThreadPoolExecutor(max_workers=8) as clients:
        outcomes = list(clients.map(renew, range(16)))

    assert None not in outcomes
    assert found(store, session).expires_at == NOW + 615


# ---- Sessions that are not there --------------------------------------------------------------------

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
def test_what_comes_after_the_deletion_brings_nothing_back(store: Store, change: Change) -> None:
    assert run(change(store, a_session())) is None
    assert store.rows(store.names.sessions) == []
    assert store.rows(store.names.transcripts) == []


# ---- When a session is due --------------------------------------------------------------------------


def test_a_session_is_looked_at_when_it_was_last_said(store: Store) -> None:
    session = kept(store)

    run(store.sessions.schedule(session, NOW + 75))

    assert found(store, session) == replace(session, due_at=NOW + 75)
    assert due(store, NOW + 74) == []
    assert due(store, NOW + 75) == [session.session_id]


def test_a_session_that_is_never_due_is_not_in_the_index(store: Store) -> None:
    session = kept(store)

    run(store.sessions.schedule(session, None))

    assert found(store, session).due_at is None
    assert "due_shard" not in store.row_of(session)
    assert due(store, NOW + 10**6) == []


def test_a_session_that_was_never_due_can_be_made_so(store: Store) -> None:
    session = kept(store, due_at=None)
    assert "due_shard" not in store.row_of(session)

    run(store.sessions.schedule(session, NOW + 75))

    assert due(store, NOW + 75) == [session.session_id]


@pytest.mark.parametrize("read", [NOW + 4_201, None])
def test_who_read_another_time_changes_nothing(store: Store, read: int | None) -> None:
    session = kept(store)

    now = run(store.sessions.schedule(replace(session, due_at=read), NOW + 75))

    assert found(store, session) == now == session


def test_who_read_that_it_is_due_changes_nothing_where_it_is_not_any_more(store: Store) -> None:
    session = kept(store)
    run(store.sessions.schedule(session, None))

    run(store.sessions.schedule(session, NOW + 75))

    assert found(store, session).due_at is None


@pytest.mark.parametrize("due_at", [NOW + 75, None, NOW + 4_200])
def test_a_schedule_whose_first_answer_got_lost_stands(store: Store, due_at: int | None) -> None:
    session = kept(store)

    run(store.through(update_item=asked_twice).sessions.schedule(session, due_at))

    assert found(store, session).due_at == due_at


def test_a_schedule_that_was_read_before_the_end_changes_nothing_about_what_comes_after_it(store: Store) -> None:
    session = kept(store)
    run(store.sessions.complete(session.session_id, a_call_end(due_at=NOW + 320)))

    run(store.sessions.schedule(session, NOW + 75))

    assert found(store, session).due_at == NOW + 320


def test_what_livekit_tells_leaves_alone_when_a_session_is_due(store: Store) -> None:
    session = kept(store)

    merged = run(store.sessions.merge_room_event(RoomEvent(session.session_id, "RM_ours", joined_at=NOW + 5)))

    assert merged is not None
    assert merged.due_at == session.due_at


def test_sessions_are_spread_over_all_shards_and_each_is_in_one(store: Store) -> None:
    sessions = [kept(store, session_id=SessionId(f"{uuid7()[:-2]}{number:02x}")) for number in range(2 * DUE_SHARDS)]

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
    row = store.row_of(kept(store, due_at=None))
    ids = [SessionId(f"{uuid7()[:-2]}00") for _ in range(number)]
    shard = {"due_shard": {"N": "0"}}
    store.fill_sessions(
        {**row, **shard, "session_id": {"S": each}, "due_at": {"N": str(NOW - number + place)}}
        for place, each in enumerate(ids)
    )
    return ids


def test_what_is_due_comes_page_by_page_the_oldest_first(store: Store) -> None:
    ids = in_one_shard(store, 250)
    asked: list[int] = []

    def counting(query: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            if arguments["ExpressionAttributeValues"][":shard"] == {"N": "0"}:
                asked.append(arguments["Limit"])
            return query(**arguments)

        return ask

    counted = store.through(query=counting).sessions

    async def read(number: int) -> list[SessionId]:
        came: list[SessionId] = []
        async for session_id in counted.due(NOW):
            came.append(session_id)
            if len(came) == number:
                break
        return came

    assert run(read(10)) == ids[:10]
    assert asked == [100]
    asked.clear()
    assert run(read(1_000)) == ids
    assert asked == [100, 100, 100]


def test_what_is_done_while_the_pages_are_read_does_not_hide_what_is_left(store: Store) -> None:
    ids = in_one_shard(store, 130)

    async def read_and_do() -> list[SessionId]:
        came: list[SessionId] = []
        async for session_id in store.sessions.due(NOW):
            came.append(session_id)
            session = await store.sessions.get(session_id)
            assert session is not None
            await store.sessions.schedule(session, None)
        return came

    assert run(read_and_do()) == ids
    assert due(store, NOW) == []


def test_the_index_holds_what_is_due_and_not_a_word_more(store: Store) -> None:
    kept(store, session_id=SessionId(f"{uuid7()[:-2]}05"))

    answer = store.dynamodb.query(
        TableName=store.names.sessions,
        IndexName="by_due",
        KeyConditionExpression="due_shard = :shard",
        ExpressionAttributeValues={":shard": {"N": "5"}},
    )

    assert [set(item) for item in answer["Items"]] == [{"session_id", "due_shard", "due_at"}]
