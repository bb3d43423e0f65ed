"""Events that a session owes: part of the write that changes its state, sent once, and cleared when dispatched."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.adapters.dynamodb.attributes import to_item
from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import SessionActive, StorageError
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import uuid7
from pi_voice.domain.sessions import LiveKitRoom, Session, Tombstone
from pi_voice.domain.tool_calls import ToolCall
from pi_voice.domain.webhook_events import OwedEvent
from tests.integration.samples import NOW, TURNS, UNPROVISIONED, a_call_end, a_session, added, deleted, found
from tests.integration.store import Request, Store, sent_twice

run = asyncio.run

CALL = ToolCall(call_id="one", name="show", arguments={}, status="succeeded", response={}, called_at=NOW + 5)
SUCCEEDED = Extraction(status="succeeded", extracted_at=NOW + 240)
FAILED = Extraction(status="failed", extracted_at=NOW + 240)

Change = Callable[[Store, Session], Coroutine[Any, Any, object]]


def fail(store: Store, session: Session) -> Coroutine[Any, Any, object]:
    return store.sessions.fail(session, session.failed(UNPROVISIONED, "failed", NOW + 9), close_room_at=NOW + 9)


CHANGES: dict[str, tuple[Change, str, int]] = {
    "complete": (lambda store, session: store.sessions.complete(session, a_call_end()), "session.completed", NOW + 200),
    "fail": (fail, "session.failed", NOW + 9),
    "start": (lambda store, session: store.sessions.start(session, NOW + 5, None), "session.started", NOW + 5),
    "save": (
        lambda store, session: store.checkpoints.append(session, TURNS, 100, NOW + 5),
        "session.started",
        NOW + 5,
    ),
    "record_tool_call": (lambda store, session: store.tool_calls.record(session, CALL, 50), "session.started", NOW + 5),
}
changes = pytest.mark.parametrize(("change", "event_type", "at"), CHANGES.values(), ids=list(CHANGES))
signs = pytest.mark.parametrize(
    "change", [CHANGES[name][0] for name in ("start", "save", "record_tool_call")], ids=["start", "save", "tool call"]
)


def completed(store: Store) -> Session:
    done = run(store.sessions.complete(added(store), a_call_end()))
    assert done is not None
    return done


def types(session: Session) -> list[str]:
    return [event.type for event in session.owed_events]


def overtaken_by(work: Callable[[], object]) -> Callable[[Request], Request]:
    """Do something before the first request."""
    todo = [work]

    def around(send: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            if todo:
                todo.pop()()
            return send(**arguments)

        return ask

    return around


# ---- Which write owes which event -------------------------------------------------------------------


@changes
def test_a_change_of_state_stores_its_event_and_the_duty_to_send_it(
    store: Store, change: Change, event_type: str, at: int
) -> None:
    session = added(store)

    assert run(change(store, session)) == found(store, session)

    [event] = found(store, session).owed_events
    assert (event.type, event.at) == (event_type, at)
    assert found(store, session).duties.get("send_events") == (at + 10, 0)
    assert store.row_of(session)["due_at"] == {"N": str(found(store, session).duties.due_at)}


@changes
def test_a_change_whose_first_response_was_lost_owes_its_event_once(
    store: Store, change: Change, event_type: str, at: int
) -> None:
    del at
    session = added(store)

    run(change(store.through(update_item=sent_twice, transact_write_items=sent_twice), session))

    assert types(found(store, session)) == [event_type]


def test_a_session_that_is_stored_as_failed_owes_its_event_once(store: Store) -> None:
    failed = a_session(duties=Duties()).failed(UNPROVISIONED, "failed", NOW)

    assert run(store.sessions.add(failed))
    assert not run(store.sessions.add(failed))

    assert found(store, failed) == failed
    assert types(failed) == ["session.failed"]


@pytest.mark.parametrize(
    ("extraction", "owed"),
    [
        (SUCCEEDED, ["extraction.succeeded"]),
        (FAILED, ["extraction.failed"]),
        (Extraction(status="skipped"), []),
        (Extraction(status="pending", attempts=3), []),
    ],
    ids=lambda each: each.status if isinstance(each, Extraction) else None,
)
@pytest.mark.parametrize("is_lossy", [False, True])
def test_a_final_extraction_owes_an_event(
    store: Store, extraction: Extraction, owed: list[str], *, is_lossy: bool
) -> None:
    done = completed(store)
    writer = store.through(update_item=sent_twice) if is_lossy else store

    saved = run(writer.sessions.save_extraction(done, None, extraction, lambda duties: duties))

    assert saved == found(store, done)
    assert types(saved) == ["session.completed", *owed]


def test_a_second_extraction_owes_an_event_again(store: Store) -> None:
    saved = run(store.sessions.save_extraction(completed(store), {"age": 1}, SUCCEEDED, lambda duties: duties))
    again = SUCCEEDED.model_copy(update={"extracted_at": NOW + 900})

    saved = run(store.sessions.save_extraction(saved, {"age": 2}, again, lambda duties: duties))

    assert types(saved) == ["session.completed", "extraction.succeeded", "extraction.succeeded"]
    assert len({event.event_id for event in saved.owed_events}) == 3


def test_the_fifty_first_event_is_not_owed_and_logged(store: Store, logged: Any) -> None:
    session = completed(store)
    for number in range(55):
        extraction = SUCCEEDED.model_copy(update={"extracted_at": NOW + number})
        session = run(store.sessions.save_extraction(session, None, extraction, lambda duties: duties))

    assert len(session.owed_events) == 50
    assert types(session)[0] == "session.completed"
    assert logged.getvalue().count('"event_not_owed"') == 6


# ---- The first sign of life -------------------------------------------------------------------------


@signs
@pytest.mark.parametrize("other", ["start", "save", "record_tool_call"])
def test_of_two_signs_of_life_only_the_first_owes_an_event(store: Store, change: Change, other: str) -> None:
    session = added(store)
    run(CHANGES[other][0](store, session))
    first = found(store, session)

    run(change(store, first))

    assert (found(store, session).started_at, found(store, session).owed_events) == (
        first.started_at,
        first.owed_events,
    )


@signs
def test_a_sign_of_life_that_another_one_overtakes_owes_nothing(store: Store, change: Change) -> None:
    session = added(store)
    around = overtaken_by(lambda: run(store.sessions.start(session, NOW + 3, None)))

    run(change(store.through(update_item=around, transact_write_items=around), session))

    assert (types(found(store, session)), found(store, session).started_at) == (["session.started"], NOW + 3)


@signs
def test_a_sign_of_life_keeps_duties_that_changed_since_the_read(store: Store, change: Change) -> None:
    session = added(store)
    newer = session.duties.plus(remind=NOW + 70)
    run(store.sessions.set_duties(session.session_id, session.duties, newer))

    run(change(store, session))

    assert found(store, session).duties == newer.plus(send_events=NOW + 15)
    assert types(found(store, session)) == ["session.started"]


@signs
def test_a_sign_of_life_keeps_what_a_newer_version_wrote_into_the_duties(store: Store, change: Change) -> None:
    session = added(store)
    store.dynamodb.update_item(
        TableName=store.names.sessions,
        Key=to_item({"session_id": session.session_id}),
        UpdateExpression="SET duties.fax = :fax",
        ExpressionAttributeValues=to_item({":fax": {"due_at": NOW + 70, "tries": 0, "to": "x"}}),
    )

    run(change(store, found(store, session)))

    assert types(found(store, session)) == ["session.started"]
    assert found(store, session).duties.get("fax") == (NOW + 70, 0)


@signs
def test_nothing_starts_after_the_session_has_ended(store: Store, change: Change) -> None:
    session = added(store)
    run(store.sessions.complete(session, a_call_end()))

    run(change(store, session))

    assert (found(store, session).started_at, types(found(store, session))) == (None, ["session.completed"])


def test_a_start_sets_the_end_of_the_call_in_the_same_write(store: Store) -> None:
    session = added(store)

    row = run(store.sessions.start(session, NOW + 5, NOW + 85))

    assert row == found(store, session)
    assert row == replace(
        session,
        started_at=NOW + 5,
        owed_events=found(store, session).owed_events,
        duties=session.duties.plus(hang_up=NOW + 85, send_events=NOW + 15),
    )


def test_a_call_that_was_hung_up_does_not_start(store: Store) -> None:
    session = added(store)
    hung_up = run(store.sessions.hang_up(session, "stopped", NOW + 3))

    assert run(store.sessions.start(session, NOW + 5, NOW + 85)) == hung_up == found(store, session)


def test_a_deleted_session_does_not_start_and_owes_nothing(store: Store) -> None:
    session = completed(store)
    tombstone = deleted(store, session)

    assert run(store.sessions.start(session, NOW + 5, None)) == tombstone
    assert run(store.sessions.start(a_session(), NOW + 5, None)) is None


# ---- Clearing ---------------------------------------------------------------------------------------


def clear(store: Store, session: Session, *events: OwedEvent) -> None:
    run(store.sessions.clear_owed_events(session, [event.event_id for event in events]))


def test_dispatched_events_are_cleared_with_their_duty(store: Store) -> None:
    session = completed(store)

    clear(store, session, *session.owed_events)

    assert found(store, session) == replace(session, owed_events=(), duties=session.duties.without("send_events"))
    assert "owed_events" not in store.row_of(session)


def test_an_event_that_was_not_dispatched_stays_with_the_duty(store: Store) -> None:
    session = run(store.sessions.save_extraction(completed(store), None, SUCCEEDED, lambda duties: duties))

    clear(store, session, session.owed_events[1])

    assert found(store, session) == replace(session, owed_events=session.owed_events[:1])


def test_an_event_that_was_owed_after_the_read_stays_with_its_duty(store: Store) -> None:
    session = completed(store)
    around = overtaken_by(
        lambda: run(store.sessions.save_extraction(session, None, SUCCEEDED, lambda duties: duties.without("extract")))
    )

    clear(store.through(update_item=around), session, *session.owed_events)

    left = found(store, session)
    assert types(left) == ["extraction.succeeded"]
    assert left.duties.get("send_events") == (NOW + 250, 0)
    assert left.duties.get("extract") is None


def test_duties_that_changed_since_the_read_stay(store: Store) -> None:
    session = completed(store)
    changed = session.duties.without("extract").plus(remind=NOW + 7)
    run(store.sessions.set_duties(session.session_id, session.duties, changed))

    clear(store, session, *session.owed_events)

    assert (found(store, session).owed_events, found(store, session).duties) == ((), changed.without("send_events"))


def test_events_whose_clearing_lost_its_first_response_are_cleared(store: Store) -> None:
    session = completed(store)

    clear(store.through(update_item=sent_twice), session, *session.owed_events)

    assert found(store, session).owed_events == ()


def test_clearing_twice_writes_once(store: Store) -> None:
    session = completed(store)
    clear(store, session, *session.owed_events)
    before = store.row_of(session)

    clear(store, session, *session.owed_events)

    assert store.row_of(session) == before


def test_events_of_a_session_that_was_deleted_meanwhile_are_gone(store: Store) -> None:
    session = completed(store)
    tombstone = Tombstone(session.session_id, Duties().plus(close_room=NOW))
    around = overtaken_by(lambda: run(store.sessions.delete(tombstone, NOW)))

    clear(store.through(update_item=around), session, *session.owed_events)

    assert "owed_events" not in store.row_of(session)
    assert run(store.sessions.duties(session.session_id)) == Duties().plus(close_room=NOW)


def test_a_clearing_that_is_always_overtaken_is_a_storage_error(store: Store) -> None:
    session = completed(store)

    def overtaken(update: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            row = found(store, session)
            run(store.sessions.set_duties(session.session_id, row.duties, row.duties.plus(**{uuid7(): NOW})))
            return update(**arguments)

        return ask

    with pytest.raises(StorageError):
        clear(store.through(update_item=overtaken), session, *session.owed_events)
    assert types(found(store, session)) == ["session.completed"]


def test_an_event_that_cannot_be_read_breaks_nothing_and_stays_with_the_duty(store: Store) -> None:
    session = completed(store)
    stored = store.row_of(session)["owed_events"]["L"]
    broken: Any = [{"S": "event"}, {"M": {"type": {"S": "x"}}}, *stored, {"M": {**stored[0]["M"], "at": {"S": "now"}}}]
    store.dynamodb.update_item(
        TableName=store.names.sessions,
        Key=to_item({"session_id": session.session_id}),
        UpdateExpression="SET owed_events = :events",
        ExpressionAttributeValues={":events": {"L": broken}},
    )
    assert found(store, session).owed_events == session.owed_events

    clear(store, found(store, session), *session.owed_events)

    assert found(store, session).owed_events == ()
    assert len(store.row_of(session)["owed_events"]["L"]) == 2
    assert found(store, session).duties.get("send_events") is not None


def test_delete_cancels_what_is_owed(store: Store) -> None:
    session = completed(store)

    run(store.sessions.delete(Tombstone(session.session_id, Duties().plus(delete_again=NOW)), NOW))

    assert "owed_events" not in store.row_of(session)
    assert run(store.sessions.duties(session.session_id)) == Duties().plus(delete_again=NOW)


def test_an_active_session_keeps_what_it_owes(store: Store) -> None:
    session = added(store, livekit=LiveKitRoom(room_name="r", room_sid="RM_ours"))
    run(store.sessions.start(session, NOW, None))

    with pytest.raises(SessionActive):
        run(store.sessions.delete(Tombstone(session.session_id, Duties()), NOW))
    assert types(found(store, session)) == ["session.started"]
