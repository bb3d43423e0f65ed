"""Rows of sessions that another version of the code wrote, or that are broken."""

import asyncio
import io
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain.duties import Duties, Duty
from pi_voice.domain.errors import UnreadableRow
from pi_voice.domain.extractions import Extraction
from pi_voice.domain.ids import SessionId, uuid7
from pi_voice.domain.livekit_webhooks import RoomEvent
from pi_voice.domain.session_api import ListSessionsQuery
from pi_voice.domain.sessions import Participant, Session
from pi_voice.ports import DueSession
from tests.integration.samples import ACME, NOW, a_call_end, added, found
from tests.integration.store import Row, Store

run = asyncio.run

SECRET = "what-the-caller-said"


def stored(store: Store, session: Session, without: tuple[str, ...] = (), **attributes: Any) -> Session:
    """Change the stored attributes of a session."""
    row: Row = {name: value for name, value in store.row_of(session).items() if name not in without}
    store.dynamodb.put_item(TableName=store.names.sessions, Item={**row, **attributes})
    return session


def listed(store: Store) -> list[Session]:
    return list(run(store.sessions.page(ACME, ListSessionsQuery())).data)


# ---- Other versions ---------------------------------------------------------------------------------


def test_attributes_that_this_version_does_not_know_are_ignored(store: Store) -> None:
    session = added(store)
    row = store.row_of(session)
    row["livekit"]["M"] |= {
        "region": {"S": "eu"},
        "other_rooms": {"M": {"RM_2": {"M": {"region": {"S": "eu"}}}}},
    }
    row["duties"]["M"]["end_call"]["M"]["lane"] = {"S": "slow"}

    stored(store, session, **row, sentiment={"M": {"joy": {"N": "0.5"}}})

    room = session.livekit.model_copy(update={"other_rooms": found(store, session).livekit.other_rooms})
    assert found(store, session) == replace(session, livekit=room)
    assert [other.room_sid for other in room.other_rooms] == ["RM_2"]
    assert listed(store) == [found(store, session)]


def test_unknown_fields_of_an_extraction_are_ignored(store: Store) -> None:
    done = run(store.sessions.complete(added(store), a_call_end()))
    assert done is not None

    stored(store, done, extraction={"S": '{"status":"pending","mood":"good"}'})

    assert found(store, done).extraction == Extraction(status="pending")


def test_missing_attributes_have_their_defaults(store: Store) -> None:
    session = added(store)
    livekit = {"M": {"room_sid": {"S": "RM_ours"}}}
    defaults = ("media", "duties", "due_at", "due_shard", "participant_name", "metadata")
    others = ("client_metadata", "checkpoint_bytes", "time_zone")

    stored(store, session, defaults + others, livekit=livekit)

    room = session.livekit.model_copy(update={"started_at": None})
    assert found(store, session) == replace(
        session,
        media=("microphone",),
        duties=Duties(),
        participant=Participant(identity=session.participant.identity),
        metadata={},
        client_metadata={},
        livekit=room,
    )
    assert listed(store) == [found(store, session)]


def test_a_session_without_duties_can_be_hung_up_and_completed(store: Store) -> None:
    session = stored(store, added(store), ("duties", "due_at", "due_shard"))

    hung_up = run(store.sessions.hang_up(found(store, session), "stopped", NOW + 60))
    assert hung_up is not None
    assert hung_up.duties == Duties().plus(close_room=NOW + 60)
    stored(store, session, ("duties",))

    assert run(store.sessions.complete(hung_up, a_call_end())) is not None


def test_a_session_without_duties_can_get_some(store: Store) -> None:
    session = stored(store, added(store), ("duties", "due_at", "due_shard"))
    duties = Duties().plus(close_room=NOW + 60)

    changed = run(store.sessions.set_duties(session.session_id, Duties(), duties))

    assert changed == found(store, session)
    assert changed is not None
    assert changed.duties == duties


def test_duties_with_other_attributes_can_be_changed(store: Store) -> None:
    session = added(store)
    duties = {"end_call": {"M": {"due_at": {"N": str(NOW + 4_200)}, "lane": {"S": "slow"}}}}
    stored(store, session, duties={"M": duties})

    changed = run(store.sessions.set_duties(session.session_id, session.duties, session.duties.plus(remind=NOW)))
    assert changed is not None
    assert changed.duties == session.duties.plus(remind=NOW)

    stored(store, session, duties={"M": duties})
    assert run(store.sessions.hang_up(session, "stopped", NOW)) is not None


def test_an_event_of_another_room_is_not_stored_in_a_row_without_a_place_for_it(store: Store) -> None:
    session = stored(store, added(store), livekit={"M": {"room_sid": {"S": "RM_ours"}}})

    merged = run(store.sessions.merge_room_event(RoomEvent(session.session_id, "RM_2", joined_at=NOW)))

    assert merged == found(store, session)
    assert merged is not None
    assert merged.livekit.other_rooms == []


def test_a_status_that_only_a_newer_version_knows_is_shown_and_ends_nothing(store: Store) -> None:
    session = stored(store, added(store), status={"S": "ringing"})

    assert str(found(store, session).status) == "ringing"
    assert listed(store) == [found(store, session)]
    assert run(store.sessions.complete(session, a_call_end())) is None
    assert run(store.sessions.count_renewal(session.session_id)) is None
    assert run(store.sessions.renew(session.session_id, NOW + 9_000)) is None


def test_duties_that_only_a_newer_version_knows_are_read(store: Store) -> None:
    duty = {"M": {"due_at": {"N": str(NOW + 5)}, "tries": {"N": "2"}}}
    session = stored(store, added(store), duties={"M": {"remind": duty}})

    assert run(store.sessions.duties(session.session_id)) == Duties({"remind": Duty(NOW + 5, tries=2)})


