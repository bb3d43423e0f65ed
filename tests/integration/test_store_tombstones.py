"""Deleted sessions in DynamoDB: a tombstone replaces the row, and no later write restores the session."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest

from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import SessionActive, SessionNotFound
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.livekit_webhooks import RoomEvent
from pi_voice.domain.session_api import ListSessionsQuery
from pi_voice.domain.sessions import Session, Tombstone
from pi_voice.ports import DueSession
from tests.integration.samples import ACME, NOW, TURNS, UNPROVISIONED, a_call_end, a_session, added, deleted, found
from tests.integration.store import Store, sent_twice

run = asyncio.run

END = a_call_end()


# ---- Deleting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_deleted_session_is_not_found_and_not_listed(store: Store, status: Literal["completed", "failed"]) -> None:
    session = added(store, status=status)
    other = added(store)

    deleted(store, session)

    assert run(store.sessions.get(session.session_id)) is None
    assert run(store.sessions.page(ACME, ListSessionsQuery())).data == [other]
    assert run(store.sessions.page(ACME, ListSessionsQuery(status=status))).data == []


def test_a_tombstone_has_nothing_but_its_duties(store: Store) -> None:
    done = run(store.sessions_kept(days=1).complete(added(store), END))
    assert done is not None
    run(store.sessions.save_extraction(done, {"age": 42}, Extraction(status="succeeded"), lambda duties: duties))

    tombstone = deleted(store, done)

    row = store.row_of(done)
    assert row.keys() == {"session_id", "status", "duties", "due_at", "due_shard", "ttl", "tokens_end_at"}
    assert row["status"] == {"S": "deleted"}
    assert row["due_at"] == {"N": str(tombstone.duties.due_at)}
    assert row["ttl"] == {"N": str(NOW + 30 * 86_400)}


def test_an_active_session_is_not_deleted(store: Store) -> None:
    session = added(store)

    with pytest.raises(SessionActive):
        deleted(store, session)

    assert found(store, session) == session


def test_a_session_that_does_not_exist_leaves_no_tombstone(store: Store) -> None:
    deleted(store, a_session())

    assert store.rows(store.names.sessions) == []


def test_a_deletion_whose_first_response_was_lost_succeeds(store: Store) -> None:
    session = added(store, status="failed")

    tombstone = deleted(store.through(put_item=sent_twice), session)

    assert run(store.sessions.duties(session.session_id)) == tombstone.duties


def test_a_session_is_completed_or_deleted_but_never_both(store: Store) -> None:
    session = added(store)

    def delete() -> bool:
        try:
            deleted(store, session)
        except SessionActive:
            return False
        return True

    with ThreadPoolExecutor(max_workers=2) as threads:
        completing = threads.submit(run, store.sessions.complete(session, END))
        is_deleted = threads.submit(delete).result()

    assert completing.result() is not None
    assert (run(store.sessions.get(session.session_id)) is None) == is_deleted


# ---- Forgetting -------------------------------------------------------------------------------------


def test_a_tombstone_is_forgotten(store: Store) -> None:
    session = added(store, status="failed")

    run(store.sessions.forget(deleted(store, session)))

    assert store.rows(store.names.sessions) == []


def test_forgetting_whose_first_response_was_lost_succeeds(store: Store) -> None:
    tombstone = deleted(store, added(store, status="failed"))

    run(store.through(delete_item=sent_twice).sessions.forget(tombstone))

    assert store.rows(store.names.sessions) == []


def test_a_tombstone_with_other_duties_is_not_forgotten(store: Store) -> None:
    tombstone = deleted(store, added(store, status="failed"))

    run(store.sessions.forget(tombstone._replace(duties=tombstone.duties.without("close_room"))))

    assert run(store.sessions.duties(tombstone.session_id)) == tombstone.duties


def test_a_session_is_not_forgotten(store: Store) -> None:
    session = added(store, status="failed")

    run(store.sessions.forget(Tombstone(session.session_id, session.duties)))

    assert found(store, session) == session


# ---- Later writes -----------------------------------------------------------------------------------

Write = Callable[[Store, Session], Coroutine[Any, Any, object]]
WRITES: dict[str, Write] = {
    "complete": lambda store, session: store.sessions.complete(session, END),
    "complete from checkpoints": lambda store, session: store.sessions.complete(
        session, END._replace(checkpoint_turns=0, expires_at=session.expires_at)
    ),
    "fail": lambda store, session: store.sessions.fail(
        session, session.failed(UNPROVISIONED, "failed", NOW), close_room_at=NOW
    ),
    "hang up": lambda store, session: store.sessions.hang_up(session, "stopped", NOW),
    "count a renewal": lambda store, session: store.sessions.count_renewal(session.session_id),
    "renew": lambda store, session: store.sessions.renew(session.session_id, NOW + 9_000),
    "append": lambda store, session: store.checkpoints.append(session, TURNS, 100, NOW),
    "merge an event of its room": lambda store, session: store.sessions.merge_room_event(
        RoomEvent(session.session_id, "RM_ours", joined_at=NOW, started_at=NOW, finished_at=NOW, metadata={"a": 1})
    ),
    "merge an event of another room": lambda store, session: store.sessions.merge_room_event(
        RoomEvent(session.session_id, "RM_another", finished_at=NOW)
    ),
}
writes = pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))


@writes
def test_a_write_does_not_change_a_tombstone(store: Store, write: Write) -> None:
    session = added(store, status="failed")
    tombstone = deleted(store, session)
    row = store.row_of(session)

    assert run(write(store, session)) in (None, tombstone)

    assert store.row_of(session) == row
    assert store.rows(store.names.transcripts) == []


@writes
def test_a_write_to_a_session_that_does_not_exist_creates_none(store: Store, write: Write) -> None:
    assert run(write(store, a_session())) is None

    assert store.rows(store.names.sessions) == []
    assert store.rows(store.names.transcripts) == []


def test_results_of_a_deleted_session_are_not_stored(store: Store) -> None:
    done = run(store.sessions.complete(added(store), END))
    assert done is not None
    deleted(store, done)
    row = store.row_of(done)

    with pytest.raises(SessionNotFound):
        run(store.sessions.save_extraction(done, {"age": 42}, Extraction(status="succeeded"), lambda duties: duties))

    assert store.row_of(done) == row


def test_a_session_with_the_id_of_a_tombstone_is_not_added(store: Store) -> None:
    session = added(store, status="failed")
    deleted(store, session)
    row = store.row_of(session)

    assert not run(store.sessions.add(session))
    assert store.row_of(session) == row


def test_duties_read_before_the_deletion_do_not_replace_those_of_the_tombstone(store: Store) -> None:
    session = added(store, status="failed")
    tombstone = deleted(store, session)

    current = run(store.sessions.set_duties(session.session_id, session.duties, Duties()))

    assert current == tombstone
    assert run(store.sessions.duties(session.session_id)) == tombstone.duties


def test_a_due_time_read_before_the_deletion_does_not_put_the_tombstone_off(store: Store) -> None:
    session = added(store, status="failed")
    assert session.duties.due_at is not None
    deleted(store, session)
    row = store.row_of(session)

    assert run(store.sessions.put_off(DueSession(session.session_id, session.duties.due_at), NOW + 9_000))
    assert store.row_of(session) == row
