"""Usage in DynamoDB: the larger of each number, also of concurrent reports."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.adapters.dynamodb.attributes import to_item
from pi_voice.domain.errors import StorageError, UnreadableRow
from pi_voice.domain.session_api import ListSessionsQuery
from pi_voice.domain.sessions import Session
from pi_voice.domain.usage import TokenUsage
from tests.integration.samples import NOW, TURNS, a_call_end, added, deleted, found
from tests.integration.store import Request, Store, never_sent, sent_twice

run = asyncio.run


def usage(at: int = NOW + 9, **fields: Any) -> TokenUsage:
    """Make a report of these numbers."""
    nothing: dict[str, Any] = {"input_tokens": {}, "output_tokens": {}, "tool_use_tokens": {}, "cached_tokens": {}}
    return TokenUsage(**{**nothing, "thinking_tokens": None, **fields}, reported_at=at)


ALL = usage(
    input_tokens={"text": 1, "audio": 2, "image": 3, "video": 4, "document": 5, "other": 6},
    output_tokens={"audio": 0},
    tool_use_tokens={"text": 8},
    cached_tokens={"text": 1_000_000_000},
    thinking_tokens=0,
)


def put(store: Store, session: Session, attribute: dict[str, Any]) -> None:
    """Store usage as another version of the code might have."""
    row = {**store.row_of(session), "usage": attribute}
    store.dynamodb.put_item(TableName=store.names.sessions, Item=row)


def test_a_report_is_stored_and_read_and_nothing_else_changes(store: Store) -> None:
    session = added(store)

    assert run(store.sessions.report_usage(session, ALL)) == ALL
    assert found(store, session) == replace(session, usage=ALL)


def test_a_number_that_is_unknown_is_not_stored(store: Store) -> None:
    session = added(store)

    run(store.sessions.report_usage(session, usage(output_tokens={"audio": 0})))

    assert store.row_of(session)["usage"] == {
        "M": {"output_tokens": {"M": {"audio": {"N": "0"}}}, "reported_at": {"N": str(NOW + 9)}}
    }


def test_the_larger_of_each_number_is_stored(store: Store) -> None:
    session = added(store)
    run(store.sessions.report_usage(session, usage(input_tokens={"text": 5, "audio": 5}, thinking_tokens=1)))

    merged = run(
        store.sessions.report_usage(found(store, session), usage(NOW + 20, input_tokens={"text": 3, "audio": 7}))
    )

    assert merged == usage(NOW + 20, input_tokens={"text": 5, "audio": 7}, thinking_tokens=1)
    assert found(store, session).usage == merged


def test_a_report_without_a_larger_number_sends_no_request(store: Store) -> None:
    session = added(store, usage=None)
    run(store.sessions.report_usage(session, ALL))

    unsent = store.through(update_item=never_sent)
    assert run(unsent.sessions.report_usage(found(store, session), ALL._replace(reported_at=NOW + 99))) == ALL


def test_a_report_on_an_old_read_is_merged_into_the_current_usage(store: Store) -> None:
    session = added(store)
    run(store.sessions.report_usage(session, usage(input_tokens={"text": 5})))

    merged = run(store.sessions.report_usage(session, usage(input_tokens={"text": 4, "audio": 7})))

    assert merged == usage(input_tokens={"text": 5, "audio": 7})
    assert found(store, session).usage == merged


@pytest.mark.parametrize("seed", range(4))
def test_of_concurrent_reports_nothing_is_lost(store: Store, seed: int) -> None:
    session = added(store)
    chance = random.Random(seed)  # noqa: S311 (nothing to guess)
    reports = [
        usage(
            input_tokens={modality: chance.randrange(100) for modality in ("text", "audio")},
            output_tokens={chance.choice(("text", "audio", "other")): chance.randrange(100)},
            thinking_tokens=chance.choice((None, chance.randrange(100))),
        )
        for _ in range(5)  # of five, each wins one of its five tries
    ]

    with ThreadPoolExecutor(max_workers=len(reports)) as callers:
        answers = list(callers.map(lambda report: run(store.sessions.report_usage(session, report)), reports))

    expected = reports[0]
    for report in reports[1:]:
        expected = expected.with_report(report)
    assert found(store, session).usage == expected
    for report, answer in zip(reports, answers, strict=True):
        assert answer is not None
        assert answer.with_report(report) is answer
        assert expected.with_report(answer) is expected


def test_a_report_that_always_comes_second_is_an_error(store: Store) -> None:
    session = added(store)
    numbers = iter(range(100))

    def overtaken(update: Request) -> Request:
        def late(**arguments: Any) -> Any:
            other = usage(output_tokens={"audio": next(numbers)})
            run(store.sessions.report_usage(found(store, session), other))
            return update(**arguments)

        return late

    with pytest.raises(StorageError):
        run(store.through(update_item=overtaken).sessions.report_usage(session, ALL))
    assert found(store, session).usage == usage(output_tokens={"audio": 4})


def test_a_report_whose_response_was_lost_is_stored_once(store: Store) -> None:
    session = added(store)

    assert run(store.through(update_item=sent_twice).sessions.report_usage(session, ALL)) == ALL
    assert found(store, session) == replace(session, usage=ALL)


def test_a_report_does_not_undo_a_concurrent_completion(store: Store) -> None:
    session = added(store)

    async def both() -> tuple[object, object]:
        return await asyncio.gather(
            store.sessions.complete(session, a_call_end()), store.sessions.report_usage(session, ALL)
        )

    completed, reported = run(both())

    assert completed is not None
    assert reported == ALL
    done = found(store, session)
    assert (done.status, done.usage) == ("completed", ALL)


def test_a_report_beside_a_saved_turn_keeps_both(store: Store) -> None:
    session = added(store)

    async def both() -> None:
        await asyncio.gather(
            store.checkpoints.append(session, TURNS[:1], 30, NOW), store.sessions.report_usage(session, ALL)
        )

    run(both())

    assert (found(store, session).checkpoint_turns, found(store, session).usage) == (1, ALL)


def test_the_end_and_the_deletion_of_a_session_keep_and_remove_its_usage(store: Store) -> None:
    session = added(store)
    run(store.sessions.report_usage(session, ALL))

    done = run(store.sessions.complete(session, a_call_end()))
    assert done is not None
    assert done.usage == ALL
    [listed] = run(store.sessions.page(session.workspace, ListSessionsQuery())).data
    assert listed.usage is None
    deleted(store, session)

    assert "usage" not in store.row_of(session)


@pytest.mark.parametrize("is_first", [True, False], ids=["the first report", "a later report"])
def test_a_report_does_not_bring_a_deleted_session_back(store: Store, *, is_first: bool) -> None:
    session = added(store)
    if not is_first:
        run(store.sessions.report_usage(session, usage(thinking_tokens=1)))
    session = found(store, session)
    run(store.sessions.complete(session, a_call_end()))
    tombstone = deleted(store, session)
    row = store.row_of(session)

    assert run(store.sessions.report_usage(session, ALL)) is None
    assert store.row_of(session) == row

    run(store.sessions.forget(tombstone))
    assert run(store.sessions.report_usage(session, ALL)) is None
    assert store.rows(store.names.sessions) == []


# ---- Other versions --------------------------------------------------------------------------------


def test_what_a_newer_version_stored_is_kept(store: Store) -> None:
    session = added(store)
    newer = {
        "input_tokens": {"smell": 4, "text": 2},
        "grounding_tokens": {"text": 9},
        "reported_at": NOW,
        "model": "gemini-5-live",
    }
    put(store, session, to_item({"usage": newer})["usage"])

    read = found(store, session)
    assert read.usage == usage(NOW, input_tokens={"smell": 4, "text": 2})
    merged = run(store.sessions.report_usage(read, usage(input_tokens={"text": 3})))

    assert merged == usage(input_tokens={"smell": 4, "text": 3})
    stored = {**newer, "input_tokens": {"smell": 4, "text": 3}, "reported_at": NOW + 9}
    assert store.row_of(session)["usage"] == to_item({"usage": stored})["usage"]


@pytest.mark.parametrize(
    "attribute",
    [
        {"S": "what-the-caller-said"},
        {"M": {"input_tokens": {"N": "1"}, "reported_at": {"N": "1"}}},
        {"M": {"input_tokens": {"M": {"text": {"S": "many"}}}, "reported_at": {"N": "1"}}},
        {"M": {}},
    ],
    ids=str,
)
def test_usage_that_cannot_be_read_makes_the_row_unreadable_and_is_left_out_of_lists(
    store: Store, attribute: dict[str, Any]
) -> None:
    session = added(store)
    put(store, session, attribute)

    with pytest.raises(UnreadableRow):
        found(store, session)
    with pytest.raises(UnreadableRow):
        run(store.sessions.report_usage(session, ALL))
    assert run(store.sessions.page(session.workspace, ListSessionsQuery())).data == [session]
