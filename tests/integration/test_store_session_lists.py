"""Lists of sessions: pages, filters, cursors, and the number of rows read."""

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pi_voice.domain import pagination
from pi_voice.domain.errors import InvalidCursor, StorageError
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import AgentId, SessionId, WorkspaceId, uuid7
from pi_voice.domain.pagination import Page
from pi_voice.domain.session_api import ListSessionsQuery
from pi_voice.domain.sessions import Participant, Session, SessionStatus
from tests.integration.samples import ACME, GLOBEX, NOW, a_call_end, a_session, id_made_at
from tests.integration.store import Request, Row, Store

run = asyncio.run

AGENTS = [AgentId(uuid7()) for _ in range(2)]
STATUSES: list[SessionStatus] = ["active", "completed", "failed"]


def add_sessions(store: Store, workspace: WorkspaceId, kinds: list[tuple[SessionStatus, AgentId]]) -> list[Session]:
    """Store one session per kind, each a second after the previous one, and return them newest first."""
    template = a_session(workspace=workspace)
    sessions = [
        replace(template, session_id=SessionId(id_made_at(NOW + second)), status=status, agent_id=agent_id)
        for second, (status, agent_id) in enumerate(kinds)
    ]
    if sessions:
        run(store.sessions.add(sessions[0]))
        row = store.row_of(sessions[0])
        store.fill_sessions(
            {
                **row,
                "session_id": {"S": session.session_id},
                "status": {"S": session.status},
                "agent_id": {"S": session.agent_id},
            }
            for session in sessions[1:]
        )
    return sessions[::-1]


def active(store: Store, count: int, workspace: WorkspaceId = ACME) -> list[Session]:
    return add_sessions(store, workspace, [("active", AGENTS[0])] * count)


def pages(store: Store, workspace: WorkspaceId = ACME, **query: Any) -> Iterator[Page[Session]]:
    cursor = None
    while True:
        page = run(store.sessions.page(workspace, ListSessionsQuery(**query, cursor=cursor)))
        yield page
        if (cursor := page.next_cursor) is None:
            return


def listed(read: list[Page[Session]]) -> list[Session]:
    return [session for page in read for session in page.data]


