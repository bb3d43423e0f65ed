"""Duties of sessions in DynamoDB: no write loses a concurrent change of them, and the index lists what is due."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import pytest

from pi_voice.domain.duties import Duties, Duty
from pi_voice.domain.errors import StorageError
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import SessionId, uuid7
from pi_voice.domain.livekit_webhooks import RoomEvent
from pi_voice.domain.sessions import Session
from pi_voice.ports import DueSession
from tests.integration.samples import NOW, UNPROVISIONED, a_call_end, added, deleted, found, without_events
from tests.integration.store import Request, Store, sent_twice

run = asyncio.run

SHARDS: Final = 16
BY_NEWER_VERSION = Duties({"remind": Duty(NOW + 50, tries=2)})
END = a_call_end()


def completed(store: Store) -> Session:
    done = run(store.sessions.complete(added(store), END))
    assert done is not None
    return done


def due(store: Store, now: int) -> list[DueSession]:
    """Return what is due."""

    async def ask() -> list[DueSession]:
        return [each async for page in store.sessions.due(now) for each in page]

    return run(ask())


def due_attributes(store: Store, session: Session) -> tuple[int | None, int | None]:
    """Return the stored time and shard of the index."""
    row = store.row_of(session)
    at, shard = (int(row[name]["N"]) if name in row else None for name in ("due_at", "due_shard"))
    return at, shard


# ---- Changing duties --------------------------------------------------------------------------------


def test_new_duties_replace_those_that_were_read(store: Store) -> None:
    session = added(store)
    after = Duties({"end_call": Duty(NOW + 4_200), "close_room": Duty(NOW + 120, tries=3)})

    changed = run(store.sessions.set_duties(session.session_id, session.duties, after))

    assert changed == found(store, session) == replace(session, duties=after)
    assert run(store.sessions.duties(session.session_id)) == after


@pytest.mark.parametrize("read", [Duties(), Duties().plus(end_call=NOW + 4_201), BY_NEWER_VERSION])
def test_duties_that_changed_since_the_read_stay_and_are_returned(store: Store, read: Duties) -> None:
    session = added(store)

    current = run(store.sessions.set_duties(session.session_id, read, Duties().plus(close_room=NOW)))

    assert current == found(store, session) == session


@pytest.mark.parametrize("after", [Duties(), BY_NEWER_VERSION, Duties().plus(end_call=NOW + 60, close_room=NOW)])
def test_a_change_of_duties_whose_first_response_was_lost_is_recognized(store: Store, after: Duties) -> None:
    session = added(store)
    lossy = store.through(update_item=sent_twice)

    changed = run(lossy.sessions.set_duties(session.session_id, session.duties, after))

    assert changed == found(store, session) == replace(session, duties=after)


def test_one_of_many_concurrent_changes_of_duties_is_stored(store: Store) -> None:
    session = added(store)

    def claim(number: int) -> bool:
        after = session.duties.plus(close_room=NOW + number)
        current = run(store.sessions.set_duties(session.session_id, session.duties, after))
        return current is not None and current.duties == after

    with ThreadPoolExecutor(max_workers=8) as sweepers:
        assert sum(sweepers.map(claim, range(16))) == 1


def test_duties_of_a_tombstone_can_be_changed_too(store: Store) -> None:
    tombstone = deleted(store, completed(store))
    after = tombstone.duties.without("close_room")

    changed = run(store.sessions.set_duties(tombstone.session_id, tombstone.duties, after))

    assert changed == tombstone._replace(duties=after)
    assert run(store.sessions.duties(tombstone.session_id)) == after


def test_a_row_that_does_not_exist_has_no_duties(store: Store) -> None:
    session_id = SessionId(uuid7())

    assert run(store.sessions.duties(session_id)) is None
    assert run(store.sessions.set_duties(session_id, Duties(), Duties().plus(close_room=NOW))) is None
    assert store.rows(store.names.sessions) == []


# ---- Changes of state beside changes of duties ------------------------------------------------------

Change = Callable[[Store, Session], Coroutine[Any, Any, object]]
ACTIVE: dict[str, tuple[Change, Duties]] = {
    "complete": (
        lambda store, session: store.sessions.complete(session, END),
        Duties().plus(close_room=END.recheck_at, extract=END.recheck_at, send_events=END.completed_at + 10),
    ),
    "fail": (
        lambda store, session: store.sessions.fail(
            session, session.failed(UNPROVISIONED, "failed", NOW), close_room_at=NOW + 9
        ),
        Duties().plus(close_room=NOW + 9, send_events=NOW + 10),
    ),
    "hang up": (
        lambda store, session: store.sessions.hang_up(session, "stopped", NOW + 9),
        Duties().plus(end_call=NOW + 4_200, close_room=NOW + 9),
    ),
}
changes = pytest.mark.parametrize(("change", "own"), ACTIVE.values(), ids=list(ACTIVE))


def together(*duties: Duties) -> Duties:
    return Duties({name: duty for each in duties for name, duty in each.by_name.items()})


@changes
@pytest.mark.parametrize("name", ["hang_up", "remind"])
def test_a_change_of_state_is_stored_with_the_current_duties_if_they_changed_since_the_read(
    store: Store, change: Change, own: Duties, name: str
) -> None:
    session = added(store)
    run(store.sessions.set_duties(session.session_id, session.duties, session.duties.plus(**{name: NOW + 75})))

    assert run(change(store, session)) == found(store, session)

    is_done = name == "hang_up"  # there is no call to hang up any more
    assert found(store, session).duties == (own if is_done else own.plus(**{name: NOW + 75}))


@changes
def test_a_change_of_state_keeps_duties_that_only_a_newer_version_knows(
    store: Store, change: Change, own: Duties
) -> None:
    session = added(store, duties=together(Duties().plus(end_call=NOW + 4_200), BY_NEWER_VERSION))

    assert run(change(store, session)) is not None

    assert found(store, session).duties == together(own, BY_NEWER_VERSION)
    assert due_attributes(store, session)[0] == min(NOW + 50, own.due_at or 0)


@changes
def test_a_change_of_state_keeps_duties_that_change_while_it_is_written(
    store: Store, change: Change, own: Duties
) -> None:
    session = added(store)
    met: list[int] = []

    def overtaken(update: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            if len(met) < 3:
                met.append(1)
                row = found(store, session)
                duties = row.duties.plus(**{f"remind_{len(met)}": NOW + 500})
                run(store.sessions.set_duties(session.session_id, row.duties, duties))
            return update(**arguments)

        return ask

    assert run(change(store.through(update_item=overtaken), session)) is not None

    assert found(store, session).duties == own.plus(remind_1=NOW + 500, remind_2=NOW + 500, remind_3=NOW + 500)


def test_a_change_of_state_that_is_always_overtaken_is_a_storage_error(store: Store) -> None:
    session = added(store)

    def overtaken(update: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            row = found(store, session)
            run(store.sessions.set_duties(session.session_id, row.duties, row.duties.plus(**{uuid7(): NOW})))
            return update(**arguments)

        return ask

    with pytest.raises(StorageError):
        run(store.through(update_item=overtaken).sessions.hang_up(session, "stopped", NOW))
    assert found(store, session).hung_up_at is None


def test_results_are_stored_with_the_current_duties_if_they_changed_since_the_read(store: Store) -> None:
    done = completed(store)
    others = done.duties.without("close_room", "send_events").plus(remind=NOW)
    run(store.sessions.set_duties(done.session_id, done.duties, others))

    saved = run(
        store.sessions.save_extraction(
            done, {"age": 42}, Extraction(status="succeeded"), lambda duties: duties.without("extract")
        )
    )

    assert saved == found(store, done)
    assert (saved.results, without_events(saved.duties)) == ({"age": 42}, Duties().plus(remind=NOW))


def test_a_room_event_does_not_change_the_duties(store: Store) -> None:
    session = added(store)

    merged = run(store.sessions.merge_room_event(RoomEvent(session.session_id, "RM_ours", joined_at=NOW + 5)))

    assert merged is not None
    assert merged.duties == session.duties


# ---- The index --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duties", "due_at"),
    [
        (Duties(), None),
        (Duties().plus(end_call=NOW + 4_200), NOW + 4_200),
        (Duties().plus(end_call=NOW + 4_200, close_room=NOW + 60, extract=NOW + 120), NOW + 60),
        (together(Duties().plus(end_call=NOW + 4_200), BY_NEWER_VERSION), NOW + 50),
    ],
    ids=["none", "one", "three", "one of a newer version"],
)
def test_a_row_is_in_the_index_at_the_earliest_time_of_its_duties(
    store: Store, duties: Duties, due_at: int | None
) -> None:
    new = added(store, duties=duties)
    changed = added(store)
    run(store.sessions.set_duties(changed.session_id, changed.duties, duties))

    for session in (new, changed):
        shard = int(session.session_id[-2:], 16) % SHARDS
        assert due_attributes(store, session) == (due_at, None if due_at is None else shard)


@changes
def test_after_every_change_of_state_a_row_is_in_the_index_at_the_earliest_time_of_its_duties(
    store: Store, change: Change, own: Duties
) -> None:
    session = added(store)

    run(change(store, session))

    assert due_attributes(store, session)[0] == own.due_at


def test_a_session_is_due_at_its_time_and_listed_with_it(store: Store) -> None:
    session = added(store, duties=Duties().plus(hang_up=NOW + 75))
    added(store, duties=Duties())

    assert due(store, NOW + 74) == []
    assert due(store, NOW + 75) == due(store, NOW + 10**6) == [DueSession(session.session_id, NOW + 75)]


def test_a_tombstone_is_due_too(store: Store) -> None:
    tombstone = deleted(store, completed(store))

    assert due(store, NOW + 900) == [DueSession(tombstone.session_id, NOW)]


def test_sessions_are_spread_evenly_over_all_shards(store: Store) -> None:
    sessions = [added(store, session_id=SessionId(f"{uuid7()[:-2]}{number:02x}")) for number in range(2 * SHARDS)]

    shards = Counter(due_attributes(store, session)[1] for session in sessions)

    assert shards == dict.fromkeys(range(SHARDS), 2)
    assert {each.session_id for each in due(store, NOW + 4_200)} == {session.session_id for session in sessions}


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

    orders = [tuple(shards_read[start : start + SHARDS]) for start in range(0, 4 * SHARDS, SHARDS)]
    assert all(sorted(order) == list(range(SHARDS)) for order in orders)
    assert len(set(orders)) > 1


def in_one_shard(store: Store, number: int) -> list[DueSession]:
    """Fill one shard with sessions, the oldest first."""
    row = store.row_of(added(store, duties=Duties()))
    sessions = [DueSession(SessionId(f"{uuid7()[:-2]}00"), NOW - number + place) for place in range(number)]
    store.fill_sessions(
        {
            **row,
            "session_id": {"S": each.session_id},
            "due_shard": {"N": "0"},
            "due_at": {"N": str(each.due_at)},
            "duties": {"M": {"end_call": {"M": {"due_at": {"N": str(each.due_at)}, "tries": {"N": "0"}}}}},
        }
        for each in sessions
    )
    return sessions


def test_due_sessions_are_read_page_by_page_oldest_first(store: Store) -> None:
    sessions = in_one_shard(store, 250)
    limits: list[int] = []

    def counting(query: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            if arguments["ExpressionAttributeValues"][":shard"] == {"N": "0"}:
                limits.append(arguments["Limit"])
            return query(**arguments)

        return ask

    counted = store.through(query=counting).sessions

    async def read(number: int) -> list[DueSession]:
        found: list[DueSession] = []
        async for page in counted.due(NOW):
            found += page
            if len(found) >= number:
                break
        return found

    assert run(read(10)) == sessions[:100]
    assert limits == [100]
    limits.clear()
    assert run(read(1_000)) == sessions
    assert limits == [100, 100, 100]


def test_sessions_processed_while_paging_do_not_hide_the_others(store: Store) -> None:
    sessions = in_one_shard(store, 130)

    async def read_and_do() -> list[DueSession]:
        found: list[DueSession] = []
        async for page in store.sessions.due(NOW):
            found += page
            for each in page:
                duties = Duties().plus(end_call=each.due_at)
                await store.sessions.set_duties(each.session_id, duties, Duties())
        return found

    assert run(read_and_do()) == sessions
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
