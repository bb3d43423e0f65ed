"""Tool calls in DynamoDB: recorded once, counted, and in their order."""

import asyncio
from typing import Any

import pytest

from pi_voice.adapters.dynamodb.attributes import to_item
from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import StorageError, UnreadableRow
from pi_voice.domain.ids import EventId
from pi_voice.domain.sessions import Session, Tombstone
from pi_voice.domain.tool_calls import MAX_BYTES, Run, StoredToolCall, ToolCall
from tests.integration.samples import NOW, a_call_end, added, found
from tests.integration.store import Store, cancelling, sent_twice

run = asyncio.run


def call(call_id: str = "one", **fields: Any) -> ToolCall:
    document = {"name": "show", "arguments": {"page": 7}, "status": "succeeded", "response": {"of": "1.0"}, **fields}
    return ToolCall.model_validate({"call_id": call_id, "called_at": NOW, **document})


def recorded(store: Store, session: Session, *calls: ToolCall) -> Session:
    for each in calls:
        grown = run(store.tool_calls.record(session, each, 50))
        assert grown is not None
        session = grown
    return session


def test_calls_are_read_as_they_were_recorded_in_their_order(store: Store) -> None:
    session = added(store)
    calls = [call("z", status="failed"), call("a", milliseconds=12), call("\x7e!#'")]

    grown = recorded(store, session, *calls)

    assert run(store.tool_calls.read(grown)) == calls
    assert grown == found(store, session)
    assert (grown.tool_calls, grown.tool_call_bytes) == (3, 150)
    assert [run(store.tool_calls.find(session.session_id, each.call_id)) for each in calls] == [
        StoredToolCall(each) for each in calls
    ]
    assert run(store.tool_calls.find(session.session_id, "another")) is None


def test_a_call_is_recorded_once(store: Store) -> None:
    session = added(store)
    grown = recorded(store, session, call())

    assert run(store.tool_calls.record(grown, call(response={}), 50)) is None
    assert run(store.tool_calls.record(session, call("two"), 50)) is None  # one was recorded since it was read
    assert run(store.tool_calls.read(found(store, session))) == [call()]


def test_nothing_is_recorded_after_the_session_has_ended(store: Store) -> None:
    session = added(store)
    assert run(store.sessions.complete(session, a_call_end()))

    assert run(store.tool_calls.record(session, call(), 50)) is None
    assert found(store, session).tool_calls == 0
    assert run(store.tool_calls.find(session.session_id, "one")) is None


def test_a_session_that_an_earlier_version_stored_takes_calls(store: Store) -> None:
    session = added(store)
    store.dynamodb.update_item(
        TableName=store.names.sessions,
        Key=to_item({"session_id": session.session_id}),
        UpdateExpression="REMOVE tool_calls, tool_call_bytes",
    )

    assert recorded(store, found(store, session), call()).tool_calls == 1


def test_turns_and_calls_are_counted_apart(store: Store) -> None:
    session = recorded(store, added(store), call())

    grown = run(store.checkpoints.append(session, [{"role": "user", "text": "Hi"}], 30, NOW))
    assert grown is not None
    assert recorded(store, grown, call("two")) == found(store, session)
    assert (found(store, session).checkpoint_turns, found(store, session).tool_calls) == (1, 2)


def test_delete_removes_the_calls(store: Store) -> None:
    session = recorded(store, added(store), call())

    run(store.transcripts.delete(session.session_id))
    assert store.rows(store.names.transcripts) == []


def test_calls_expire_with_their_session(store: Store) -> None:
    kept = store.tool_calls_kept(30)
    session = added(store)

    assert run(kept.record(session, call(), 50))
    [row] = store.rows(store.names.transcripts)
    assert int(row["ttl"]["N"]) > session.created_at + 29 * 86_400


def test_a_damaged_call_is_left_out_of_the_list_and_is_an_error_alone(store: Store) -> None:
    session = recorded(store, added(store), call(), call("two"))
    store.dynamodb.update_item(
        TableName=store.names.transcripts,
        Key=to_item({"session_id": session.session_id, "piece": "tool_call#0#one"}),
        UpdateExpression="SET #data = :data",
        ExpressionAttributeNames={"#data": "data"},
        ExpressionAttributeValues={":data": {"B": b"no gzip"}},
    )

    assert run(store.tool_calls.read(session)) == [call("two")]
    with pytest.raises(UnreadableRow):
        run(store.tool_calls.find(session.session_id, "one"))


def test_a_request_whose_response_was_lost_records_once(store: Store) -> None:
    session = added(store)

    run(store.through(transact_write_items=sent_twice).tool_calls.record(session, call(), 50))
    assert found(store, session).tool_calls == 1
    assert run(store.tool_calls.read(found(store, session))) == [call()]


def test_a_transaction_that_conflicts_too_often_records_nothing(store: Store) -> None:
    session = added(store)

    with pytest.raises(StorageError):
        run(
            store.through(transact_write_items=cancelling(9, "TransactionConflict")).tool_calls.record(
                session, call(), 50
            )
        )
    assert found(store, session).tool_calls == 0


