"""Tool calls in DynamoDB: recorded once, counted, and in their order."""

import asyncio
from typing import Any

import pytest

from pi_voice.adapters.dynamodb.attributes import to_item
from pi_voice.domain.errors import StorageError, UnreadableRow
from pi_voice.domain.sessions import Session
from pi_voice.domain.tool_calls import ToolCall
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
    assert [run(store.tool_calls.find(session.session_id, each.call_id)) for each in calls] == calls
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