# ---- Pages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "limit"), [(0, 1), (1, 1), (3, 1), (4, 2), (5, 2), (5, 4), (5, 5), (101, 100)])
def test_the_pages_hold_all_sessions_newest_first_and_only_the_last_has_no_cursor(
    store: Store, count: int, limit: int
) -> None:
    sessions = active(store, count)
    active(store, 3, GLOBEX)

    read = list(pages(store, limit=limit))

    assert listed(read) == sessions
    assert len(read) == max(1, -(-count // limit))


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    kinds=st.lists(st.tuples(st.sampled_from(STATUSES), st.sampled_from(AGENTS)), max_size=20),
    status=st.none() | st.sampled_from(STATUSES),
    agent_id=st.none() | st.sampled_from(AGENTS),
    limit=st.integers(1, 8),
)
def test_the_pages_of_every_filter_hold_all_matching_sessions_newest_first(
    store: Store,
    kinds: list[tuple[SessionStatus, AgentId]],
    status: SessionStatus | None,
    agent_id: AgentId | None,
    limit: int,
) -> None:
    workspace = WorkspaceId(uuid7())  # one per example: they share the table
    sessions = add_sessions(store, workspace, kinds)

    read = list(pages(store, workspace, status=status, agent_id=agent_id, limit=limit))

    assert listed(read) == [
        session for session in sessions if status in (None, session.status) and agent_id in (None, session.agent_id)
    ]
    assert all(len(page.data) == limit for page in read[:-1])
    assert len(read) == max(1, -(-len(listed(read)) // limit))


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    people=st.lists(st.sampled_from(["ana", "bo"]), max_size=12),
    participant=st.none() | st.just("ana"),
    after=st.none() | st.integers(NOW - 1, NOW + 13),
    before=st.none() | st.integers(NOW - 1, NOW + 13),
    limit=st.integers(1, 5),
)
def test_the_pages_of_a_participant_and_a_period_hold_all_matching_sessions_newest_first(
    store: Store, people: list[str], participant: str | None, after: int | None, before: int | None, limit: int
) -> None:
    if after is not None and before is not None and before <= after:
        after = None  # a query refuses it
    workspace = WorkspaceId(uuid7())  # one per example: they share the table
    sessions = [
        a_session(
            workspace=workspace,
            session_id=SessionId(id_made_at(NOW + second)),
            created_at=NOW + second,
            participant=Participant(identity=identity),
        )
        for second, identity in enumerate(people)
    ]
    for session in sessions:
        run(store.sessions.add(session))

    read = list(
        pages(store, workspace, participant=participant, created_after=after, created_before=before, limit=limit)
    )

    assert [session.session_id for session in listed(read)] == [
        session.session_id
        for session in reversed(sessions)
        if participant in (None, session.participant.identity)
        and (after or 0) <= session.created_at < (before or NOW + 99)
    ]
    assert len(read) == max(1, -(-len(listed(read)) // limit))


def test_a_period_reads_no_rows_outside_of_it(store: Store) -> None:
    sessions = active(store, 50)
    reading = Reading()
    query = ListSessionsQuery(created_after=NOW + 10, created_before=NOW + 15, agent_id=AGENTS[0])

    page = run(store.through(query=reading.counted).sessions.page(ACME, query))

    assert page.data == sessions[35:40]
    assert (page.next_cursor, reading.rows) == (None, 5)


def test_a_session_whose_status_changed_after_the_index_was_read_is_in_no_page_of_its_old_status(store: Store) -> None:
    sessions = active(store, 5)

    def as_it_was(query: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            answer = query(**arguments)
            run(store.sessions.complete(sessions[2], a_call_end()))
            return answer

        return ask

    lagging = store.through(query=as_it_was).sessions
    page = run(lagging.page(ACME, ListSessionsQuery(status="active", limit=4)))

    assert page.data == [sessions[0], sessions[1], sessions[3]]
    assert page.next_cursor is not None
    rest = run(store.sessions.page(ACME, ListSessionsQuery(status="active", cursor=page.next_cursor)))
    assert rest.data == sessions[4:]


def test_sessions_created_while_paging_do_not_shift_the_pages(store: Store) -> None:
    sessions = active(store, 4)
    first = run(store.sessions.page(ACME, ListSessionsQuery(limit=2)))
    run(store.sessions.add(a_session(session_id=SessionId(id_made_at(NOW + 100)))))

    second = run(store.sessions.page(ACME, ListSessionsQuery(limit=2, cursor=first.next_cursor)))

    assert first.data + second.data == sessions
    assert second.next_cursor is None


def test_a_completed_session_moves_to_the_other_filter(store: Store) -> None:
    session = active(store, 1)[0]
    run(store.sessions.complete(session, a_call_end()))

    assert listed(list(pages(store, status="active"))) == []
    assert [found.session_id for found in listed(list(pages(store, status="completed")))] == [session.session_id]


def test_lists_omit_the_results_and_the_reference_to_the_transcript(store: Store) -> None:
    session = active(store, 1)[0]
    done = run(store.sessions.complete(session, a_call_end()))
    assert done is not None
    run(store.sessions.save_extraction(done, {"age": 42}, Extraction(status="succeeded"), lambda duties: duties))

    whole = run(store.sessions.get(session.session_id))

    assert whole is not None
    shown = replace(whole, results=None, extraction=None, transcript_id=None, turns=0, owed_events=())
    assert listed(list(pages(store))) == [shown]


# ---- Cursors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "AAAA", "é", "A" * 22 + "==", "A" * 400, "0" * 22 + "\n"])
def test_a_cursor_that_no_list_returned_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        run(store.sessions.page(ACME, ListSessionsQuery(cursor=cursor)))


def test_a_made_up_cursor_shows_only_the_callers_sessions(store: Store) -> None:
    sessions = active(store, 4)
    active(store, 4, GLOBEX)
    between = pagination.encode_cursor(id_made_at(NOW + 2))  # the time of the second newest, but not its id

    shown = run(store.sessions.page(ACME, ListSessionsQuery(cursor=between)))

    assert sessions[2:] == [session for session in shown.data if session != sessions[1]]
    assert all(session.workspace == ACME for session in shown.data)


@pytest.mark.parametrize("status", [None, "active"])
def test_a_cursor_of_another_workspace_shows_none_of_its_rows(store: Store, status: SessionStatus | None) -> None:
    sessions = active(store, 3)
    active(store, 3, GLOBEX)
    cursor = run(store.sessions.page(GLOBEX, ListSessionsQuery(limit=1))).next_cursor

    shown = run(store.sessions.page(ACME, ListSessionsQuery(cursor=cursor, status=status))).data

    assert shown in (sessions, sessions[1:])  # the cursor's place may be before or after the newest one


def test_a_cursor_outside_of_the_period_shows_what_is_after_it_in_the_period(store: Store) -> None:
    sessions = active(store, 6)
    newest = pagination.encode_cursor(sessions[0].session_id)
    oldest = pagination.encode_cursor(sessions[-1].session_id)

    later, earlier = (
        run(store.sessions.page(ACME, ListSessionsQuery(cursor=cursor, created_after=NOW + 2, created_before=NOW + 4)))
        for cursor in (newest, oldest)
    )

    assert (later.data, earlier.data) == (sessions[2:4], [])
    assert (later.next_cursor, earlier.next_cursor) == (None, None)


@pytest.mark.parametrize(("highest", "count"), [(0, 0), (2**128 - 1, 3)])
def test_the_lowest_and_the_highest_cursor_are_the_ends_of_the_list(store: Store, highest: int, count: int) -> None:
    active(store, 3)
    cursor = pagination.encode_cursor(str(uuid.UUID(int=highest)))

    assert len(run(store.sessions.page(ACME, ListSessionsQuery(cursor=cursor))).data) == count


def test_a_workspace_without_sessions_has_one_empty_page(store: Store) -> None:
    active(store, 3)

    assert list(pages(store, WorkspaceId("acm"))) == [Page[Session](data=[], next_cursor=None)]


# ---- Number of rows read ----------------------------------------------------------------------------


class Reading:
    """Counts the rows of the index that queries read."""

    def __init__(self) -> None:
        self.rows = 0

    def counted(self, query: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            answer = query(**arguments)
            self.rows += answer["ScannedCount"]
            return answer

        return ask


def test_a_filtered_page_reads_at_most_1000_rows_and_the_next_page_continues_there(store: Store) -> None:
    rare, common = ("failed", AGENTS[1]), ("active", AGENTS[0])
    kinds = cast("list[tuple[SessionStatus, AgentId]]", [rare, rare, *[common] * 1_100, rare, *[common] * 99])
    sessions = add_sessions(store, ACME, kinds)
    reading = Reading()
    counted = store.through(query=reading.counted).sessions

    first = run(counted.page(ACME, ListSessionsQuery(status="failed")))
    assert first.data == [sessions[99]]
    assert first.next_cursor is not None
    assert reading.rows == 1_000

    second = run(counted.page(ACME, ListSessionsQuery(status="failed", cursor=first.next_cursor)))
    assert second.data == sessions[-2:]
    assert second.next_cursor is None
    assert reading.rows == len(sessions)


def test_a_filter_without_matches_has_one_empty_page(store: Store) -> None:
    active(store, 230)

    assert [len(page.data) for page in pages(store, agent_id=AGENTS[1], limit=1)] == [0]


def test_an_unfiltered_page_reads_one_row_more_than_it_returns(store: Store) -> None:
    active(store, 50)
    reading = Reading()

    run(store.through(query=reading.counted).sessions.page(ACME, ListSessionsQuery(limit=20)))

    assert reading.rows == 21


def test_unprocessed_keys_of_a_batch_are_requested_again(store: Store) -> None:
    sessions = active(store, 10)
    batch_sizes: list[int] = []

    def three_at_a_time(batch_get: Request) -> Request:
        def ask(RequestItems: dict[str, Row]) -> Any:  # noqa: N803 (boto3's own name)
            ((table, request),) = RequestItems.items()
            batch_sizes.append(len(request["Keys"]))
            answer = batch_get(RequestItems={table: {**request, "Keys": request["Keys"][:3]}})
            left = request["Keys"][3:]
            return {**answer, "UnprocessedKeys": {table: {**request, "Keys": left}} if left else {}}

        return ask

    page = run(store.through(batch_get_item=three_at_a_time).sessions.page(ACME, ListSessionsQuery()))

    assert page.data == sessions
    assert batch_sizes == [10, 7, 4, 1]


def test_a_batch_that_is_never_processed_is_a_storage_error(store: Store) -> None:
    active(store, 2)

    def nothing(_: Request) -> Request:
        return lambda RequestItems: {"Responses": {}, "UnprocessedKeys": RequestItems}  # noqa: N803 (boto3's own name)

    with pytest.raises(StorageError):
        run(store.through(batch_get_item=nothing).sessions.page(ACME, ListSessionsQuery()))


def test_a_session_deleted_between_the_two_reads_is_omitted(store: Store) -> None:
    sessions = active(store, 5)
    gone = sessions[2]

    def as_it_was(query: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            answer = query(**arguments)
            key = {"session_id": {"S": gone.session_id}}
            store.dynamodb.delete_item(TableName=store.names.sessions, Key=key)
            return answer

        return ask

    page = run(store.through(query=as_it_was).sessions.page(ACME, ListSessionsQuery()))

    assert page.data == [session for session in sessions if session != gone]
    assert page.next_cursor is None