# ---- Broken rows ------------------------------------------------------------------------------------

BROKEN: dict[str, dict[str, Any]] = {
    "duties of the wrong type": {"duties": {"S": SECRET}},
    "a duty without a time": {"duties": {"M": {"end_call": {"M": {"tries": {"N": "1"}}}}}},
    "a duty at no time": {"duties": {"M": {"end_call": {"M": {"due_at": {"S": SECRET}}}}}},
    "a room of the wrong type": {"livekit": {"S": SECRET}},
    "another room of the wrong type": {"livekit": {"M": {"other_rooms": {"M": {"RM_2": {"S": SECRET}}}}}},
    "room metadata that is not JSON": {"livekit": {"M": {"metadata": {"S": SECRET}}}},
    "media of the wrong type": {"media": {"N": "1"}},
    "a failure of the wrong type": {"failure": {"M": {"code": {"N": "1"}, "message": {"S": SECRET}}}},
}
UNLISTED: dict[str, dict[str, Any]] = {
    "results that are not JSON": {"results": {"S": SECRET}},
    "an extraction that is not JSON": {"extraction": {"S": SECRET}},
    "an extraction of the wrong type": {"extraction": {"S": f'{{"status":"failed","model":["{SECRET}"]}}'}},
}
broken = pytest.mark.parametrize("attributes", (BROKEN | UNLISTED).values(), ids=list(BROKEN | UNLISTED))


def assert_logged(logged: io.StringIO, session: Session) -> None:
    """Check that the key of a row was logged, and nothing of its content."""
    assert '"row_unreadable"' in logged.getvalue()
    assert session.session_id in logged.getvalue()
    for secret in (SECRET, session.participant.identity, session.workspace + '"'):
        assert secret not in logged.getvalue()


@broken
def test_a_broken_row_cannot_be_read_and_its_key_is_logged(
    store: Store, logged: io.StringIO, attributes: dict[str, Any]
) -> None:
    session = stored(store, added(store), **attributes)

    with pytest.raises(UnreadableRow) as raised:
        run(store.sessions.get(session.session_id))
    with pytest.raises(UnreadableRow):
        run(store.sessions.duties(session.session_id))

    assert SECRET not in repr(raised.value)
    assert_logged(logged, session)


@pytest.mark.parametrize("missing", ["status", "participant_identity", "workspace", "expires_at"])
def test_a_row_without_an_attribute_that_has_no_default_cannot_be_read(store: Store, missing: str) -> None:
    session = stored(store, added(store), (missing,))

    with pytest.raises(UnreadableRow):
        run(store.sessions.get(session.session_id))


@pytest.mark.parametrize("attributes", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_row_is_left_out_of_lists(store: Store, logged: io.StringIO, attributes: dict[str, Any]) -> None:
    others = [added(store), added(store)]
    session = stored(store, added(store), **attributes)

    assert listed(store) == others[::-1]
    assert_logged(logged, session)


@pytest.mark.parametrize("missing", ["status", "participant_identity"])
def test_a_row_without_a_necessary_attribute_is_left_out_of_lists(store: Store, missing: str) -> None:
    other = added(store)
    stored(store, added(store), (missing,))

    assert listed(store) == [other]


@broken
def test_a_write_to_a_broken_row_reveals_nothing_of_it(
    store: Store, logged: io.StringIO, attributes: dict[str, Any]
) -> None:
    session = stored(store, added(store), **attributes)
    duties = session.duties.plus(close_room=NOW)

    writes: list[Coroutine[Any, Any, object]] = [
        store.sessions.hang_up(session, "stopped", NOW),
        store.sessions.set_duties(session.session_id, session.duties, duties),
        store.sessions.merge_room_event(RoomEvent(session.session_id, "RM_ours", started_at=NOW)),
        store.sessions.merge_room_event(RoomEvent(session.session_id, "RM_2", joined_at=NOW)),
    ]

    for write in writes:
        with pytest.raises(UnreadableRow):
            run(write)
    assert_logged(logged, session)


# ---- Broken rows that are due -----------------------------------------------------------------------


def due(store: Store, now: int) -> list[DueSession]:
    async def ask() -> list[DueSession]:
        return [each async for page in store.sessions.due(now) for each in page]

    return run(ask())


def test_a_broken_row_is_due_later_each_time_it_was_put_off_and_then_given_up(store: Store) -> None:
    session = stored(store, added(store), duties={"S": SECRET})
    at = NOW + 4_200

    for _ in range(24):
        [row] = due(store, at)
        assert run(store.sessions.put_off(row, at + 3_600))
        assert due(store, at + 3_599) == []
        at += 3_600
    [row] = due(store, at)
    assert not run(store.sessions.put_off(row, at + 3_600))
    assert due(store, at) == [row]

    assert run(store.sessions.put_off(row, None))
    assert due(store, at + 10**6) == []
    assert not {"due_at", "due_shard"} & store.row_of(session).keys()


def test_a_row_whose_due_time_changed_is_not_put_off(store: Store) -> None:
    session = added(store)

    for until in (NOW + 3_600, None):
        assert run(store.sessions.put_off(DueSession(session.session_id, NOW), until))

    assert found(store, session) == session
    assert "unreadable_tries" not in store.row_of(session)


def test_a_row_that_was_deleted_is_not_put_off(store: Store) -> None:
    assert run(store.sessions.put_off(DueSession(SessionId(uuid7()), NOW), NOW + 3_600))

    assert store.rows(store.names.sessions) == []