def test_concurrent_calls_are_all_counted(store: Store) -> None:
    session = added(store)

    async def record(call_id: str) -> bool:
        for _ in range(20):
            current = await store.sessions.get(session.session_id)
            assert current is not None
            if await store.tool_calls.record(current, call(call_id), 50):
                return True
        return False

    async def all_at_once() -> list[bool]:
        return await asyncio.gather(*(record(str(number)) for number in range(6)))

    assert all(run(all_at_once()))
    assert len(run(store.tool_calls.read(found(store, session)))) == found(store, session).tool_calls == 6


# ---- Tools on a server ----

FIRST = Run(EventId("019a0000-0000-7000-8000-0000000000f1"), 1, NOW + 20)


def running(store: Store) -> Session:
    """Return a session with one call, which runs."""
    grown = run(store.tool_calls.record(added(store), call(status="running", response={}), 50, FIRST))
    assert grown is not None
    return grown


def test_a_call_that_runs_is_found_with_its_run(store: Store) -> None:
    session = running(store)

    stored = run(store.tool_calls.find(session.session_id, "one"))
    assert stored == StoredToolCall(call(status="running", response={}), FIRST)
    assert run(store.tool_calls.read(session)) == [call(status="running", response={})]


def test_the_answer_of_a_run_is_recorded_and_counted(store: Store) -> None:
    session = running(store)

    assert run(store.tool_calls.finish(session.session_id, call(), FIRST, 30, MAX_BYTES)) == "recorded"
    assert run(store.tool_calls.find(session.session_id, "one")) == StoredToolCall(call())
    counted = found(store, session)
    assert (counted.tool_calls, counted.tool_call_bytes) == (1, 80)
    assert run(store.tool_calls.read(counted)) == [call()]


def test_the_place_of_a_call_stays_when_its_answer_is_recorded(store: Store) -> None:
    grown = recorded(store, running(store), call("two"))

    assert run(store.tool_calls.finish(grown.session_id, call(), FIRST, 30, MAX_BYTES)) == "recorded"
    assert [each.call_id for each in run(store.tool_calls.read(found(store, grown)))] == ["one", "two"]


def test_an_answer_is_recorded_after_the_session_has_ended(store: Store) -> None:
    session = running(store)
    assert run(store.sessions.complete(found(store, session), a_call_end()))

    assert run(store.tool_calls.finish(session.session_id, call(), FIRST, 30, MAX_BYTES)) == "recorded"
    assert run(store.tool_calls.read(found(store, session))) == [call()]


def test_nothing_of_a_deleted_session_comes_back(store: Store) -> None:
    session = running(store)
    completed = run(store.sessions.complete(found(store, session), a_call_end()))
    assert completed is not None
    run(store.sessions.delete(Tombstone(session.session_id, Duties()), NOW))
    run(store.transcripts.delete(session.session_id))

    assert run(store.tool_calls.finish(session.session_id, call(), FIRST, 30, MAX_BYTES)) == "deleted"
    assert store.rows(store.names.transcripts) == []


def test_an_answer_that_does_not_fit_is_not_recorded(store: Store) -> None:
    session = running(store)

    assert run(store.tool_calls.finish(session.session_id, call(), FIRST, 30, 79)) == "full"
    assert found(store, session).tool_call_bytes == 50
    assert run(store.tool_calls.finish(session.session_id, call(), FIRST, 30, 80)) == "recorded"


def test_a_call_is_run_again_by_one_request(store: Store) -> None:
    session = running(store)

    second = run(store.tool_calls.run_again(session.session_id, "one", FIRST, NOW + 60))
    assert second == FIRST._replace(number=2, ends_at=NOW + 60)
    assert run(store.tool_calls.run_again(session.session_id, "one", FIRST, NOW + 61)) is None
    stored = run(store.tool_calls.find(session.session_id, "one"))
    assert stored is not None
    assert stored.run == second


def test_the_answer_of_an_earlier_run_is_not_recorded(store: Store) -> None:
    session = running(store)
    second = run(store.tool_calls.run_again(session.session_id, "one", FIRST, NOW + 60))
    assert second is not None

    late = call(response={"of": "the first run"})
    assert run(store.tool_calls.finish(session.session_id, late, FIRST, 30, MAX_BYTES)) == "superseded"
    assert run(store.tool_calls.finish(session.session_id, call(), second, 30, MAX_BYTES)) == "recorded"
    assert run(store.tool_calls.finish(session.session_id, late, second, 30, MAX_BYTES)) == "superseded"
    assert run(store.tool_calls.run_again(session.session_id, "one", second, NOW + 90)) is None
    assert run(store.tool_calls.read(found(store, session))) == [call()]
    assert found(store, session).tool_call_bytes == 80


def test_an_answer_whose_response_was_lost_is_counted_once(store: Store) -> None:
    session = running(store)
    twice = store.through(transact_write_items=sent_twice)

    assert run(twice.tool_calls.finish(session.session_id, call(), FIRST, 30, MAX_BYTES)) == "recorded"
    assert found(store, session).tool_call_bytes == 80
